#include "core/adam.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace adgan {

namespace {

// Bias corrections are computed in double and rounded once.
template <typename T>
StackedAdam<T> for_elements(const AdamRule& rule, double lr) {
  const auto step = static_cast<double>(rule.step);
  return {static_cast<T>(rule.beta1),
          static_cast<T>(rule.beta2),
          static_cast<T>(1.0 - rule.beta1),
          static_cast<T>(1.0 - rule.beta2),
          static_cast<T>(1.0 / std::sqrt(1.0 - std::pow(rule.beta2, step))),
          static_cast<T>(rule.eps),
          static_cast<T>(lr / (1.0 - std::pow(rule.beta1, step))),
          rule.step == 1,
          rule.last};
}

}  // namespace

template <typename T>
void adam_step(const AdamEntry<T>& entry, const AdamRule& rule, std::int64_t begin, std::int64_t end, Isa isa) {
  const StackedAdam<T> adam = for_elements<T>(rule, entry.lr);
  while (begin < end) {
    const std::int64_t offset = begin % entry.period;
    const std::int64_t n = std::min(end - begin, entry.period - offset);
    T *const param = entry.param + begin, *const m = entry.exp_avg + begin, *const v = entry.exp_avg_sq + begin;
    if constexpr (std::is_same_v<T, float>) {
      kernels(isa).stacked_adam_float(param, m, v, entry.grad + begin, entry.old_param + offset, n, adam);
    } else {
      kernels(isa).stacked_adam_double(param, m, v, entry.grad + begin, entry.old_param + offset, n, adam);
    }
    begin += n;
  }
}

template void adam_step<float>(const AdamEntry<float>&, const AdamRule&, std::int64_t, std::int64_t, Isa);
template void adam_step<double>(const AdamEntry<double>&, const AdamRule&, std::int64_t, std::int64_t, Isa);

}  // namespace adgan
