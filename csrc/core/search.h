// Algorithm 1 for one owner of weights at a time (adgan_fast/engines/reference.py is the plain statement).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "plan.h"

namespace adgan {

enum class Loss : int { l2, l1, laplacian, own, count };

// A loss of the caller's: the value of a reconstruction against an image, both [H][W][C], and its gradient unless that is
// null. Called from the threads that search. Sets `done` to 1, or the search ends with std::runtime_error.
using OwnLoss = void (*)(const float* reconstruction, const float* image, float* gradient, float* value, int* done);

struct Rule {
  Weights weights;
  Loss loss;
  std::int64_t steps;
  double lr_latent, lr_weights, beta1, beta2, eps;
  OwnLoss own;  // null unless loss is own
  const int* stop;  // or null; not 0, by any thread: the search ends soon, with std::runtime_error
};

// Some images [image, ...] and the same starts for all of them, or each its own.
struct Pairs {
  std::int64_t images, starts;
  const float* image;        // (images, C, H, W)
  const float* start;        // (starts, *latent), or (images, starts, *latent)
  bool common;               // starts are those of every image
  float *initial, *final;    // (images, starts)
  float* latent;             // (images, starts, *latent)
  float* reconstruction;     // (images, starts, C, H, W)
  // Where the weights of the only owner go after the last step, by parameter; or null. There is no last pass then.
  const std::vector<float*>* weights = nullptr;
};

// Memory of one thread, or of a team; everything a search touches lies in it, so that no step allocates.
class Arena {
 public:
  explicit Arena(std::int64_t floats);
  float* take(std::int64_t floats);  // aligned to a cache line; throws std::logic_error at the end
  void reset() { used_ = 0; }
  void poison();  // NaN everywhere

 private:
  struct Free {
    void operator()(float* p) const;
  };
  std::unique_ptr<float, Free> memory_;
  std::int64_t size_, used_ = 0;
};

class Search {
 public:
  // `timers`: filled where not null; then for one thread only.
  Search(const Plan& plan, const Rule& rule, const float* theta, const float* fixed, const Kernels& kernels,
         Timers* timers = nullptr);

  // What a search needs of `starts` starts at a time, of which one owner's are shared by so many threads.
  std::int64_t arena_floats(std::int64_t starts, int threads = 1) const;

  // One start of several images with private weights: the first pass is theirs together.
  void per_seed(Arena&, const Pairs&, std::int64_t start, std::int64_t first_image, std::int64_t last_image) const;
  // All starts of an image, with one copy of the weights; shared by a team.
  void per_sample(Arena&, const Pairs&, std::int64_t image, const Team&) const;
  // Some pairs, numbered image by image, without private weights.
  void frozen(Arena&, const Pairs&, std::int64_t first_pair, std::int64_t last_pair) const;

 private:
  struct Buffers;
  void go_on() const;
  void set_target(float* target, const float* image) const;
  void read_latent(const float* from, float* latent) const;
  void write_latent(const float* latent, float* to) const;
  float loss(const Run&, float* scratch, const float* target, bool descend) const;
  void pass(Run&, const Buffers&, std::int64_t first, float* values, bool descend) const;
  void move_latents(Run&, const Buffers&, std::int64_t first, std::int64_t step) const;
  void keep(const Run&, const Buffers&, std::int64_t first, const Pairs&, std::int64_t pair) const;
  void write_image(const float* act, float* to) const;
  Run begin(const Buffers&, const Team&) const;
  void use_theta(Run&, const Buffers&) const;

  const Plan& plan_;
  const Rule rule_;
  const float *theta_, *fixed_;
  const Kernels& kernels_;
  Timers* const timers_;
  std::int64_t channels_, height_, width_;
};

}  // namespace adgan
