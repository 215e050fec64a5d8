// Algorithm 1 for one owner of weights at a time (adgan_fast/engine/reference.py is the plain statement).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/arena.h"
#include "core/plan.h"

namespace adgan {

// A loss of the caller's: the value of a reconstruction against an image, both [H][W][C], and its gradient unless that
// is null. Called from the threads that search. Sets `done` to 1, or the search ends with std::runtime_error.
using OwnLoss = void (*)(const float* reconstruction, const float* image, float* gradient, float* value, int* done);

struct SearchSettings {
  Weights weights;
  Loss loss;
  std::int64_t steps;
  double lr_latent = 0, lr_weights = 0, beta1 = 0, beta2 = 0, eps = 0;
  OwnLoss own = nullptr;      // of Loss::function alone
  const int* stop = nullptr;  // once not 0, by any thread, the search ends soon, with std::runtime_error
};

// Some images [image, ...] and the same starts for all of them, or each its own.
struct SearchArrays {
  std::int64_t images, starts;
  const float* image;      // (images, C, H, W)
  const float* start;      // (starts, *latent), or (images, starts, *latent)
  bool common;             // starts are those of every image
  float *initial, *final;  // (images, starts)
  float* latent;           // (images, starts, *latent)
  float* reconstruction;   // (images, starts, C, H, W)
  // Where the weights of the only owner go after the last step, by parameter; or null. There is no last pass then.
  const std::vector<float*>* weights = nullptr;
};

class Search {
 public:
  // `timers`: filled where not null; then for one thread only.
  Search(const ExecutionPlan& plan, const SearchSettings& settings, const float* theta, const float* fixed,
         const KernelTable& kernels, Timers* timers = nullptr);

  // What a search needs of `starts` starts at a time, of which one owner's are shared by so many threads.
  std::int64_t arena_floats(std::int64_t starts, int threads = 1) const;

  // One start of several images with private weights: the first pass is theirs together.
  void per_seed(Arena&, const SearchArrays&, std::int64_t start, std::int64_t first_image,
                std::int64_t last_image) const;
  // All starts of an image, with one copy of the weights; shared by a team.
  void per_sample(Arena&, const SearchArrays&, std::int64_t image, const Team&) const;
  // Some pairs, numbered image by image, without private weights.
  void frozen(Arena&, const SearchArrays&, std::int64_t first_pair, std::int64_t last_pair) const;

 private:
  struct Buffers;
  void throw_if_stopped() const;
  AdamStep adam(double lr, std::int64_t step) const;
  void set_target(float* target, const float* image) const;
  void read_latent(const float* from, float* latent) const;
  void write_latent(const float* latent, float* to) const;
  float loss(const Run&, float* scratch, const float* target, bool descend) const;
  void forward_and_loss(Run&, const Buffers&, std::int64_t first, float* values, bool descend) const;
  void move_latents(Run&, const Buffers&, std::int64_t first, std::int64_t step) const;
  void write_results(const Run&, const Buffers&, std::int64_t first, const SearchArrays&, std::int64_t pair) const;
  void write_image(const float* act, float* to) const;
  Run begin(const Buffers&, const Team&) const;
  void use_theta(Run&, const Buffers&) const;

  const ExecutionPlan& plan_;
  const SearchSettings settings_;
  const float *theta_, *fixed_;
  const KernelTable& kernels_;
  Timers* const timers_;
  std::int64_t channels_, height_, width_;
};

}  // namespace adgan
