#include "core/plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace adgan {

void ExecutionPlan::load(const std::vector<const float*>& given, const std::vector<const float*>& constants,
                         float* theta, float* fixed) const {
  std::fill_n(theta, theta_size, 0.0f);
  std::fill_n(fixed, fixed_size, 0.0f);
  std::vector<std::int64_t> sizes(constants.size(), 0);
  for (const Value& v : program.values) {
    if (v.kind == Kind::parameter) {
      const Parameter& p = parameters[v.index];
      if (p.packing) {
        p.packing->pack(given[v.index], theta + p.offset);
      } else {
        std::copy_n(given[v.index], v.size(), theta + p.offset);
      }
    } else if (v.kind == Kind::constant) {
      sizes[v.index] = v.size();
    }
  }
  for (const Fixed& f : fixed_) {
    const float* const from = constants[f.constant];
    if (f.packing) {
      f.packing->pack(from, fixed + f.offset);
    } else {
      for (std::int64_t i = 0; i < sizes[f.constant]; ++i) {
        fixed[f.offset + i] = f.eps < 0 ? from[i] : static_cast<float>(1.0 / std::sqrt(from[i] + f.eps));
      }
    }
  }
}

namespace {

class Stopwatch {
 public:
  explicit Stopwatch(double* total) : total_(total) {
    if (total_) begin_ = std::chrono::steady_clock::now();
  }
  ~Stopwatch() {
    if (total_) *total_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double* const total_;
  std::chrono::steady_clock::time_point begin_;
};

// f(first, count) for parts of a range, shared by the team.
template <typename F>
void each_stretch(const Run& run, std::int64_t n, const F& f) {
  constexpr std::int64_t kStretch = 1 << 15;
  run.team->each(static_cast<int>(ceil_div(n, kStretch)),
                 [&](int i, int) { f(i * kStretch, std::min(kStretch, n - i * kStretch)); });
}

}  // namespace

void ExecutionPlan::prepare(Run& run) const {
  const Stopwatch watch(run.timers ? &run.timers->updates : nullptr);
  if (run.gradient) {
    each_stretch(run, gradient_size, [&](std::int64_t at, std::int64_t n) { std::fill_n(run.gradient + at, n, 0.0f); });
  }
  if (!owner_nodes.empty()) {
    Run owner = of_owner(run);
    for (const auto& node : owner_nodes) node->prepare(owner);
    for (const auto& node : owner_nodes) node->forward(owner);
  }
  for (const auto& node : nodes) node->prepare(run);
}

Run ExecutionPlan::of_owner(const Run& run) const {
  Run owner = run;
  owner.samples = 1;
  owner.sample = 0;
  owner.act = run.prepared + owner_act;
  owner.grad = run.gradient ? run.gradient + owner_grad : nullptr;
  owner.act_stride = owner.grad_stride = 0;
  return owner;
}

// Nodes that go sample by sample, one after another, are left to the team together, unless they are timed apart.
void ExecutionPlan::forward(Run& run) const {
  for (std::size_t i = 0, end; i < nodes.size(); i = end) {
    const Stopwatch watch(run.timers ? &run.timers->forward[layer_of[i]] : nullptr);
    end = i + 1;
    if (nodes[i]->takes_all_samples()) {
      nodes[i]->forward(run);
      continue;
    }
    while (!run.timers && end < nodes.size() && !nodes[end]->takes_all_samples()) ++end;
    run.team->each(run.samples, [&](int s, int thread) {
      Run one = run.of_sample(s, thread);
      for (std::size_t n = i; n < end; ++n) nodes[n]->forward(one);
    });
  }
}

void ExecutionPlan::backward(Run& run) const {
  for (int s = 0; s < run.samples; ++s) {
    for (const auto& [at, n] : zeros_) {
      if (at != output_grad) std::fill_n(run.grad + s * run.grad_stride + at, n, 0.0f);
    }
  }
  for (std::size_t i = nodes.size(), end; i > 0; i = end) {
    const Stopwatch watch(run.timers ? &run.timers->backward[layer_of[i - 1]] : nullptr);
    end = i - 1;
    if (!nodes[i - 1]->passes_gradient) continue;
    if (nodes[i - 1]->takes_all_samples()) {
      nodes[i - 1]->backward(run);
      continue;
    }
    while (!run.timers && end > 0 && !nodes[end - 1]->takes_all_samples()) --end;
    run.team->each(run.samples, [&](int s, int thread) {
      Run one = run.of_sample(s, thread);
      for (std::size_t n = i; n > end; --n) {
        if (nodes[n - 1]->passes_gradient) nodes[n - 1]->backward(one);
      }
    });
  }
}

void ExecutionPlan::update(Run& run) const {
  const Stopwatch watch(run.timers ? &run.timers->updates : nullptr);
  for (const auto& node : nodes) node->finish(run);
  if (!owner_nodes.empty()) {  // what the nodes have added to the gradients of computed weights goes to the parameters
    Run owner = of_owner(run);
    for (std::size_t i = owner_nodes.size(); i-- > 0;) {
      if (owner_nodes[i]->passes_gradient) owner_nodes[i]->backward(owner);
    }
    for (const auto& node : owner_nodes) node->finish(owner);
  }
  for (const Parameter& p : parameters) {
    if (p.gradient < 0) continue;
    each_stretch(run, p.size, [&](std::int64_t first, std::int64_t n) {
      run.kernels->adam(run.state.at(p.offset + first), run.gradient + p.gradient + first, n, run.adam);
    });
  }
}

void ExecutionPlan::write_weights(const Run& run, const std::vector<float*>& to) const {
  for (const Value& v : program.values) {
    if (v.kind != Kind::parameter) continue;
    const Parameter& p = parameters[v.index];
    const float* const from = (p.offset < state_size ? run.state.old : run.theta) + p.offset;
    std::vector<float> weights(from, from + p.size);
    for (const auto& node : nodes) node->add_change(run, p.offset, weights.data());
    if (p.packing) {
      std::fill_n(to[v.index], v.size(), 0.0f);
      p.packing->add_unpacked(weights.data(), to[v.index]);
    } else {
      std::copy_n(weights.data(), v.size(), to[v.index]);
    }
  }
}

}  // namespace adgan
