// Arithmetic of sizes.
#pragma once

#include <cstdint>

namespace adgan {

template <typename T>
constexpr T ceil_div(T n, T by) {
  return (n + by - 1) / by;
}

// Whole vectors, of sixteen floats: whatever lies in an arena or a row begins at one.
constexpr std::int64_t aligned(std::int64_t floats) { return ceil_div<std::int64_t>(floats, 16) * 16; }

}  // namespace adgan
