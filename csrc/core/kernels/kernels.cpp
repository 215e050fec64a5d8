#include "core/kernels/kernels.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace adgan {

const KernelTable& kernels(Isa isa) {
#if ADGAN_X86
  switch (isa) {
    case Isa::baseline: return baseline::kTable;
    case Isa::avx2: return avx2::kTable;
    case Isa::avx512: return avx512::kTable;
  }
#endif
  static_cast<void>(isa);
  return baseline::kTable;
}

// With m = (1 - β₁) M and v = (1 - β₂) V:  lr m̂ / (√v̂ + ε) = lr (1 - β₁) / (b₁ k) · M / (√V + ε / k), where b₁ and b₂
// are the bias corrections 1 - βᵗ and k = √((1 - β₂) / b₂). eps is kept above zero so that no gradient is no update,
// not 0/0.
AdamStep AdamStep::of(double lr, double beta1, double beta2, double eps, std::int64_t step, std::int64_t steps) {
  const double bias1 = 1.0 - std::pow(beta1, static_cast<double>(step));
  const double bias2 = 1.0 - std::pow(beta2, static_cast<double>(step));
  const double k = std::sqrt((1.0 - beta2) / bias2);
  return {static_cast<float>(beta1),
          static_cast<float>(beta2),
          static_cast<float>(lr * (1.0 - beta1) / (bias1 * k)),
          std::max(static_cast<float>(eps / k), FLT_MIN),
          step == 1,
          step == steps};
}

}  // namespace adgan
