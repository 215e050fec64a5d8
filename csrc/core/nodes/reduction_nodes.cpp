#include "core/nodes/reduction_nodes.h"

#include <algorithm>

#include "core/sizes.h"

namespace adgan {

namespace {

class Standardize : public Node {
 public:
  explicit Standardize(const StandardizePlaces& at) : at_(at), columns_(at.reduced.columns) {}

  void forward(Run& run) const override {
    const Reduced& r = at_.reduced;
    const float* const x = run.act + at_.x;
    float *const y = run.act + at_.y, *const means = run.act + at_.statistics, *const inverses = means + half();
    if (columns_ == 0) {
      return run.kernels->standardize_rows(x, y, static_cast<int>(r.outer), r.n, at_.eps, means, inverses);
    }
    for (std::int64_t o = 0; o < r.outer; ++o) {
      const std::int64_t at = o * r.block(), column = o * columns_;
      run.kernels->standardize_columns(x + at, y + at, r.n, columns_, r.group, at_.eps, means + column,
                                       inverses + column);
    }
  }

  void backward(Run& run) const override {
    if (at_.dx < 0) return;
    const Reduced& r = at_.reduced;
    const float *const x = run.act + at_.x, *const dy = run.grad + at_.dy;
    const float *const means = run.act + at_.statistics, *const inverses = means + half();
    float* const dx = run.grad + at_.dx;
    if (columns_ == 0) {
      return run.kernels->standardize_rows_backward(x, dy, dx, at_.add_dx, static_cast<int>(r.outer), r.n, means,
                                                    inverses);
    }
    for (std::int64_t o = 0; o < r.outer; ++o) {
      const std::int64_t at = o * r.block(), column = o * columns_;
      run.kernels->standardize_columns_backward(x + at, dy + at, dx + at, at_.add_dx, r.n, columns_, r.group,
                                                means + column, inverses + column, run.scratch);
    }
  }

 private:
  std::int64_t half() const { return statistics_size(at_.reduced) / 2; }

  const StandardizePlaces at_;
  const int columns_;
};

class Softmax : public Node {
 public:
  explicit Softmax(const SoftmaxPlaces& at) : at_(at) {}

  void forward(Run& run) const override {
    const Reduced& r = at_.reduced;
    const float* const x = run.act + at_.x;
    float* const y = run.act + at_.y;
    if (r.columns == 0) return run.kernels->softmax_rows(x, y, static_cast<int>(r.outer), r.n);
    for (std::int64_t at = 0; at < r.outer * r.block(); at += r.block()) {
      run.kernels->softmax_columns(x + at, y + at, r.n, r.columns);
    }
  }

  void backward(Run& run) const override {
    if (at_.dx < 0) return;
    const Reduced& r = at_.reduced;
    const float *const y = run.act + at_.y, *const dy = run.grad + at_.dy;
    float* const dx = run.grad + at_.dx;
    if (r.columns == 0) {
      return run.kernels->softmax_rows_backward(y, dy, dx, at_.add_dx, static_cast<int>(r.outer), r.n);
    }
    for (std::int64_t at = 0; at < r.outer * r.block(); at += r.block()) {
      run.kernels->softmax_columns_backward(y + at, dy + at, dx + at, at_.add_dx, r.n, r.columns);
    }
  }

 private:
  const SoftmaxPlaces at_;
};

class Sum : public Node {
 public:
  explicit Sum(const SumPlaces& at) : at_(at) {}

  void forward(Run& run) const override {
    const Reduced& r = at_.reduced;
    const float* x = run.act + at_.x;
    float* y = run.act + at_.y;
    if (r.columns == 0) return run.kernels->row_sums(x, y, static_cast<int>(r.outer), r.n);
    for (std::int64_t o = 0; o < r.outer; ++o, x += r.block()) {
      float* const sums = run.scratch;
      std::fill_n(sums, r.columns, 0.0f);
      run.kernels->sum_rows(x, static_cast<int>(r.n), r.columns, sums);
      for (int c = 0; c < r.columns; c += r.group) {
        double all = 0;
        for (int i = 0; i < r.group; ++i) all += sums[c + i];
        *y++ = static_cast<float>(all);
      }
    }
  }

  void backward(Run& run) const override {
    if (at_.dx < 0) return;
    const Reduced& r = at_.reduced;
    const float* dy = run.grad + at_.dy;
    float* dx = run.grad + at_.dx;
    if (r.columns == 0) {
      for (std::int64_t o = 0; o < r.outer; ++o, dx += r.n) {
        if (!at_.add_dx) std::fill_n(dx, r.n, 0.0f);
        for (std::int64_t i = 0; i < r.n; ++i) dx[i] += dy[o];
      }
      return;
    }
    for (std::int64_t o = 0; o < r.outer; ++o) {
      float* const row = run.scratch;
      for (int c = 0; c < r.columns; c += r.group) std::fill_n(row + c, r.group, *dy++);
      for (std::int64_t p = 0; p < r.n; ++p, dx += r.columns) {
        if (at_.add_dx) {
          run.kernels->add(row, dx, r.columns);
        } else {
          std::copy_n(row, r.columns, dx);
        }
      }
    }
  }

 private:
  const SumPlaces at_;
};

}  // namespace

std::int64_t statistics_size(const Reduced& r) { return 2 * aligned(r.columns == 0 ? r.outer : r.outer * r.columns); }

std::int64_t standardize_scratch_size(const Reduced& r) { return 2 * r.columns; }

std::unique_ptr<Node> make_standardize(const StandardizePlaces& at) { return std::make_unique<Standardize>(at); }

std::unique_ptr<Node> make_softmax(const SoftmaxPlaces& at) { return std::make_unique<Softmax>(at); }

std::int64_t sum_scratch_size(const Reduced& r) { return r.columns; }

std::unique_ptr<Node> make_sum(const SumPlaces& at) { return std::make_unique<Sum>(at); }

}  // namespace adgan
