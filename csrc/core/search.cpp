#include "core/search.h"

#include <algorithm>
#include <stdexcept>

#include "core/laplacian.h"

namespace adgan {

struct Search::Buffers {
  float *act, *first_act, *grad, *prepared, *gradient, *scratch, *history, *change, *target, *loss_scratch;
  float *value, *m, *v;                         // parameters and their moments
  float *start, *latent, *latent_m, *latent_v;  // of each start
  std::int64_t scratch_stride, loss_stride;     // from a thread to the next

  // The sizes alone where there is no arena.
  Buffers(const ExecutionPlan& plan, const Search& search, std::int64_t starts, int threads, Arena* arena,
          std::int64_t& floats) {
    const bool learns = search.settings_.weights != Weights::frozen;
    floats = 0;
    const auto take = [&](std::int64_t n) {
      floats += Arena::taken(n);
      return arena ? arena->take(n) : nullptr;
    };
    act = take(plan.act_size * plan.batch);
    first_act = take(search.settings_.weights == Weights::per_seed ? plan.act_size : 0);
    grad = take(plan.grad_size * plan.batch);
    prepared = take(plan.prepared_size);
    scratch_stride = Arena::taken(plan.scratch_size);
    scratch = take(threads * scratch_stride);
    target = take(plan.output_size * (learns ? 1 : plan.batch));
    loss_stride = search.settings_.loss != Loss::laplacian
                      ? 0
                      : aligned(laplacian_scratch(static_cast<int>(search.height_), static_cast<int>(search.width_)));
    loss_scratch = take(threads * loss_stride);
    start = take(search.settings_.weights == Weights::per_seed ? plan.latent_size : 0);
    latent = take(starts * plan.latent_size);
    latent_m = take(starts * plan.latent_size);
    latent_v = take(starts * plan.latent_size);
    value = m = v = gradient = history = change = nullptr;
    if (!learns) return;
    history = take(plan.history_size);
    gradient = take(plan.gradient_size);
    value = take(plan.state_size);
    m = take(plan.state_size);
    v = take(plan.v_size);
    change = take(plan.change_size);
  }
};

Search::Search(const ExecutionPlan& plan, const SearchSettings& settings, const float* theta, const float* fixed,
               const KernelTable& kernels, Timers* timers)
    : plan_(plan), settings_(settings), theta_(theta), fixed_(fixed), kernels_(kernels), timers_(timers) {
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

void Search::throw_if_stopped() const {
  const int* const stop = settings_.stop;
  if (stop && __atomic_load_n(stop, __ATOMIC_RELAXED)) throw std::runtime_error("the search was stopped");
}

AdamStep Search::adam(double lr, std::int64_t step) const {
  return AdamStep::of(lr, settings_.beta1, settings_.beta2, settings_.eps, step, settings_.steps);
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

// Value, and gradient into the output's; where no step follows (`descend` is false), that is left to the loss.
float Search::loss(const Run& run, float* scratch, const float* target, bool descend) const {
  const float* const y = run.act + plan_.output_act;
  float* const g = run.grad + plan_.output_grad;
  switch (settings_.loss) {
    case Loss::l2: return kernels_.l2(y, target, g, plan_.output_size);
    case Loss::l1: return kernels_.l1(y, target, g, plan_.output_size);
    case Loss::function: {
      float value = 0;
      int done = 0;
      settings_.own(y, target, descend ? g : nullptr, &value, &done);
      if (!done) throw std::runtime_error("the loss function failed");
      return value;
    }
    case Loss::laplacian:
      return laplacian(y, target, g, static_cast<int>(channels_), static_cast<int>(height_), static_cast<int>(width_),
                       scratch);
  }
  __builtin_unreachable();
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
  run.state = {theta_, b.value, b.m, b.v};
  run.step = 0;
}

void Search::per_seed(Arena& arena, const SearchArrays& pairs, std::int64_t start, std::int64_t first_image,
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
    throw_if_stopped();
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
    float value = loss(run, b.loss_scratch, b.target, settings_.steps > 0);
    pairs.initial[pair] = value;
    for (std::int64_t step = 1; step <= settings_.steps; ++step) {
      run.step = static_cast<int>(step);
      run.adam = adam(settings_.lr_weights, step);
      run.adam_latent = adam(settings_.lr_latent, step);
      run.latent = {step == 1 ? b.start : b.latent, b.latent, b.latent_m, b.latent_v};
      run.next_act = b.act;
      if (step > 1) {
        throw_if_stopped();
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
    } else if (settings_.steps > 0) {
      throw_if_stopped();
      plan_.prepare(run);
      plan_.forward(run);
      value = loss(run, b.loss_scratch, b.target, false);
    }
    pairs.final[pair] = value;
    write_latent(run.act + plan_.latent_act, pairs.latent + pair * n);
    write_image(run.act, pairs.reconstruction + pair * pixels);
  }
}

void Search::per_sample(Arena& arena, const SearchArrays& pairs, std::int64_t image, const Team& team) const {
  arena.reset();
  std::int64_t floats;
  const Buffers b(plan_, *this, pairs.starts, team.threads(), &arena, floats);
  const std::int64_t n = plan_.latent_size, pixels = plan_.output_size;
  const float* const starts = pairs.start + (pairs.common ? 0 : image * pairs.starts * n);
  Run run = begin(b, team);
  set_target(b.target, pairs.image + image * pixels);
  for (std::int64_t s = 0; s < pairs.starts; ++s) read_latent(starts + s * n, b.latent + s * n);
  for (std::int64_t step = 1; step <= settings_.steps; ++step) {
    run.step = static_cast<int>(step);
    run.adam = adam(settings_.lr_weights, step);
    plan_.prepare(run);
    for (std::int64_t first = 0; first < pairs.starts; first += plan_.batch) {
      run.samples = static_cast<int>(std::min<std::int64_t>(plan_.batch, pairs.starts - first));
      forward_and_loss(run, b, first, step == 1 ? pairs.initial + image * pairs.starts + first : nullptr, true);
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
    forward_and_loss(run, b, first, pairs.final + pair, false);
    if (settings_.steps == 0) std::copy_n(pairs.final + pair, run.samples, pairs.initial + pair);
    write_results(run, b, first, pairs, pair);
  }
}

// Forward and loss of the samples whose latents begin at `first`; losses into `values`, where not null.
void Search::forward_and_loss(Run& run, const Buffers& b, std::int64_t first, float* values, bool descend) const {
  throw_if_stopped();
  const std::int64_t n = plan_.latent_size;
  for (int s = 0; s < run.samples; ++s) {
    std::copy_n(b.latent + (first + s) * n, n, run.act + s * run.act_stride + plan_.latent_act);
  }
  plan_.forward(run);
  run.team->each(run.samples, [&](int s, int thread) {
    const float* const target = b.target + (settings_.weights == Weights::frozen ? s * plan_.output_size : 0);
    const float value = loss(run.of_sample(s, thread), b.loss_scratch + thread * b.loss_stride, target, descend);
    if (values) values[s] = value;
  });
}

void Search::move_latents(Run& run, const Buffers& b, std::int64_t first, std::int64_t step) const {
  const AdamStep adam_latent = adam(settings_.lr_latent, step);
  const std::int64_t n = plan_.latent_size;
  for (int s = 0; s < run.samples; ++s) {
    const std::int64_t at = (first + s) * n;
    const State z{b.latent + at, b.latent + at, b.latent_m + at, b.latent_v + at};
    kernels_.adam(z, run.grad + s * run.grad_stride + plan_.latent_grad, n, adam_latent);
  }
}

void Search::write_results(const Run& run, const Buffers& b, std::int64_t first, const SearchArrays& pairs,
                           std::int64_t pair) const {
  const std::int64_t n = plan_.latent_size;
  for (int s = 0; s < run.samples; ++s) {
    write_latent(b.latent + (first + s) * n, pairs.latent + (pair + s) * n);
    write_image(run.act + s * run.act_stride, pairs.reconstruction + (pair + s) * plan_.output_size);
  }
}

void Search::frozen(Arena& arena, const SearchArrays& pairs, std::int64_t first_pair, std::int64_t last_pair) const {
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
    for (std::int64_t step = 0; step <= settings_.steps; ++step) {
      if (step == settings_.steps && pairs.weights) break;
      forward_and_loss(run, b, 0, pairs.final + first, step < settings_.steps);
      if (step == 0) std::copy_n(pairs.final + first, run.samples, pairs.initial + first);
      if (step == settings_.steps) break;
      plan_.backward(run);
      move_latents(run, b, 0, step + 1);
    }
    write_results(run, b, 0, pairs, first);
  }
}

}  // namespace adgan
