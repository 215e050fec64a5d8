// Adam over stacked parameters, on raw pointers. The contract and the formula's source are in adgan_fast/ops/adam.py.
//
// An element's result depends on that element alone, to the last bit: every operation rounds once (the build has
// -ffp-contract=off), so vector body, loop tail, block, thread and instruction set all give the same.
#pragma once

#include <cstdint>

#include "core/kernels/kernels.h"

namespace adgan {

// What is the same for every parameter.
struct AdamSettings {
  double beta1;
  double beta2;
  double eps;
  std::int64_t step;  // 1-based
  bool last;          // moments are not written
};

// One stacked parameter: `numel` = pairs × elements of one copy.
template <typename T>
struct AdamEntry {
  T* param;
  T* exp_avg;     // not read at step 1; not written at the last step
  T* exp_avg_sq;  // likewise
  const T* grad;
  const T* old_param;   // `param` itself, or the values to start from at step 1
  std::int64_t period;  // old_param has this many elements and repeats; equal to numel unless the pairs share them
  std::int64_t numel;
  double lr;
};

// Elements [begin, end) of one entry.
template <typename T>
void adam_step(const AdamEntry<T>& entry, const AdamSettings& settings, std::int64_t begin, std::int64_t end,
               Isa isa = best_isa());

}  // namespace adgan
