// The kernels for avx2. The target holds for this region alone: what the headers above define stays plain.
#include <cmath>

#include "core/kernels/kernels.h"

#if ADGAN_X86
#include <immintrin.h>

#define ADGAN_ISA_AVX2 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace adgan::avx2 {
#include "core/kernels/all.inl"
}  // namespace adgan::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
