// A generator as a test of csrc/core takes it: a program, numbers of no meaning for its tensors, images and starts.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "core/search.h"

namespace problem {

inline void read(std::int64_t& x) {
  if (!(std::cin >> x)) std::exit(2);
}

inline void read(double& x) {  // inf too, which >> does not read
  std::string text;
  if (!(std::cin >> text)) std::exit(2);
  x = std::strtod(text.c_str(), nullptr);
}

template <typename T>
std::vector<T> read_list() {
  std::int64_t n;
  read(n);
  std::vector<T> list(static_cast<std::size_t>(n));
  for (T& x : list) read(x);
  return list;
}

// f(name, program) for each on standard input, as adgan_fast/engine/native/encode.py encodes them: a name, the number
// of whole numbers and these, the number of real ones and these.
template <typename F>
void each_program(const F& f) {
  for (std::string name; std::getline(std::cin >> std::ws, name);) {
    const auto code = read_list<std::int64_t>();
    const auto numbers = read_list<double>();
    f(name, adgan::Program(code, numbers));
  }
}

// Numbers between -0.5 and 0.5 or, where a variance is wanted, above zero.
inline std::vector<float> some(std::int64_t n, float from) {
  std::vector<float> list(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < list.size(); ++i) list[i] = from + static_cast<float>(i * 7919 % 1009) / 1009.0f;
  return list;
}

struct Problem {
  Problem(const adgan::Program& program, adgan::Weights weights, std::int64_t steps, bool compact, std::int64_t n,
          std::int64_t s)
      : plan(program, weights, steps, compact), theta(static_cast<std::size_t>(plan.theta_size)),
        fixed(static_cast<std::size_t>(plan.fixed_size)), images(some(n * plan.output_size, -0.5f)),
        starts(some(s * plan.latent_size, -0.5f)), initial(static_cast<std::size_t>(n * s)), final(initial),
        latents(static_cast<std::size_t>(n * s * plan.latent_size)),
        reconstructions(static_cast<std::size_t>(n * s * plan.output_size)), pairs{n,
                                                                                   s,
                                                                                   images.data(),
                                                                                   starts.data(),
                                                                                   true,
                                                                                   initial.data(),
                                                                                   final.data(),
                                                                                   latents.data(),
                                                                                   reconstructions.data()} {
    std::vector<std::vector<float>> tensors[2];
    std::vector<const float*> pointers[2];
    for (const adgan::Value& v : program.values) {
      if (v.kind != adgan::Kind::parameter && v.kind != adgan::Kind::constant) continue;
      const bool constant = v.kind == adgan::Kind::constant;
      tensors[constant].resize(std::max(tensors[constant].size(), static_cast<std::size_t>(v.index) + 1));
      tensors[constant][static_cast<std::size_t>(v.index)] = some(v.size(), constant ? 0.25f : -0.5f);
    }
    for (int k : {0, 1}) {
      for (const auto& t : tensors[k]) pointers[k].push_back(t.data());
    }
    plan.load(pointers[0], pointers[1], theta.data(), fixed.data());
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  const adgan::ExecutionPlan plan;
  std::vector<float> theta, fixed, images, starts, initial, final, latents, reconstructions;
  const adgan::SearchArrays pairs;
};

}  // namespace problem
