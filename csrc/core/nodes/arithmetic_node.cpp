#include "core/nodes/arithmetic_node.h"

namespace adgan {

namespace {

class Arithmetic : public Node {
 public:
  explicit Arithmetic(const ArithmeticPlaces& at) : at_(at) {}

  void forward(Run& run) const override {
    run.kernels->arithmetic(at_.op, at_.number, a(run), b(run), run.act + at_.y, at_.outer, at_.inner);
  }

  void backward(Run& run) const override {
    const auto gradient = [&](bool first, std::int64_t place, bool add) {
      if (place < 0) return;
      run.kernels->arithmetic_backward(at_.op, first, at_.number, a(run), b(run), run.grad + at_.dy, run.grad + place,
                                       add, at_.outer, at_.inner);
    };
    gradient(true, at_.da, at_.add_da);
    gradient(false, at_.db, at_.add_db);
  }

 private:
  Spread a(const Run& run) const { return {run.act + at_.a, at_.a_steps.outer, at_.a_steps.inner}; }
  Spread b(const Run& run) const { return {run.act + at_.b, at_.b_steps.outer, at_.b_steps.inner}; }

  const ArithmeticPlaces at_;
};

}  // namespace

std::unique_ptr<Node> make_arithmetic(const ArithmeticPlaces& at) { return std::make_unique<Arithmetic>(at); }

}  // namespace adgan
