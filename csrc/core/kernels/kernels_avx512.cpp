// The kernels for avx512. The target holds for this region alone: what the headers above define stays plain.
#include <cmath>

#include "core/kernels/kernels.h"

#if ADGAN_X86
// GCC 12's own header initialises undefined vectors by themselves.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#define ADGAN_ISA_AVX512 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

namespace adgan::avx512 {
#include "core/kernels/all.inl"
}  // namespace adgan::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
