#include "core/nodes/resample_node.h"

#include <algorithm>

#include "core/sizes.h"

namespace adgan {

static_assert(sizeof(Band) == 2 * sizeof(float));

std::int64_t BandedMatrix::weights_at() const { return aligned(2 * rows_); }

void BandedMatrix::pack(const float* unpacked, float* packed) const {
  Band* const bands = reinterpret_cast<Band*>(packed);
  for (std::int64_t r = 0; r < rows_; ++r) {
    const float* const row = unpacked + r * columns_;
    Band band{0, static_cast<int>(columns_)};
    while (band.end > 0 && row[band.end - 1] == 0.0f) band.end -= 1;
    while (band.first < band.end && row[band.first] == 0.0f) band.first += 1;
    bands[r] = band;
  }
  std::copy_n(unpacked, rows_ * columns_, packed + weights_at());
}

void BandedMatrix::add_unpacked(const float* packed, float* unpacked) const {
  for (std::int64_t i = 0; i < rows_ * columns_; ++i) unpacked[i] += packed[weights_at() + i];
}

namespace {

// First down the rows, of all columns and channels at once; then along each row.
class Resample : public Node {
 public:
  explicit Resample(const ResamplePlaces& at) : at_(at) {}

  void forward(Run& run) const override {
    const BandedMatrix &down = *at_.rows, &along = *at_.columns;
    const float *const rows = run.fixed + at_.rows_at, *const columns = run.fixed + at_.columns_at;
    run.kernels->banded(BandedMatrix::bands(rows), down.weights(rows), down.rows(), down.columns(), run.act + at_.x,
                        run.scratch, width());
    for (int h = 0; h < down.rows(); ++h) {
      run.kernels->banded(BandedMatrix::bands(columns), along.weights(columns), along.rows(), along.columns(),
                          run.scratch + h * width(), run.act + at_.y + h * width_of_output(), at_.channels);
    }
  }

  void backward(Run& run) const override {
    if (at_.dx < 0) return;
    const BandedMatrix &down = *at_.rows, &along = *at_.columns;
    const float *const rows = run.fixed + at_.rows_at, *const columns = run.fixed + at_.columns_at;
    float* const dx = run.grad + at_.dx;
    std::fill_n(run.scratch, down.rows() * width(), 0.0f);
    for (int h = 0; h < down.rows(); ++h) {
      run.kernels->banded_transposed(BandedMatrix::bands(columns), along.weights(columns), along.rows(),
                                     along.columns(), run.grad + at_.dy + h * width_of_output(),
                                     run.scratch + h * width(), at_.channels);
    }
    if (!at_.add_dx) std::fill_n(dx, down.columns() * width(), 0.0f);
    run.kernels->banded_transposed(BandedMatrix::bands(rows), down.weights(rows), down.rows(), down.columns(),
                                   run.scratch, dx, width());
  }

 private:
  // Numbers in a row of x, and of y.
  std::int64_t width() const { return static_cast<std::int64_t>(at_.columns->columns()) * at_.channels; }
  std::int64_t width_of_output() const { return static_cast<std::int64_t>(at_.columns->rows()) * at_.channels; }

  const ResamplePlaces at_;
};

}  // namespace

std::int64_t resample_scratch_size(const ResamplePlaces& at) {
  return static_cast<std::int64_t>(at.rows->rows()) * at.columns->columns() * at.channels;
}

std::unique_ptr<Node> make_resample(const ResamplePlaces& at) { return std::make_unique<Resample>(at); }

}  // namespace adgan
