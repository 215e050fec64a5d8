// The kernels for any processor (SSE2 or NEON).
#include <cmath>

#include "core/kernels/kernels.h"

#if defined(__ARM_NEON)
#include <arm_neon.h>
#elif defined(__SSE2__)
#include <immintrin.h>
#endif

namespace adgan::baseline {
#include "core/kernels/all.inl"
}  // namespace adgan::baseline
