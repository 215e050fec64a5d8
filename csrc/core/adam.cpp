#include "core/adam.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace adgan {

namespace {

// Bias corrections are computed in double and rounded once.
template <typename T>
StackedAdam<T> for_elements(const AdamSettings& settings, double lr) {
  const auto step = static_cast<double>(settings.step);
  return {static_cast<T>(settings.beta1),
          static_cast<T>(settings.beta2),
          static_cast<T>(1.0 - settings.beta1),
          static_cast<T>(1.0 - settings.beta2),
          static_cast<T>(1.0 / std::sqrt(1.0 - std::pow(settings.beta2, step))),
          static_cast<T>(settings.eps),
          static_cast<T>(lr / (1.0 - std::pow(settings.beta1, step))),
          settings.step == 1,
          settings.last};
}

}  // namespace

template <typename T>
void adam_step(const AdamEntry<T>& entry, const AdamSettings& settings, std::int64_t begin, std::int64_t end, Isa isa) {
  const StackedAdam<T> adam = for_elements<T>(settings, entry.lr);
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

template void adam_step<float>(const AdamEntry<float>&, const AdamSettings&, std::int64_t, std::int64_t, Isa);
template void adam_step<double>(const AdamEntry<double>&, const AdamSettings&, std::int64_t, std::int64_t, Isa);

}  // namespace adgan
