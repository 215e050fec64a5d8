// A layout of weights: packed, as a layer's kernels want them, from unpacked, as the module has them.
#pragma once

#include <cstdint>

namespace adgan {

class Packing {
 public:
  virtual ~Packing() = default;
  virtual std::int64_t packed_size() const = 0;
  virtual void pack(const float* unpacked, float* packed) const = 0;
  virtual void add_unpacked(const float* packed, float* unpacked) const = 0;
};

}  // namespace adgan
