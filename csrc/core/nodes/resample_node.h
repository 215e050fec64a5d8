// rows · x · columnsᵀ by constant matrices that are zero outside a band: interpolation, pooling by averages.
#pragma once

#include <memory>

#include "core/nodes/node.h"
#include "core/packing.h"

namespace adgan {

// A matrix as the banded kernels want it: the band of each row, then all its numbers.
class BandedMatrix : public Packing {
 public:
  BandedMatrix(std::int64_t rows, std::int64_t columns) : rows_(rows), columns_(columns) {}
  std::int64_t packed_size() const override { return weights_at() + rows_ * columns_; }
  void pack(const float* unpacked, float* packed) const override;
  void add_unpacked(const float* packed, float* unpacked) const override;

  int rows() const { return static_cast<int>(rows_); }
  int columns() const { return static_cast<int>(columns_); }
  static const Band* bands(const float* packed) { return reinterpret_cast<const Band*>(packed); }
  const float* weights(const float* packed) const { return packed + weights_at(); }

 private:
  std::int64_t weights_at() const;
  const std::int64_t rows_, columns_;
};

struct ResamplePlaces {
  const BandedMatrix *rows, *columns;
  std::int64_t rows_at, columns_at;  // fixed
  int channels;
  std::int64_t x, y, dx, dy;  // dx -1: not wanted
  bool add_dx;
};
std::int64_t resample_scratch_size(const ResamplePlaces&);
std::unique_ptr<Node> make_resample(const ResamplePlaces&);

}  // namespace adgan
