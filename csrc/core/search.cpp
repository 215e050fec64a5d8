#include "search.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "laplacian.h"

namespace adgan {

namespace {

// Floats between two regions: without, all would begin at the same set of the cache.
constexpr std::int64_t kGap = 16 * 9;

}  // namespace

Arena::Arena(std::int64_t floats) : size_(floats) {
  // Whole huge pages, where the system has them: an address then costs fewer page-table walks.
  constexpr std::size_t kPage = std::size_t{2} << 20;
  std::size_t bytes = static_cast<std::size_t>(aligned(floats) + 16) * sizeof(float);
  const bool large = bytes >= kPage;
  const std::size_t alignment = large ? kPage : 64;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  memory_.reset(static_cast<float*>(std::aligned_alloc(alignment, bytes)));
  if (!memory_) throw std::bad_alloc();
#if defined(__linux__)
  if (large) madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // a wish: whether it is granted does not matter
#endif
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
  float *act, *first_act, *grad, *prepared, *gradient, *scratch, *history, *change, *target, *loss_scratch;
  float *value, *first, *second;               // parameters
  float *start, *latent, *latent_first, *latent_second;  // of each start
  std::int64_t scratch_stride, loss_stride;      // from a thread to the next

  // The sizes alone where there is no arena.
  Buffers(const Plan& plan, const Search& search, std::int64_t starts, int threads, Arena* arena, std::int64_t& floats) {
    const bool learns = search.rule_.weights != Weights::frozen;
    floats = 0;
    const auto take = [&](std::int64_t n) {
      floats += aligned(n) + kGap;
      return arena ? arena->take(n) : nullptr;
    };
    act = take(plan.act_size * plan.batch);
    first_act = take(search.rule_.weights == Weights::per_seed ? plan.act_size : 0);
    grad = take(plan.grad_size * plan.batch);
    prepared = take(plan.prepared_size);
    scratch_stride = aligned(plan.scratch_size) + kGap;
    scratch = take(threads * scratch_stride);
    target = take(plan.output_size * (learns ? 1 : plan.batch));
    loss_stride = search.rule_.loss != Loss::laplacian
                      ? 0
                      : aligned(laplacian_scratch(static_cast<int>(search.channels_), static_cast<int>(search.height_),
                                                  static_cast<int>(search.width_)));
    loss_scratch = take(threads * loss_stride);
    start = take(search.rule_.weights == Weights::per_seed ? plan.latent_size : 0);
    latent = take(starts * plan.latent_size);
    latent_first = take(starts * plan.latent_size);
    latent_second = take(starts * plan.latent_size);
    value = first = second = gradient = history = change = nullptr;
    if (!learns) return;
    history = take(plan.history_size);
    gradient = take(plan.gradient_size);
    value = take(plan.state_size);
    first = take(plan.state_size);
    second = take(plan.second_size);
    change = take(plan.change_size);
  }
};

Search::Search(const Plan& plan, const Rule& rule, const float* theta, const float* fixed, const Kernels& kernels,
               Timers* timers)
    : plan_(plan), rule_(rule), theta_(theta), fixed_(fixed), kernels_(kernels), timers_(timers) {
  const Shape& shape = plan.program.values[plan.program.output].shape;
  channels_ = shape[0];
  height_ = shape[1];
  width_ = shape[2];
}

std::int64_t Search::arena_floats(std::int64_t starts, int threads) const {
  std::int64_t floats = 0;
  Buffers(plan_, *this, starts, threads, nullptr, floats);
  return floats;
}

void Search::go_on() const {
  if (rule_.stop && __atomic_load_n(rule_.stop, __ATOMIC_RELAXED)) throw std::runtime_error("the search was stopped");
}

void Search::set_target(float* target, const float* image) const {
  const std::int64_t pixels = height_ * width_;
  for (std::int64_t c = 0; c < channels_; ++c) {
    for (std::int64_t p = 0; p < pixels; ++p) target[p * channels_ + c] = image[c * pixels + p];
  }
}

void Search::write_image(const float* act, float* to) const {
  const float* const y = act + plan_.output_act;
  const std::int64_t pixels = height_ * width_;
  for (std::int64_t c = 0; c < channels_; ++c) {
    for (std::int64_t p = 0; p < pixels; ++p) to[c * pixels + p] = y[p * channels_ + c];
  }
}

// A latent of several channels and positions lies position by position, as any such value.
void Search::read_latent(const float* from, float* latent) const {
  if (plan_.latent_place.empty()) {
    std::copy_n(from, plan_.latent_size, latent);
  } else {
    for (std::int64_t i = 0; i < plan_.latent_size; ++i) latent[plan_.latent_place[i]] = from[i];
  }
}

void Search::write_latent(const float* latent, float* to) const {
  if (plan_.latent_place.empty()) {
    std::copy_n(latent, plan_.latent_size, to);
  } else {
    for (std::int64_t i = 0; i < plan_.latent_size; ++i) to[i] = latent[plan_.latent_place[i]];
  }
}

// Value, and gradient into the output's; where the search does not go on from here, that is left to the loss.
float Search::loss(const Run& run, float* scratch, const float* target, bool descend) const {
  const float* const y = run.act + plan_.output_act;
  float* const g = run.grad + plan_.output_grad;
  switch (rule_.loss) {
    case Loss::l2: return kernels_.l2(y, target, g, plan_.output_size);
    case Loss::l1: return kernels_.l1(y, target, g, plan_.output_size);
    case Loss::own: {
      float value = 0;
      int done = 0;
      rule_.own(y, target, descend ? g : nullptr, &value, &done);
      if (!done) throw std::runtime_error("the loss function failed");
      return value;
    }
    default:
      return laplacian(y, target, g, static_cast<int>(channels_), static_cast<int>(height_),
                       static_cast<int>(width_), scratch);
  }
}

// What the three ways to search have in common; parameters are θ₀.
Run Search::begin(const Buffers& b, const Team& team) const {
  Run run{};
  run.kernels = &kernels_;
  run.timers = timers_;
  run.fixed = fixed_;
  run.prepared = b.prepared;
  run.gradient = b.gradient;
  run.act = b.act;
  run.grad = b.grad;
  run.act_stride = plan_.act_size;
  run.grad_stride = plan_.grad_size;
  run.team = &team;
  run.scratch = b.scratch;
  run.scratch_stride = b.scratch_stride;
  run.history = b.history;
  run.change = b.change;
  run.samples = 1;
  use_theta(run, b);
  return run;
}

void Search::use_theta(Run& run, const Buffers& b) const {
  run.theta = theta_;
  run.state = {theta_, b.value, b.first, b.second};
  run.step = 0;
}

void Search::per_seed(Arena& arena, const Pairs& pairs, std::int64_t start, std::int64_t first_image,
                      std::int64_t last_image) const {
  arena.reset();
  std::int64_t floats;
  const Buffers b(plan_, *this, 1, 1, &arena, floats);
  const std::int64_t n = plan_.latent_size, pixels = plan_.output_size;
  const Team alone;
  Run run = begin(b, alone);
  run.keep_weights = pairs.weights != nullptr;
  for (std::int64_t image = first_image; image < last_image; ++image) {
    const float* const z0 = pairs.start + (pairs.common ? start : image * pairs.starts + start) * n;
    const std::int64_t pair = image * pairs.starts + start;
    go_on();
    set_target(b.target, pairs.image + image * pixels);
    use_theta(run, b);
    run.act = b.first_act;
    run.first_layer_done = false;
    plan_.prepare(run);
    if (image == first_image || !pairs.common) {  // the first pass belongs to the start alone
      read_latent(z0, b.start);
      std::copy_n(b.start, n, run.act + plan_.latent_act);
      plan_.forward(run);
    }
    float value = loss(run, b.loss_scratch, b.target, rule_.steps > 0);
    pairs.initial[pair] = value;
    for (std::int64_t step = 1; step <= rule_.steps; ++step) {
      run.step = static_cast<int>(step);
      run.adam = AdamStep::of(rule_.lr_weights, rule_.beta1, rule_.beta2, rule_.eps, step, rule_.steps);
      run.adam_latent = AdamStep::of(rule_.lr_latent, rule_.beta1, rule_.beta2, rule_.eps, step, rule_.steps);
      run.latent = {step == 1 ? b.start : b.latent, b.latent, b.latent_first, b.latent_second};
      run.next_act = b.act;
      if (step > 1) {
        go_on();
        plan_.prepare(run);
        plan_.forward(run);
        loss(run, b.loss_scratch, b.target, true);
      }
      plan_.backward(run);
      if (!plan_.moves_latent) kernels_.adam(run.latent, run.grad + plan_.latent_grad, n, run.adam_latent);
      plan_.update(run);
      run.state.old = run.state.value;
      run.act = b.act;
      run.first_layer_done = plan_.moves_latent;
      std::copy_n(b.latent, n, run.act + plan_.latent_act);
    }
    if (pairs.weights) {
      plan_.write_weights(run, *pairs.weights);
    } else if (rule_.steps > 0) {
      go_on();
      plan_.prepare(run);
      plan_.forward(run);
      value = loss(run, b.loss_scratch, b.target, false);
    }
    pairs.final[pair] = value;
    write_latent(run.act + plan_.latent_act, pairs.latent + pair * n);
    write_image(run.act, pairs.reconstruction + pair * pixels);
  }
}

void Search::per_sample(Arena& arena, const Pairs& pairs, std::int64_t image, const Team& team) const {
  arena.reset();
  std::int64_t floats;
  const Buffers b(plan_, *this, pairs.starts, team.threads(), &arena, floats);
  const std::int64_t n = plan_.latent_size, pixels = plan_.output_size;
  const float* const starts = pairs.start + (pairs.common ? 0 : image * pairs.starts * n);
  Run run = begin(b, team);
  set_target(b.target, pairs.image + image * pixels);
  for (std::int64_t s = 0; s < pairs.starts; ++s) read_latent(starts + s * n, b.latent + s * n);
  for (std::int64_t step = 1; step <= rule_.steps; ++step) {
    run.step = static_cast<int>(step);
    run.adam = AdamStep::of(rule_.lr_weights, rule_.beta1, rule_.beta2, rule_.eps, step, rule_.steps);
    plan_.prepare(run);
    for (std::int64_t first = 0; first < pairs.starts; first += plan_.batch) {
      run.samples = static_cast<int>(std::min<std::int64_t>(plan_.batch, pairs.starts - first));
      pass(run, b, first, step == 1 ? pairs.initial + image * pairs.starts + first : nullptr, true);
      plan_.backward(run);
      move_latents(run, b, first, step);
    }
    plan_.update(run);
    run.state.old = run.state.value;
  }
  run.gradient = nullptr;
  if (pairs.weights) {
    plan_.write_weights(run, *pairs.weights);
    for (std::int64_t s = 0; s < pairs.starts; ++s) {
      write_latent(b.latent + s * n, pairs.latent + (image * pairs.starts + s) * n);
    }
    return;
  }
  plan_.prepare(run);
  for (std::int64_t first = 0; first < pairs.starts; first += plan_.batch) {
    run.samples = static_cast<int>(std::min<std::int64_t>(plan_.batch, pairs.starts - first));
    const std::int64_t pair = image * pairs.starts + first;
    pass(run, b, first, pairs.final + pair, false);
    if (rule_.steps == 0) std::copy_n(pairs.final + pair, run.samples, pairs.initial + pair);
    keep(run, b, first, pairs, pair);
  }
}

// Forward and loss of the samples whose latents begin at `first`; losses into `values`, where not null.
void Search::pass(Run& run, const Buffers& b, std::int64_t first, float* values, bool descend) const {
  go_on();
  const std::int64_t n = plan_.latent_size;
  for (int s = 0; s < run.samples; ++s) {
    std::copy_n(b.latent + (first + s) * n, n, run.act + s * run.act_stride + plan_.latent_act);
  }
  plan_.forward(run);
  run.team->each(run.samples, [&](int s, int thread) {
    const float* const target = b.target + (rule_.weights == Weights::frozen ? s * plan_.output_size : 0);
    const float value = loss(run.of_sample(s, thread), b.loss_scratch + thread * b.loss_stride, target, descend);
    if (values) values[s] = value;
  });
}

void Search::move_latents(Run& run, const Buffers& b, std::int64_t first, std::int64_t step) const {
  const AdamStep rule = AdamStep::of(rule_.lr_latent, rule_.beta1, rule_.beta2, rule_.eps, step, rule_.steps);
  const std::int64_t n = plan_.latent_size;
  for (int s = 0; s < run.samples; ++s) {
    const std::int64_t at = (first + s) * n;
    const State z{b.latent + at, b.latent + at, b.latent_first + at, b.latent_second + at};
    kernels_.adam(z, run.grad + s * run.grad_stride + plan_.latent_grad, n, rule);
  }
}

void Search::keep(const Run& run, const Buffers& b, std::int64_t first, const Pairs& pairs, std::int64_t pair) const {
  const std::int64_t n = plan_.latent_size;
  for (int s = 0; s < run.samples; ++s) {
    write_latent(b.latent + (first + s) * n, pairs.latent + (pair + s) * n);
    write_image(run.act + s * run.act_stride, pairs.reconstruction + (pair + s) * plan_.output_size);
  }
}

void Search::frozen(Arena& arena, const Pairs& pairs, std::int64_t first_pair, std::int64_t last_pair) const {
  arena.reset();
  std::int64_t floats;
  const Buffers b(plan_, *this, plan_.batch, 1, &arena, floats);
  const std::int64_t n = plan_.latent_size, pixels = plan_.output_size;
  const Team alone;
  Run run = begin(b, alone);
  plan_.prepare(run);
  for (std::int64_t first = first_pair; first < last_pair; first += plan_.batch) {
    run.samples = static_cast<int>(std::min<std::int64_t>(plan_.batch, last_pair - first));
    for (int s = 0; s < run.samples; ++s) {
      const std::int64_t image = (first + s) / pairs.starts, start = (first + s) % pairs.starts;
      set_target(b.target + s * pixels, pairs.image + image * pixels);
      read_latent(pairs.start + (pairs.common ? start : first + s) * n, b.latent + s * n);
    }
    for (std::int64_t step = 0; step <= rule_.steps; ++step) {
      if (step == rule_.steps && pairs.weights) break;
      pass(run, b, 0, pairs.final + first, step < rule_.steps);
      if (step == 0) std::copy_n(pairs.final + first, run.samples, pairs.initial + first);
      if (step == rule_.steps) break;
      plan_.backward(run);
      move_latents(run, b, 0, step + 1);
    }
    keep(run, b, 0, pairs, first);
  }
}

}  // namespace adgan
