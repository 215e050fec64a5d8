// Sums of so many numbers that a float would lose digits over them: taken in double, in scratch memory.
#pragma once

#include <algorithm>

#include "core/nodes/node.h"

namespace adgan {

// Whether so many numbers are added up in each of n that a node does it in double: in 2 n floats of scratch memory.
inline bool gathers_many(std::int64_t numbers, std::int64_t n) { return numbers >= 64 * n; }

inline double* wide_zeros(const Run& run, std::int64_t n) {
  double* const wide = reinterpret_cast<double*>(run.scratch);
  std::fill_n(wide, n, 0.0);
  return wide;
}

inline void add_wide(const double* wide, std::int64_t n, float* to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] += static_cast<float>(wide[i]);
}

}  // namespace adgan
