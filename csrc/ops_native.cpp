// The operator adgan_fast::native_search (contract in adgan_fast/ops.py): checks, the split over threads, registration.
// The maths is in core/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "core/plan.h"
#include "core/search.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;

#define NATIVE_CHECK(condition, ...) STD_TORCH_CHECK(condition, "adgan_fast::native_search: ", __VA_ARGS__)

void check_float(const Tensor& t, const char* name) {
  NATIVE_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Float && t.is_contiguous(), name,
               " must be contiguous float32 on the cpu");
}

void check_modes(std::int64_t weights, std::int64_t loss, std::int64_t steps) {
  NATIVE_CHECK(weights >= 0 && weights <= 2, "weights must be 0, 1 or 2, got ", weights);
  NATIVE_CHECK(loss >= 0 && loss < static_cast<int>(adgan::Loss::count), "loss must be 0, 1, 2 or 3, got ", loss);
  NATIVE_CHECK(steps >= 0, "steps must not be negative, got ", steps);
}

void check_shape(const Tensor& t, const adgan::Shape& shape, std::int64_t leading, const char* name) {
  bool fits = t.dim() == leading + static_cast<std::int64_t>(shape.size());
  for (std::size_t d = 0; fits && d < shape.size(); ++d) {
    fits = t.size(leading + static_cast<std::int64_t>(d)) == shape[d];
  }
  NATIVE_CHECK(fits, name, " does not have the shape that the program says");
}

std::vector<const float*> pointers(const Tensors& tensors) {
  std::vector<const float*> result;
  for (const Tensor& t : tensors) result.push_back(t.const_data_ptr<float>());
  return result;
}

// Runs work(i, thread's arena) for every i < n on `lanes` threads; they take the next one as they become free.
template <typename Work>
void over_threads(std::int64_t n, std::int64_t lanes, std::int64_t arena_floats, bool poison, const Work& work) {
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex lock;
  torch::stable::parallel_for(0, std::min(n, lanes), 1, [&](std::int64_t, std::int64_t) {
    try {
      std::unique_ptr<adgan::Arena> arena;
      for (std::int64_t i; (i = next.fetch_add(1)) < n;) {
        if (!arena) arena = std::make_unique<adgan::Arena>(arena_floats);
        if (poison) arena->poison();
        work(i, *arena);
      }
    } catch (...) {
      next = n;
      const std::lock_guard<std::mutex> guard(lock);
      error = std::current_exception();
    }
  });
  if (error) std::rethrow_exception(error);
}

// Runs work(i, arena) for every i < n on this thread, with others of the pool to help.
template <typename Work>
void with_team(std::int64_t n, const adgan::Team& team, std::int64_t arena_floats, bool poison, const Work& work) {
  if (n == 0) return;
  std::exception_ptr error;
  // The first index is this thread's, at once or before any other of its own.
  torch::stable::parallel_for(0, team.threads(), 1, [&](std::int64_t first, std::int64_t last) {
    if (first > 0) {
      for (std::int64_t thread = first; thread < last; ++thread) team.help(static_cast<int>(thread));
      return;
    }
    try {
      adgan::Arena arena(arena_floats);
      for (std::int64_t i = 0; i < n; ++i) {
        if (poison) arena.poison();
        work(i, arena);
      }
    } catch (...) {
      error = std::current_exception();
    }
    team.dismiss();
  });
  if (error) std::rethrow_exception(error);
}

// Floats of an arena, for a search of s starts; with shared weights by a team of so many threads.
std::int64_t arena_floats(const adgan::Plan& plan, const adgan::Search& search, adgan::Weights mode, std::int64_t s,
                          int team) {
  switch (mode) {
    case adgan::Weights::per_sample: return search.arena_floats(s, team);
    case adgan::Weights::frozen: return search.arena_floats(plan.batch);
    default: return search.arena_floats(1);
  }
}

std::int64_t shared_floats(const adgan::Plan& plan) { return plan.theta_size + plan.fixed_size + 1024; }

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// With `timers` everything runs on this thread.
Results search_all(const Tensor& images, const Tensor& starts, const Tensors& parameters, const Tensors& constants,
                   const std::vector<std::int64_t>& code, const std::vector<double>& numbers, std::int64_t weights,
                   std::int64_t loss, std::int64_t steps, const std::vector<double>& rates, std::int64_t lanes, bool poison,
                   bool compact, std::int64_t own_loss, std::int64_t isa, std::int64_t stop, adgan::Timers* timers,
                   const std::vector<float*>* weights_to = nullptr) {
  check_modes(weights, loss, steps);
  NATIVE_CHECK((static_cast<adgan::Loss>(loss) == adgan::Loss::own) == (own_loss != 0),
               "own_loss is the address of the function for loss 3, and 0 for the others");
  NATIVE_CHECK(lanes >= 0, "lanes must not be negative, got ", lanes);
  NATIVE_CHECK(rates.size() == 5, "rates are lr_z, lr_weights, beta1, beta2, eps");
  NATIVE_CHECK(isa >= -1 && isa <= static_cast<std::int64_t>(adgan::best_isa()), "isa must be -1, or from 0 to ",
               static_cast<std::int64_t>(adgan::best_isa()), " on this processor, got ", isa);
  const auto mode = static_cast<adgan::Weights>(weights);
  const adgan::Rule rule{mode, static_cast<adgan::Loss>(loss), steps, rates[0], rates[1], rates[2], rates[3], rates[4],
                         reinterpret_cast<adgan::OwnLoss>(static_cast<std::uintptr_t>(own_loss)),
                         reinterpret_cast<const int*>(static_cast<std::uintptr_t>(stop))};
  check_float(images, "images");
  check_float(starts, "starts");
  for (const Tensor& t : parameters) check_float(t, "parameters");
  for (const Tensor& t : constants) check_float(t, "constants");

  const adgan::Program program(code, numbers);
  for (const adgan::Value& v : program.values) {
    const bool parameter = v.kind == adgan::Kind::parameter;
    if (!parameter && v.kind != adgan::Kind::constant) continue;
    const Tensors& given = parameter ? parameters : constants;
    NATIVE_CHECK(v.index >= 0 && v.index < static_cast<std::int64_t>(given.size()),
                 "the program names a tensor that is not there");
    check_shape(given[v.index], v.shape, 0, parameter ? "a parameter" : "a constant");
  }
  const adgan::Shape &latent = program.values[program.latent].shape, &image = program.values[program.output].shape;
  check_shape(images, image, 1, "images");
  const bool common = starts.dim() == static_cast<std::int64_t>(latent.size()) + 1;
  check_shape(starts, latent, common ? 1 : 2, "starts");
  const std::int64_t n = images.size(0), s = starts.size(common ? 0 : 1);
  NATIVE_CHECK(common || starts.size(0) == n, "starts must have as many rows as images");

  const adgan::Plan plan(program, mode, steps, compact);
  const auto shaped = [&](const adgan::Shape& rest) {
    std::vector<std::int64_t> shape{n, s};
    shape.insert(shape.end(), rest.begin(), rest.end());
    return torch::stable::new_empty(images, shape);
  };
  Tensor initial = shaped({}), final = shaped({}), latents = shaped(latent), reconstructions = shaped(image);
  if (n * s == 0) return {initial, final, latents, reconstructions};

  adgan::Arena shared(shared_floats(plan));
  float *const theta = shared.take(plan.theta_size), *const fixed = shared.take(plan.fixed_size);
  plan.load(pointers(parameters), pointers(constants), theta, fixed);
  const adgan::Pairs pairs{n, s, images.const_data_ptr<float>(), starts.const_data_ptr<float>(), common,
                           initial.mutable_data_ptr<float>(), final.mutable_data_ptr<float>(),
                           latents.mutable_data_ptr<float>(), reconstructions.mutable_data_ptr<float>(), weights_to};
  if (timers) {
    timers->forward.assign(program.layers.size() + 1, 0.0);
    timers->backward.assign(program.layers.size() + 1, 0.0);
  }
  const adgan::Search search(plan, rule, theta, fixed,
                             adgan::kernels(isa < 0 ? adgan::best_isa() : static_cast<adgan::Isa>(isa)), timers);
  const std::int64_t most = torch::stable::get_num_threads();
  const std::int64_t threads = timers ? 1 : lanes > 0 ? std::min(lanes, most) : most;
  const auto run = [&](std::int64_t count, const auto& work) {
    over_threads(count, threads, arena_floats(plan, search, mode, s, 1), poison, work);
  };
  if (mode == adgan::Weights::per_sample) {
    // Each thread an image, as long as there is one for each; the rest one after another, by all threads together. A loss
    // of the caller's may fail, which would end one of a team and leave the others waiting: every image has one thread.
    const std::int64_t apart = rule.own ? n : n - n % threads;
    const adgan::Team alone, all(static_cast<int>(threads));
    run(apart, [&](std::int64_t i, adgan::Arena& arena) { search.per_sample(arena, pairs, i, alone); });
    with_team(n - apart, all, arena_floats(plan, search, mode, s, all.threads()), poison,
              [&](std::int64_t i, adgan::Arena& arena) { search.per_sample(arena, pairs, apart + i, all); });
  } else if (mode == adgan::Weights::frozen) {
    const std::int64_t count = n * s, size = std::clamp<std::int64_t>(count / threads, 1, plan.batch);
    run((count + size - 1) / size, [&](std::int64_t i, adgan::Arena& arena) {
      search.frozen(arena, pairs, i * size, std::min(count, (i + 1) * size));
    });
  } else {
    // One start and some images at a time: as many as still leave every thread several pieces of work.
    const std::int64_t size = std::clamp<std::int64_t>(n * s / (16 * threads), 1, n);
    const std::int64_t parts = (n + size - 1) / size;
    run(s * parts, [&](std::int64_t i, adgan::Arena& arena) {
      search.per_seed(arena, pairs, i / parts, i % parts * size, std::min(n, (i % parts + 1) * size));
    });
  }
  return {initial, final, latents, reconstructions};
}

Results native_search(Tensor images, Tensor starts, Tensors parameters, Tensors constants,
                      std::vector<std::int64_t> code, std::vector<double> numbers, std::int64_t weights,
                      std::int64_t loss, std::int64_t steps, std::vector<double> rates, std::int64_t lanes,
                      bool poison, bool compact, std::int64_t own_loss, std::int64_t isa, std::int64_t stop) {
  return search_all(images, starts, parameters, constants, code, numbers, weights, loss, steps, rates, lanes, poison,
                    compact, own_loss, isa, stop, nullptr);
}

// Gradients of one start (1, *latent) against one image (1, C, H, W), by the code that searches: of the latent, then of
// each parameter (none for frozen). A first step of Adam without decay moves by lr g / (|g| + eps); with eps far above
// every |g|, and both powers of two, that is g times kEnlarged, exactly, and rounded once where it is taken off.
Tensors native_gradients(Tensor image, Tensor start, Tensors parameters, Tensors constants,
                         std::vector<std::int64_t> code, std::vector<double> numbers, std::int64_t weights,
                         std::int64_t loss, std::int64_t own_loss) {
  constexpr double kEps = 0x1p60, kEnlarged = 0x1p20;
  NATIVE_CHECK(image.dim() == 4 && image.size(0) == 1 && start.dim() > 0 && start.size(0) == 1,
               "gradients are those of one image and one start");
  const bool learns = static_cast<adgan::Weights>(weights) != adgan::Weights::frozen;
  Tensors after;
  std::vector<float*> to;
  for (std::size_t i = 0; learns && i < parameters.size(); ++i) {
    after.push_back(torch::stable::new_empty(parameters[i], parameters[i].sizes()));
    to.push_back(after[i].mutable_data_ptr<float>());
  }
  const Results found = search_all(image, start, parameters, constants, code, numbers, weights, loss, 1,
                                   {kEps * kEnlarged, kEps * kEnlarged, 0, 0, kEps}, 1, false, false, own_loss, -1, 0, nullptr,
                                   &to);
  Tensors gradients;
  const auto gradient = [&](const Tensor& before, const Tensor& moved) {
    Tensor result = torch::stable::new_empty(before, before.sizes());
    const float *const from = before.const_data_ptr<float>(), *const now = moved.const_data_ptr<float>();
    float* const g = result.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < before.numel(); ++i) {
      g[i] = static_cast<float>((static_cast<double>(from[i]) - now[i]) / kEnlarged);
    }
    gradients.push_back(result);
  };
  gradient(start, std::get<2>(found));
  for (std::size_t i = 0; i < after.size(); ++i) gradient(parameters[i], after[i]);
  return gradients;
}

// Seconds of the same on one thread: (layers + 1, 2), forward and backward of each layer; in the last row what belongs
// to no layer, and preparing and updating the weights.
Tensor native_profile(Tensor images, Tensor starts, Tensors parameters, Tensors constants,
                      std::vector<std::int64_t> code, std::vector<double> numbers, std::int64_t weights,
                      std::int64_t loss, std::int64_t steps, std::vector<double> rates, bool compact) {
  adgan::Timers timers;
  search_all(images, starts, parameters, constants, code, numbers, weights, loss, steps, rates, 1, false, compact, 0, -1, 0,
             &timers);
  const auto rows = static_cast<std::int64_t>(timers.forward.size());
  Tensor seconds = torch::stable::new_empty(images, std::vector<std::int64_t>{rows, 2});
  float* const to = seconds.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < rows; ++i) {
    to[2 * i] = static_cast<float>(timers.forward[i] + (i + 1 == rows ? timers.backward[i] : 0.0));
    to[2 * i + 1] = static_cast<float>(i + 1 == rows ? timers.updates : timers.backward[i]);
  }
  return seconds;
}

}  // namespace

// Bytes of what all threads share, and of what each has for itself.
std::vector<std::int64_t> native_bytes(std::vector<std::int64_t> code, std::vector<double> numbers, std::int64_t weights,
                                       std::int64_t loss, std::int64_t steps, std::int64_t starts, bool compact) {
  check_modes(weights, loss, steps);
  const adgan::Program program(code, numbers);
  const auto mode = static_cast<adgan::Weights>(weights);
  const adgan::Plan plan(program, mode, steps, compact);
  const adgan::Rule rule{mode, static_cast<adgan::Loss>(loss), steps, 0, 0, 0, 0, 0, nullptr, nullptr};
  const adgan::Search search(plan, rule, nullptr, nullptr, adgan::kernels());
  constexpr std::int64_t kFloat = sizeof(float);
  return {kFloat * shared_floats(plan), kFloat * arena_floats(plan, search, mode, starts, 1)};
}

std::int64_t native_isa() { return static_cast<std::int64_t>(adgan::best_isa()); }

STABLE_TORCH_LIBRARY_IMPL(adgan_fast, CompositeExplicitAutograd, m) {
  m.impl("native_bytes", TORCH_BOX(&native_bytes));
  m.impl("native_isa", TORCH_BOX(&native_isa));
}

STABLE_TORCH_LIBRARY_IMPL(adgan_fast, CPU, m) {
  m.impl("native_search", TORCH_BOX(&native_search));
  m.impl("native_profile", TORCH_BOX(&native_profile));
  m.impl("native_gradients", TORCH_BOX(&native_gradients));
}
