#include "core/nodes/prelu_node.h"

namespace adgan {

namespace {

class Prelu : public Node {
 public:
  explicit Prelu(const PreluPlaces& at) : at_(at) {}

  void prepare(Run& run) const override { at_.slope_sums.clear(run); }

  void forward(Run& run) const override {
    const float* const x = run.act + at_.x;
    float* const y = run.act + at_.y;
    const float* const slope = slopes(run);
    if (at_.inner == 1) return run.kernels->prelu(x, y, at_.outer, at_.channels, slope);
    each_row([&](int c, std::int64_t first) {
      const double numbers[3] = {slope[c], 0, 0};
      run.kernels->activate(ActivationOp::leaky_relu, numbers, x + first, y + first, at_.inner);
    });
  }

  void backward(Run& run) const override {
    const float *const x = run.act + at_.x, *const dy = run.grad + at_.dy;
    float* const dslope = at_.slope_sums.wanted(run) ? at_.slope_sums.part(run, run.sample) : nullptr;
    if (at_.dx < 0 && !dslope) return;
    float* const dx = at_.dx < 0 ? run.scratch : run.grad + at_.dx;
    const bool add_dx = at_.dx >= 0 && at_.add_dx;
    const float* const slope = slopes(run);
    if (at_.inner == 1) {
      return run.kernels->prelu_backward(x, dy, dx, add_dx, at_.outer, at_.channels, slope, dslope);
    }
    each_row([&](int c, std::int64_t first) {
      if (dslope) {  // before dx, which may lie where dy does
        double sum = 0;
        for (std::int64_t i = first; i < first + at_.inner; ++i) sum += x[i] > 0 ? 0.0f : x[i] * dy[i];
        dslope[c] += static_cast<float>(sum);
      }
      const double numbers[3] = {slope[c], 0, 0};
      run.kernels->activate_backward(ActivationOp::leaky_relu, numbers, x + first, nullptr, dy + first, dx + first,
                                     add_dx, at_.inner);
    });
  }

  void finish(Run& run) const override { at_.slope_sums.add_up(run); }

 private:
  const float* slopes(const Run& run) const { return (at_.slope_fixed ? run.fixed : run.state.old) + at_.slope; }

  // f(channel, place) of each stretch of one channel.
  template <typename F>
  void each_row(const F& f) const {
    for (int row = 0; row < at_.outer * at_.channels; ++row) {
      f(row % at_.channels, static_cast<std::int64_t>(row) * at_.inner);
    }
  }

  const PreluPlaces at_;
};

}  // namespace

std::unique_ptr<Node> make_prelu(const PreluPlaces& at) { return std::make_unique<Prelu>(at); }

}  // namespace adgan
