// What this processor can do.
//
// The shipped binary must run on any x86-64 and on aarch64, so nothing is built with -march=native. Instead the kernels
// (kernels/) are compiled once for each instruction set, in a region of a file that has it as its target, and one table
// of them is picked at run time. This way rather than the others:
//  - target_clones needs ifunc, which macOS and musl lack and which runs resolvers before a sanitizer is ready; GCC
//    splits its strings at commas, so "avx2,fma" would be two versions; GCC 10 and 11 do not know arch=x86-64-v3 there;
//  - flags for each file have no place in torch's BuildExtension, and leave inline functions of the standard library
//    compiled with AVX in weak symbols that a processor without AVX may then run.
#pragma once

#include "core/modes.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define ADGAN_X86 1
#else
#define ADGAN_X86 0
#endif

namespace adgan {

// The best instruction set of the processor this runs on. Thread-safe; asks the processor once.
Isa best_isa();

}  // namespace adgan
