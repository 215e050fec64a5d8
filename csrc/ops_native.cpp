// The operator adgan_fast::native_search (contract in adgan_fast/ops/native.py) and what else is asked of the search:
// checks, the plan, the schedule over threads, registration. The maths is in core/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "core/arena.h"
#include "core/plan.h"
#include "core/search.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Tensors = std::vector<Tensor>;

#define NATIVE_CHECK(condition, ...) STD_TORCH_CHECK(condition, "adgan_fast::native_search: ", __VA_ARGS__)

// The operator's arguments, in the order of its schema.
struct Arguments {
  Tensor images, starts;
  Tensors parameters, constants;
  std::vector<std::int64_t> code;
  std::vector<double> numbers;
  std::int64_t weights, loss, steps;
  std::vector<double> rates;
  std::int64_t threads = 0;
  bool poison = false, compact = false;
  std::int64_t own_loss = 0, isa = -1, stop = 0;
};

struct Results {
  Tensor initial, final, latents, reconstructions;
};

// -- check ---------------------------------------------------------------------------------------------------------

void check_float(const Tensor& t, const char* name) {
  NATIVE_CHECK(t.is_cpu() && t.scalar_type() == ScalarType::Float && t.is_contiguous(), name,
               " must be contiguous float32 on the cpu");
}

void check_shape(const Tensor& t, const adgan::Shape& shape, std::int64_t leading, const char* name) {
  bool fits = t.dim() == leading + static_cast<std::int64_t>(shape.size());
  for (std::size_t d = 0; fits && d < shape.size(); ++d) {
    fits = t.size(leading + static_cast<std::int64_t>(d)) == shape[d];
  }
  NATIVE_CHECK(fits, name, " does not have the shape that the program says");
}

void check_modes(std::int64_t weights, std::int64_t loss, std::int64_t steps) {
  NATIVE_CHECK(weights >= 0 && weights < adgan::kWeights, "weights must be from 0 to ", adgan::kWeights - 1, ", got ",
               weights);
  NATIVE_CHECK(loss >= 0 && loss < adgan::kLosses, "loss must be from 0 to ", adgan::kLosses - 1, ", got ", loss);
  NATIVE_CHECK(steps >= 0, "steps must not be negative, got ", steps);
}

adgan::SearchSettings checked_settings(const Arguments& a) {
  check_modes(a.weights, a.loss, a.steps);
  const auto loss = static_cast<adgan::Loss>(a.loss);
  NATIVE_CHECK((loss == adgan::Loss::function) == (a.own_loss != 0),
               "own_loss is the address of the function for loss ", static_cast<int>(adgan::Loss::function),
               ", and 0 for the others");
  NATIVE_CHECK(a.threads >= 0, "threads must not be negative, got ", a.threads);
  NATIVE_CHECK(a.rates.size() == 5, "rates are lr_z, lr_weights, beta1, beta2, eps");
  const auto best = static_cast<std::int64_t>(adgan::best_isa());
  NATIVE_CHECK(a.isa >= -1 && a.isa <= best, "isa must be -1, or from 0 to ", best, " on this processor, got ", a.isa);
  return {.weights = static_cast<adgan::Weights>(a.weights),
          .loss = loss,
          .steps = a.steps,
          .lr_latent = a.rates[0],
          .lr_weights = a.rates[1],
          .beta1 = a.rates[2],
          .beta2 = a.rates[3],
          .eps = a.rates[4],
          .own = reinterpret_cast<adgan::OwnLoss>(static_cast<std::uintptr_t>(a.own_loss)),
          .stop = reinterpret_cast<const int*>(static_cast<std::uintptr_t>(a.stop))};
}

// Every tensor has the shape that the program gives it.
void check_tensors(const Arguments& a, const adgan::Program& program, bool common_starts) {
  check_float(a.images, "images");
  check_float(a.starts, "starts");
  for (const Tensor& t : a.parameters) check_float(t, "parameters");
  for (const Tensor& t : a.constants) check_float(t, "constants");
  for (const adgan::Value& v : program.values) {
    const bool parameter = v.kind == adgan::Kind::parameter;
    if (!parameter && v.kind != adgan::Kind::constant) continue;
    const Tensors& given = parameter ? a.parameters : a.constants;
    NATIVE_CHECK(v.index >= 0 && v.index < static_cast<std::int64_t>(given.size()),
                 "the program names a tensor that is not there");
    check_shape(given[v.index], v.shape, 0, parameter ? "a parameter" : "a constant");
  }
  check_shape(a.images, program.values[program.output].shape, 1, "images");
  check_shape(a.starts, program.values[program.latent].shape, common_starts ? 1 : 2, "starts");
  NATIVE_CHECK(common_starts || a.starts.size(0) == a.images.size(0), "starts must have as many rows as images");
}

// -- plan ----------------------------------------------------------------------------------------------------------

std::vector<const float*> pointers(const Tensors& tensors) {
  std::vector<const float*> result;
  for (const Tensor& t : tensors) result.push_back(t.const_data_ptr<float>());
  return result;
}

// Floats of the arena that LoadedWeights takes its two regions from.
std::int64_t shared_floats(const adgan::ExecutionPlan& plan) {
  return adgan::Arena::taken(plan.theta_size) + adgan::Arena::taken(plan.fixed_size);
}

// θ₀ and the constants in a plan's layout, which all threads read.
struct LoadedWeights {
  LoadedWeights(const adgan::ExecutionPlan& plan, const Arguments& a)
      : arena(shared_floats(plan)), theta(arena.take(plan.theta_size)), fixed(arena.take(plan.fixed_size)) {
    plan.load(pointers(a.parameters), pointers(a.constants), theta, fixed);
  }
  adgan::Arena arena;
  float *const theta, *const fixed;
};

// Floats of an arena, for a search of s starts; with shared weights by a team of so many threads.
std::int64_t arena_floats(const adgan::ExecutionPlan& plan, const adgan::Search& search, adgan::Weights mode,
                          std::int64_t s, int team) {
  switch (mode) {
    case adgan::Weights::per_seed: return search.arena_floats(1);
    case adgan::Weights::per_sample: return search.arena_floats(s, team);
    case adgan::Weights::frozen: return search.arena_floats(plan.batch);
  }
  __builtin_unreachable();
}

// -- schedule ------------------------------------------------------------------------------------------------------

// Runs work(i, thread's arena) for every i < n on so many threads; they take the next one as they become free.
template <typename Work>
void over_threads(std::int64_t n, std::int64_t threads, std::int64_t arena_floats, bool poison, const Work& work) {
  std::atomic<std::int64_t> next{0};
  std::exception_ptr error;
  std::mutex lock;
  torch::stable::parallel_for(0, std::min(n, threads), 1, [&](std::int64_t, std::int64_t) {
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

// Cuts the pairs into pieces of work for so many threads. A pair's result does not depend on how.
void schedule(const adgan::ExecutionPlan& plan, const adgan::Search& search, const adgan::SearchSettings& settings,
              const adgan::SearchArrays& pairs, std::int64_t threads, bool poison) {
  const std::int64_t n = pairs.images, s = pairs.starts;
  const auto run = [&](std::int64_t count, const auto& work) {
    over_threads(count, threads, arena_floats(plan, search, settings.weights, s, 1), poison, work);
  };
  switch (settings.weights) {
    case adgan::Weights::per_seed: {
      // One start and some images at a time: as many as still leave every thread several pieces of work.
      const std::int64_t size = std::clamp<std::int64_t>(n * s / (16 * threads), 1, n);
      const std::int64_t parts = adgan::ceil_div(n, size);
      return run(s * parts, [&](std::int64_t i, adgan::Arena& arena) {
        search.per_seed(arena, pairs, i / parts, i % parts * size, std::min(n, (i % parts + 1) * size));
      });
    }
    case adgan::Weights::per_sample: {
      // Each thread an image, as long as there is one for each; the rest one after another, by all threads together. A
      // loss of the caller's may fail, which would end one of a team and leave the others waiting: every image has one
      // thread.
      const std::int64_t apart = settings.own ? n : n - n % threads;
      const adgan::Team alone, all(static_cast<int>(threads));
      run(apart, [&](std::int64_t i, adgan::Arena& arena) { search.per_sample(arena, pairs, i, alone); });
      return with_team(n - apart, all, arena_floats(plan, search, settings.weights, s, all.threads()), poison,
                       [&](std::int64_t i, adgan::Arena& arena) { search.per_sample(arena, pairs, apart + i, all); });
    }
    case adgan::Weights::frozen: {
      const std::int64_t count = n * s, size = std::clamp<std::int64_t>(count / threads, 1, plan.batch);
      return run(adgan::ceil_div(count, size), [&](std::int64_t i, adgan::Arena& arena) {
        search.frozen(arena, pairs, i * size, std::min(count, (i + 1) * size));
      });
    }
  }
}

// -- operators -----------------------------------------------------------------------------------------------------

// With `timers` everything runs on this thread. `weights_to`: see SearchArrays::weights.
Results search(const Arguments& a, adgan::Timers* timers = nullptr, const std::vector<float*>* weights_to = nullptr) {
  const adgan::SearchSettings settings = checked_settings(a);
  const adgan::Program program(a.code, a.numbers);
  const adgan::Shape &latent = program.values[program.latent].shape, &image = program.values[program.output].shape;
  const bool common = a.starts.dim() == static_cast<std::int64_t>(latent.size()) + 1;
  check_tensors(a, program, common);

  const adgan::ExecutionPlan plan(program, settings.weights, settings.steps, a.compact);
  const std::int64_t n = a.images.size(0), s = a.starts.size(common ? 0 : 1);
  const auto by_pair = [&](const adgan::Shape& rest) {
    std::vector<std::int64_t> shape{n, s};
    shape.insert(shape.end(), rest.begin(), rest.end());
    return torch::stable::new_empty(a.images, shape);
  };
  Results results{by_pair({}), by_pair({}), by_pair(latent), by_pair(image)};
  if (n * s == 0) return results;

  const LoadedWeights weights(plan, a);
  const adgan::SearchArrays pairs{.images = n,
                                  .starts = s,
                                  .image = a.images.const_data_ptr<float>(),
                                  .start = a.starts.const_data_ptr<float>(),
                                  .common = common,
                                  .initial = results.initial.mutable_data_ptr<float>(),
                                  .final = results.final.mutable_data_ptr<float>(),
                                  .latent = results.latents.mutable_data_ptr<float>(),
                                  .reconstruction = results.reconstructions.mutable_data_ptr<float>(),
                                  .weights = weights_to};
  if (timers) {
    timers->forward.assign(program.layers.size() + 1, 0.0);
    timers->backward.assign(program.layers.size() + 1, 0.0);
  }
  const adgan::Isa isa = a.isa < 0 ? adgan::best_isa() : static_cast<adgan::Isa>(a.isa);
  const adgan::Search search(plan, settings, weights.theta, weights.fixed, adgan::kernels(isa), timers);
  const std::int64_t most = torch::stable::get_num_threads();
  schedule(plan, search, settings, pairs, timers ? 1 : a.threads > 0 ? std::min(a.threads, most) : most, a.poison);
  return results;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> native_search(
    Tensor images, Tensor starts, Tensors parameters, Tensors constants, std::vector<std::int64_t> code,
    std::vector<double> numbers, std::int64_t weights, std::int64_t loss, std::int64_t steps, std::vector<double> rates,
    std::int64_t threads, bool poison, bool compact, std::int64_t own_loss, std::int64_t isa, std::int64_t stop) {
  const auto [initial, final, latents, reconstructions] =
      search({images, starts, parameters, constants, code, numbers, weights, loss, steps, rates, threads, poison,
              compact, own_loss, isa, stop});
  return {initial, final, latents, reconstructions};
}

// Gradients of one start (1, *latent) against one image (1, C, H, W), by the code that searches: of the latent, then of
// each parameter (none for frozen). A first step of Adam without decay moves by lr g / (|g| + eps); with eps far above
// every |g|, and both powers of two, that is g times kEnlarged, exactly, and rounded once where it is taken off.
Tensors native_gradients(Tensor images, Tensor starts, Tensors parameters, Tensors constants,
                         std::vector<std::int64_t> code, std::vector<double> numbers, std::int64_t weights,
                         std::int64_t loss, std::int64_t own_loss) {
  constexpr double kEps = 0x1p60, kEnlarged = 0x1p20;
  NATIVE_CHECK(images.dim() == 4 && images.size(0) == 1 && starts.dim() > 0 && starts.size(0) == 1,
               "gradients are those of one image and one start");
  check_modes(weights, loss, 1);
  for (const Tensor& t : parameters) check_float(t, "parameters");
  const bool learns = static_cast<adgan::Weights>(weights) != adgan::Weights::frozen;
  Tensors after;
  std::vector<float*> to;
  for (std::size_t i = 0; learns && i < parameters.size(); ++i) {
    after.push_back(torch::stable::new_empty(parameters[i], parameters[i].sizes()));
    to.push_back(after[i].mutable_data_ptr<float>());
  }
  const std::vector<double> rates{kEps * kEnlarged, kEps * kEnlarged, 0, 0, kEps};
  const Results found = search({.images = images,
                                .starts = starts,
                                .parameters = parameters,
                                .constants = constants,
                                .code = code,
                                .numbers = numbers,
                                .weights = weights,
                                .loss = loss,
                                .steps = 1,
                                .rates = rates,
                                .threads = 1,
                                .own_loss = own_loss},
                               nullptr, &to);
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
  gradient(starts, found.latents);
  for (std::size_t i = 0; i < after.size(); ++i) gradient(parameters[i], after[i]);
  return gradients;
}

// Seconds of the same on one thread: (layers + 1, 2), forward and backward of each layer; in the last row what belongs
// to no layer, and preparing and updating the weights.
Tensor native_profile(Tensor images, Tensor starts, Tensors parameters, Tensors constants,
                      std::vector<std::int64_t> code, std::vector<double> numbers, std::int64_t weights,
                      std::int64_t loss, std::int64_t steps, std::vector<double> rates, bool compact) {
  adgan::Timers timers;
  search({.images = images,
          .starts = starts,
          .parameters = parameters,
          .constants = constants,
          .code = code,
          .numbers = numbers,
          .weights = weights,
          .loss = loss,
          .steps = steps,
          .rates = rates,
          .compact = compact},
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

// Bytes of what all threads share, and of what each has for itself.
std::vector<std::int64_t> native_bytes(std::vector<std::int64_t> code, std::vector<double> numbers,
                                       std::int64_t weights, std::int64_t loss, std::int64_t steps, std::int64_t n_seed,
                                       bool compact) {
  check_modes(weights, loss, steps);
  const adgan::Program program(code, numbers);
  const auto mode = static_cast<adgan::Weights>(weights);
  const adgan::ExecutionPlan plan(program, mode, steps, compact);
  const adgan::SearchSettings settings{.weights = mode, .loss = static_cast<adgan::Loss>(loss), .steps = steps};
  const adgan::Search search(plan, settings, nullptr, nullptr, adgan::kernels());
  constexpr std::int64_t kFloat = sizeof(float);
  return {kFloat * shared_floats(plan), kFloat * arena_floats(plan, search, mode, n_seed, 1)};
}

std::int64_t native_isa() { return static_cast<std::int64_t>(adgan::best_isa()); }

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(adgan_fast, CompositeExplicitAutograd, m) {
  m.impl("native_bytes", TORCH_BOX(&native_bytes));
  m.impl("native_isa", TORCH_BOX(&native_isa));
}

STABLE_TORCH_LIBRARY_IMPL(adgan_fast, CPU, m) {
  m.impl("native_search", TORCH_BOX(&native_search));
  m.impl("native_profile", TORCH_BOX(&native_profile));
  m.impl("native_gradients", TORCH_BOX(&native_gradients));
}
