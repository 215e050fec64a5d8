// What this processor can do, and how a function is compiled for it.
//
// The shipped binary must run on any x86-64 and on aarch64, so nothing is built with -march=native. Instead a kernel's
// body is an always_inline template, instantiated inside thin functions that carry a target attribute, and one of them
// is picked at run time. This way rather than the others:
//  - target_clones needs ifunc, which macOS and musl lack and which runs resolvers before a sanitizer is ready; GCC
//    splits its strings at commas, so "avx2,fma" would be two versions; GCC 10 and 11 do not know arch=x86-64-v3 there;
//  - a file per instruction set needs flags per file, which torch's BuildExtension has no place for, and leaves inline
//    functions of the standard library compiled with AVX in weak symbols that a processor without AVX may then run.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define ADGAN_X86 1
#define ADGAN_TARGET_AVX2 __attribute__((target("avx2,fma")))
#else
#define ADGAN_X86 0
#endif

#define ADGAN_INLINE inline __attribute__((always_inline))

// The loop's iterations touch nothing of each other's; the pointers may still be equal (an in-place update), which is
// why this is used and not __restrict.
#if defined(__clang__)
#define ADGAN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define ADGAN_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace adgan {

// Ordered: each level can run what the ones before it can. `baseline` is SSE2 on x86-64 and NEON on aarch64; `avx2` has
// FMA with it; `avx512` is F, DQ, BW and VL.
enum class Isa { baseline = 0, avx2 = 1, avx512 = 2 };

// The best level of the processor this runs on. Thread-safe; asks the processor once.
Isa best_isa();

}  // namespace adgan
