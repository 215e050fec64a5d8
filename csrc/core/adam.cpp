#include "adam.h"

#include <algorithm>
#include <cmath>

namespace adgan {

namespace {

// The rule as an element sees it. Bias corrections are computed in double and rounded once.
template <typename T>
struct Scalars {
  T beta1, beta2, one_minus_beta1, one_minus_beta2;
  T inv_sqrt_bias2, eps, step_size;

  Scalars(const AdamRule& rule, double lr)
      : beta1(static_cast<T>(rule.beta1)),
        beta2(static_cast<T>(rule.beta2)),
        one_minus_beta1(static_cast<T>(1.0 - rule.beta1)),
        one_minus_beta2(static_cast<T>(1.0 - rule.beta2)),
        inv_sqrt_bias2(static_cast<T>(1.0 / std::sqrt(1.0 - std::pow(rule.beta2, static_cast<double>(rule.step))))),
        eps(static_cast<T>(rule.eps)),
        step_size(static_cast<T>(lr / (1.0 - std::pow(rule.beta1, static_cast<double>(rule.step))))) {}
};

// `s` by value: through a reference, every store to a T would have the compiler load the scalars again.
template <typename T, bool First, bool Last>
ADGAN_INLINE void body(T* param, T* exp_avg, T* exp_avg_sq, const T* grad, const T* old_param, std::int64_t n,
                       const Scalars<T> s) {
  ADGAN_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i];
    T m = g * s.one_minus_beta1;
    T v = (g * s.one_minus_beta2) * g;
    if constexpr (!First) {
      m = m + exp_avg[i] * s.beta1;
      v = v + exp_avg_sq[i] * s.beta2;
    }
    if constexpr (!Last) {
      exp_avg[i] = m;
      exp_avg_sq[i] = v;
    }
    const T denom = std::sqrt(v) * s.inv_sqrt_bias2 + s.eps;
    const T update = (m / denom) * s.step_size;
    // eps = 0 and no gradient so far: 0/0, and no update is what is meant.
    param[i] = old_param[i] - (denom == T(0) ? T(0) : update);
  }
}

template <typename T>
using Kernel = void (*)(T*, T*, T*, const T*, const T*, std::int64_t, Scalars<T>);

#define ADGAN_ADAM_KERNEL(NAME, TARGET)                                                                      \
  template <typename T, bool First, bool Last>                                                               \
  TARGET void NAME(T* param, T* exp_avg, T* exp_avg_sq, const T* grad, const T* old_param, std::int64_t n,   \
                   Scalars<T> s) {                                                                           \
    body<T, First, Last>(param, exp_avg, exp_avg_sq, grad, old_param, n, s);                                 \
  }

ADGAN_ADAM_KERNEL(kernel_baseline, )
#if ADGAN_X86
ADGAN_ADAM_KERNEL(kernel_avx2, ADGAN_TARGET_AVX2)
#endif

template <typename T, bool First, bool Last>
Kernel<T> pick(Isa isa) {
#if ADGAN_X86
  // No form for AVX-512: measured, Adam gains nothing by it. The divider and the memory set its time.
  if (isa >= Isa::avx2) return kernel_avx2<T, First, Last>;
#endif
  static_cast<void>(isa);
  return kernel_baseline<T, First, Last>;
}

template <typename T>
Kernel<T> pick(Isa isa, bool first, bool last) {
  if (first) return last ? pick<T, true, true>(isa) : pick<T, true, false>(isa);
  return last ? pick<T, false, true>(isa) : pick<T, false, false>(isa);
}

}  // namespace

template <typename T>
void adam_step(const AdamEntry<T>& entry, const AdamRule& rule, std::int64_t begin, std::int64_t end, Isa isa) {
  const Scalars<T> scalars(rule, entry.lr);
  const Kernel<T> kernel = pick<T>(isa, rule.step == 1, rule.last);
  while (begin < end) {
    const std::int64_t offset = begin % entry.period;
    const std::int64_t n = std::min(end - begin, entry.period - offset);
    kernel(entry.param + begin, entry.exp_avg + begin, entry.exp_avg_sq + begin, entry.grad + begin,
           entry.old_param + offset, n, scalars);
    begin += n;
  }
}

template void adam_step<float>(const AdamEntry<float>&, const AdamRule&, std::int64_t, std::int64_t, Isa);
template void adam_step<double>(const AdamEntry<double>&, const AdamRule&, std::int64_t, std::int64_t, Isa);

}  // namespace adgan
