#include "core/nodes/simple_nodes.h"

#include <algorithm>
#include <utility>

namespace adgan {

namespace {

class Operand : public Node {
 public:
  explicit Operand(const OperandPlaces& at) : at_(at) {}
  void prepare(Run& run) const override { at_.sums.clear(run); }
  void forward(Run& run) const override {
    const float* const from = at_.kind == Kind::constant ? run.fixed
                              : at_.kind == Kind::weight ? run.prepared
                                                         : run.state.old;
    std::copy_n(from + at_.from, at_.size, run.act + at_.y);
  }
  void backward(Run& run) const override {
    if (at_.sums.wanted(run)) run.kernels->add(run.grad + at_.dy, at_.sums.part(run, run.sample), at_.size);
  }
  void finish(Run& run) const override { at_.sums.add_up(run); }

 private:
  const OperandPlaces at_;
};

class Norm : public Node {
 public:
  explicit Norm(const NormPlaces& at) : at_(at) {}

  void prepare(Run& run) const override {
    at_.weight_sums.clear(run);
    at_.bias_sums.clear(run);
    float *const scale = run.prepared + at_.prepared, *const shift = scale + at_.channels;
    const float *const mean = run.fixed + at_.mean, *const inverse = run.fixed + at_.inverse;
    const float* const weight = at_.weight < 0 ? nullptr : (at_.weight_fixed ? run.fixed : run.state.old) + at_.weight;
    const float* const bias = at_.bias < 0 ? nullptr : (at_.bias_fixed ? run.fixed : run.state.old) + at_.bias;
    for (int c = 0; c < at_.channels; ++c) {
      scale[c] = weight ? weight[c] * inverse[c] : inverse[c];
      shift[c] = (bias ? bias[c] : 0.0f) - mean[c] * scale[c];
    }
  }

  void forward(Run& run) const override {
    const float *const scale = run.prepared + at_.prepared, *const shift = scale + at_.channels;
    const float* const x = run.act + at_.x;
    float* const y = run.act + at_.y;
    if (at_.inner == 1) return run.kernels->affine_rows(x, y, at_.outer, at_.channels, scale, shift);
    for (int c = 0; c < at_.channels * at_.outer; ++c) {
      const double numbers[3] = {scale[c % at_.channels], shift[c % at_.channels], 0};
      const std::int64_t i = static_cast<std::int64_t>(c) * at_.inner;
      run.kernels->activate(ActivationOp::scale_shift, numbers, x + i, y + i, at_.inner);
    }
  }

  void backward(Run& run) const override {
    const float *const mean = run.fixed + at_.mean, *const inverse = run.fixed + at_.inverse;
    const float* const scale = run.prepared + at_.prepared;
    const float *const x = run.act + at_.x, *const dy = run.grad + at_.dy;
    float* const dgamma = at_.weight_sums.wanted(run) ? at_.weight_sums.part(run, run.sample) : nullptr;
    float* const dbeta = at_.bias_sums.wanted(run) ? at_.bias_sums.part(run, run.sample) : nullptr;
    float* const dx = at_.dx < 0 ? run.scratch : run.grad + at_.dx;
    const bool add_dx = at_.dx >= 0 && at_.add_dx;
    if (at_.inner == 1) {
      return run.kernels->norm_backward(x, dy, dx, add_dx, at_.outer, at_.channels, scale, mean, inverse, dgamma,
                                        dbeta);
    }
    for (int row = 0; row < at_.channels * at_.outer; ++row) {
      const int c = row % at_.channels;
      const std::int64_t first = static_cast<std::int64_t>(row) * at_.inner;
      double gamma = 0, beta = 0;
      for (std::int64_t i = first; i < first + at_.inner; ++i) {
        gamma += dy[i] * ((x[i] - mean[c]) * inverse[c]);
        beta += dy[i];
        dx[i] = add_dx ? dx[i] + dy[i] * scale[c] : dy[i] * scale[c];
      }
      if (dgamma) dgamma[c] += static_cast<float>(gamma);
      if (dbeta) dbeta[c] += static_cast<float>(beta);
    }
  }

  void finish(Run& run) const override {
    at_.weight_sums.add_up(run);
    at_.bias_sums.add_up(run);
  }

 private:
  const NormPlaces at_;
};

class Activation : public Node {
 public:
  Activation(ActivationOp op, std::vector<double> numbers, std::int64_t x, std::int64_t y, std::int64_t dx,
             std::int64_t dy, bool add_dx, std::int64_t size)
      : op_(op), numbers_(std::move(numbers)), x_(x), y_(y), dx_(dx), dy_(dy), add_dx_(add_dx), size_(size) {}

  void forward(Run& run) const override {
    run.kernels->activate(op_, numbers_.data(), run.act + x_, run.act + y_, size_);
  }
  void backward(Run& run) const override {
    if (dx_ < 0) return;
    run.kernels->activate_backward(op_, numbers_.data(), run.act + x_, run.act + y_, run.grad + dy_, run.grad + dx_,
                                   add_dx_, size_);
  }

 private:
  const ActivationOp op_;
  const std::vector<double> numbers_;
  const std::int64_t x_, y_, dx_, dy_;
  const bool add_dx_;
  const std::int64_t size_;
};

}  // namespace

std::unique_ptr<Node> make_operand(const OperandPlaces& at) { return std::make_unique<Operand>(at); }

std::unique_ptr<Node> make_norm(const NormPlaces& at) { return std::make_unique<Norm>(at); }

std::unique_ptr<Node> make_activation(ActivationOp op, std::vector<double> numbers, std::int64_t x, std::int64_t y,
                                      std::int64_t dx, std::int64_t dy, bool add_dx, std::int64_t size) {
  return std::make_unique<Activation>(op, std::move(numbers), x, y, dx, dy, add_dx, size);
}

}  // namespace adgan
