#include "search.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>

#include "laplacian.h"

namespace adgan {

namespace {

std::int64_t aligned(std::int64_t floats) { return (floats + 15) / 16 * 16; }

// Floats between two regions: without, all would begin at the same set of the cache.
constexpr std::int64_t kGap = 16 * 9;

}  // namespace

Arena::Arena(std::int64_t floats) : size_(floats) {
  const std::size_t bytes = static_cast<std::size_t>(aligned(floats) + 16) * sizeof(float);
  memory_.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
  if (!memory_) throw std::bad_alloc();
}

void Arena::Free::operator()(float* p) const { std::free(p); }

float* Arena::take(std::int64_t floats) {
  float* const p = memory_.get() + used_;
  used_ += aligned(floats) + kGap;
  if (used_ > size_) throw std::logic_error("the arena is too small");
  return p;
}

void Arena::poison() { std::fill_n(memory_.get(), size_, std::numeric_limits<float>::quiet_NaN()); }

struct Search::Buffers {
  float *act, *first_act, *grad, *prepared, *gradient, *scratch, *history, *target, *loss_scratch;
  float *value, *first, *second;               // parameters
  float *latent, *latent_first, *latent_second;  // of each start

  // What a search of `starts` starts at a time needs; the sizes alone where there is no arena.
  Buffers(const Plan& plan, const Search& search, std::int64_t starts, Arena* arena, std::int64_t& floats) {
    const bool learns = search.rule_.weights != Weights::frozen;
    floats = 0;
    const auto take = [&](std::int64_t n) {
      floats += aligned(n) + kGap;
      return arena ? arena->take(n) : nullptr;
    };
    act = take(plan.act_size);
    first_act = take(search.rule_.weights == Weights::per_seed ? plan.act_size : 0);
    grad = take(plan.grad_size);
    prepared = take(plan.prepared_size);
    scratch = take(plan.scratch_size);
    target = take(plan.output_size);
    loss_scratch = take(search.rule_.loss == Loss::laplacian
                            ? laplacian_scratch(static_cast<int>(search.channels_), static_cast<int>(search.height_),
                                                static_cast<int>(search.width_))
                            : 0);
    latent = take(starts * plan.latent_size);
    latent_first = take(starts * plan.latent_size);
    latent_second = take(starts * plan.latent_size);
    value = first = second = gradient = history = nullptr;
    if (!learns) return;
    history = take(plan.history_size);
    gradient = take(plan.gradient_size);
    value = take(plan.state_size);
    first = take(plan.moments_size);
    second = take(plan.moments_size);
  }
};

Search::Search(const Plan& plan, const Rule& rule, const float* theta, const float* fixed, const Kernels& kernels)
    : plan_(plan), rule_(rule), theta_(theta), fixed_(fixed), kernels_(kernels) {
  const Shape& shape = plan.program.values[plan.program.output].shape;
  channels_ = shape[0];
  height_ = shape[1];
  width_ = shape[2];
}

std::int64_t Search::arena_floats(std::int64_t starts) const {
  std::int64_t floats = 0;
  Buffers(plan_, *this, starts, nullptr, floats);
  return floats;
}

void Search::set_target(const Buffers& b, const float* image) const {
  const std::int64_t pixels = height_ * width_;
  for (std::int64_t c = 0; c < channels_; ++c) {
    for (std::int64_t p = 0; p < pixels; ++p) b.target[p * channels_ + c] = image[c * pixels + p];
  }
}

void Search::write_image(const float* act, float* to) const {
  const float* const y = act + plan_.output_act;
  const std::int64_t pixels = height_ * width_;
  for (std::int64_t c = 0; c < channels_; ++c) {
    for (std::int64_t p = 0; p < pixels; ++p) to[c * pixels + p] = y[p * channels_ + c];
  }
}

// Value, and gradient into the output's.
float Search::loss(const Run& run, const Buffers& b) const {
  const float* const y = run.act + plan_.output_act;
  float* const g = run.grad + plan_.output_grad;
  switch (rule_.loss) {
    case Loss::l2: return kernels_.l2(y, b.target, g, plan_.output_size);
    case Loss::l1: return kernels_.l1(y, b.target, g, plan_.output_size);
    default:
      return laplacian(y, b.target, g, static_cast<int>(channels_), static_cast<int>(height_),
                       static_cast<int>(width_), b.loss_scratch);
  }
}

void Search::use_theta(Run& run, const Buffers& b) const {
  run.state = {theta_, b.value, b.first, b.second};
}

void Search::per_seed(Arena& arena, const Pairs& pairs, std::int64_t start, std::int64_t first_image,
                      std::int64_t last_image) const {
  arena.reset();
  std::int64_t floats;
  const Buffers b(plan_, *this, 1, &arena, floats);
  const std::int64_t n = plan_.latent_size, pixels = plan_.output_size;
  Run run{};
  run.kernels = &kernels_;
  run.fixed = fixed_;
  run.prepared = b.prepared;
  run.gradient = b.gradient;
  run.grad = b.grad;
  run.scratch = b.scratch;
  run.history = b.history;
  for (std::int64_t image = first_image; image < last_image; ++image) {
    const float* const z0 = pairs.start + (pairs.common ? start : image * pairs.starts + start) * n;
    const std::int64_t pair = image * pairs.starts + start;
    set_target(b, pairs.image + image * pixels);
    use_theta(run, b);
    run.act = b.first_act;
    run.first_layer_done = false;
    plan_.prepare(run);
    if (image == first_image || !pairs.common) {  // the first pass belongs to the start alone
      std::copy_n(z0, n, run.act + plan_.latent_act);
      plan_.forward(run);
    }
    float value = loss(run, b);
    pairs.initial[pair] = value;
    for (std::int64_t step = 1; step <= rule_.steps; ++step) {
      run.step = static_cast<int>(step);
      run.adam = AdamStep::of(rule_.lr_weights, rule_.beta1, rule_.beta2, rule_.eps, step, rule_.steps);
      run.adam_latent = AdamStep::of(rule_.lr_latent, rule_.beta1, rule_.beta2, rule_.eps, step, rule_.steps);
      run.latent = {step == 1 ? z0 : b.latent, b.latent, b.latent_first, b.latent_second};
      run.next_act = b.act;
      if (step > 1) plan_.prepare(run);
      if (step > 1) {
        plan_.forward(run);
        loss(run, b);
      }
      plan_.backward(run);
      if (!plan_.moves_latent) kernels_.adam(run.latent, run.grad + plan_.latent_grad, n, run.adam_latent);
      plan_.update(run);
      run.state.old = run.state.value;
      run.act = b.act;
      run.first_layer_done = plan_.moves_latent;
      std::copy_n(b.latent, n, run.act + plan_.latent_act);
    }
    if (rule_.steps > 0) {
      plan_.prepare(run);
      plan_.forward(run);
      value = loss(run, b);
    }
    pairs.final[pair] = value;
    std::copy_n(run.act + plan_.latent_act, n, pairs.latent + pair * n);
    write_image(run.act, pairs.reconstruction + pair * pixels);
  }
}

void Search::per_sample(Arena& arena, const Pairs& pairs, std::int64_t image) const {
  arena.reset();
  std::int64_t floats;
  const Buffers b(plan_, *this, pairs.starts, &arena, floats);
  const std::int64_t n = plan_.latent_size, pixels = plan_.output_size;
  const float* const starts = pairs.start + (pairs.common ? 0 : image * pairs.starts * n);
  Run run{};
  run.kernels = &kernels_;
  run.fixed = fixed_;
  run.prepared = b.prepared;
  run.gradient = b.gradient;
  run.act = b.act;
  run.grad = b.grad;
  run.scratch = b.scratch;
  use_theta(run, b);
  set_target(b, pairs.image + image * pixels);
  std::copy_n(starts, pairs.starts * n, b.latent);
  for (std::int64_t step = 1; step <= rule_.steps; ++step) {
    run.step = static_cast<int>(step);
    run.adam = AdamStep::of(rule_.lr_weights, rule_.beta1, rule_.beta2, rule_.eps, step, rule_.steps);
    run.adam_latent = AdamStep::of(rule_.lr_latent, rule_.beta1, rule_.beta2, rule_.eps, step, rule_.steps);
    plan_.prepare(run);
    for (std::int64_t s = 0; s < pairs.starts; ++s) {
      const State z{b.latent + s * n, b.latent + s * n, b.latent_first + s * n, b.latent_second + s * n};
      std::copy_n(z.old, n, run.act + plan_.latent_act);
      plan_.forward(run);
      const float value = loss(run, b);
      if (step == 1) pairs.initial[image * pairs.starts + s] = value;
      plan_.backward(run);
      kernels_.adam(z, run.grad + plan_.latent_grad, n, run.adam_latent);
    }
    plan_.update(run);
    run.state.old = run.state.value;
  }
  run.gradient = nullptr;
  plan_.prepare(run);
  for (std::int64_t s = 0; s < pairs.starts; ++s) {
    const std::int64_t pair = image * pairs.starts + s;
    std::copy_n(b.latent + s * n, n, run.act + plan_.latent_act);
    plan_.forward(run);
    pairs.final[pair] = loss(run, b);
    if (rule_.steps == 0) pairs.initial[pair] = pairs.final[pair];
    std::copy_n(b.latent + s * n, n, pairs.latent + pair * n);
    write_image(run.act, pairs.reconstruction + pair * pixels);
  }
}

void Search::frozen(Arena& arena, const Pairs& pairs, std::int64_t first_pair, std::int64_t last_pair) const {
  arena.reset();
  std::int64_t floats;
  const Buffers b(plan_, *this, 1, &arena, floats);
  const std::int64_t n = plan_.latent_size, pixels = plan_.output_size;
  Run run{};
  run.kernels = &kernels_;
  run.fixed = fixed_;
  run.prepared = b.prepared;
  run.act = b.act;
  run.grad = b.grad;
  run.scratch = b.scratch;
  use_theta(run, b);
  plan_.prepare(run);
  for (std::int64_t pair = first_pair; pair < last_pair; ++pair) {
    const std::int64_t image = pair / pairs.starts, start = pair % pairs.starts;
    set_target(b, pairs.image + image * pixels);
    std::copy_n(pairs.start + (pairs.common ? start : pair) * n, n, b.latent);
    for (std::int64_t step = 0; step <= rule_.steps; ++step) {
      std::copy_n(b.latent, n, run.act + plan_.latent_act);
      plan_.forward(run);
      const float value = loss(run, b);
      if (step == 0) pairs.initial[pair] = value;
      pairs.final[pair] = value;
      if (step == rule_.steps) break;
      plan_.backward(run);
      const State z{b.latent, b.latent, b.latent_first, b.latent_second};
      kernels_.adam(z, run.grad + plan_.latent_grad, n,
                    AdamStep::of(rule_.lr_latent, rule_.beta1, rule_.beta2, rule_.eps, step + 1, rule_.steps));
    }
    std::copy_n(b.latent, n, pairs.latent + pair * n);
    write_image(run.act, pairs.reconstruction + pair * pixels);
  }
}

}  // namespace adgan
