// The order in which the elements of a value are stored.
#pragma once

#include <cstdint>

namespace adgan {

// Row-major, or position by position: seen as a matrix (channels × pixels), column after column. A value (C, H, W) is
// [H][W][C] with H · W pixels; so is a value (G, C / G, H, W), and a reshape from one to the other moves nothing.
class Storage {
 public:
  // pixels must divide size.
  Storage(std::int64_t size, std::int64_t pixels)
      : pixels_(pixels == size ? 1 : pixels), channels_(pixels > 0 ? size / pixels : size) {}

  // Where the element is stored that has `flat` as its place in row-major order.
  std::int64_t operator()(std::int64_t flat) const {
    return row_major() ? flat : flat % pixels_ * channels_ + flat / pixels_;
  }
  bool row_major() const { return pixels_ == 1; }
  std::int64_t pixels() const { return pixels_; }  // 1: row-major
  bool operator==(const Storage& other) const { return pixels_ == other.pixels_; }

 private:
  std::int64_t pixels_, channels_;
};

}  // namespace adgan
