// The kernels for any processor (SSE2 or NEON). The target holds for this region alone: what the headers above define stays plain.
#include "kernels.h"
#include "op.h"

#include <cmath>

#if defined(__ARM_NEON)
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <immintrin.h>
#endif

namespace adgan::baseline {
#include "simd.inl"
#include "maps.inl"
#include "rank1.inl"
#include "elementwise.inl"
#include "table.inl"
}  // namespace adgan::baseline
