#include "core/nodes/matmul_node.h"

namespace adgan {

namespace {

class Matmul : public Node {
 public:
  explicit Matmul(const MatmulPlaces& at) : at_(at) {}

  void forward(Run& run) const override {
    for (std::int64_t i = 0; i < at_.count; ++i) {
      run.kernels->matmul(at_.n, at_.k, at_.m, run.act + at_.a + i * at_.n * at_.k, at_.k, 1,
                          run.act + at_.b + i * at_.k * at_.m, run.act + at_.y + i * at_.n * at_.m, false);
    }
  }

  // da = dy bᵀ, db = aᵀ dy.
  void backward(Run& run) const override {
    for (std::int64_t i = 0; i < at_.count; ++i) {
      const float* const dy = run.grad + at_.dy + i * at_.n * at_.m;
      if (at_.da >= 0) {
        run.kernels->transpose(at_.k, at_.m, run.act + at_.b + i * at_.k * at_.m, run.scratch);
        run.kernels->matmul(at_.n, at_.m, at_.k, dy, at_.m, 1, run.scratch, run.grad + at_.da + i * at_.n * at_.k,
                            at_.add_da);
      }
      if (at_.db >= 0) {
        run.kernels->matmul(at_.k, at_.n, at_.m, run.act + at_.a + i * at_.n * at_.k, 1, at_.k, dy,
                            run.grad + at_.db + i * at_.k * at_.m, at_.add_db);
      }
    }
  }

 private:
  const MatmulPlaces at_;
};

}  // namespace

std::int64_t matmul_scratch_size(const MatmulPlaces& at) { return at.k * at.m; }

std::unique_ptr<Node> make_matmul(const MatmulPlaces& at) { return std::make_unique<Matmul>(at); }

}  // namespace adgan
