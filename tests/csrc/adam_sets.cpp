// An Adam step has the same bits with every instruction set (csrc/core/adam.h). Prints what differs.
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/adam.h"

namespace {

template <typename T>
struct Tensors {
  std::vector<T> param, exp_avg, exp_avg_sq, grad, old;

  explicit Tensors(std::size_t n) : param(n), exp_avg(n), exp_avg_sq(n), grad(n), old(n) {
    for (std::size_t i = 0; i < n; ++i) {
      const T x = static_cast<T>(i * 7919 % 1009) / T(1009);
      param[i] = x - T(0.3);
      exp_avg[i] = i % 5 ? x * x - T(0.1) : T(0);
      exp_avg_sq[i] = i % 5 ? x * x : T(0);
      grad[i] = i % 5 ? T(0.7) * x - T(0.2) : T(0);
      old[i] = T(0.5) - x;
    }
  }
  bool same(const Tensors& other) const {
    const auto equal = [](const std::vector<T>& a, const std::vector<T>& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
    };
    return equal(param, other.param) && equal(exp_avg, other.exp_avg) && equal(exp_avg_sq, other.exp_avg_sq);
  }
};

template <typename T>
int differences(const char* name) {
  int wrong = 0;
  for (const std::int64_t n : {1, 3, 4, 7, 8, 15, 16, 17, 1000, 1001}) {
    for (const std::int64_t step : {1, 2, 5}) {
      for (const bool last : {false, true}) {
        const adgan::AdamSettings settings{0.5, 0.999, 1e-8, step, last};
        Tensors<T> expected(static_cast<std::size_t>(n));
        for (int isa = 0; isa <= static_cast<int>(adgan::best_isa()); ++isa) {
          Tensors<T> found(static_cast<std::size_t>(n));
          const adgan::AdamEntry<T> entry{found.param.data(),
                                          found.exp_avg.data(),
                                          found.exp_avg_sq.data(),
                                          found.grad.data(),
                                          step == 1 ? found.old.data() : found.param.data(),
                                          n,
                                          n,
                                          5e-5};
          adgan::adam_step(entry, settings, 0, n, static_cast<adgan::Isa>(isa));
          if (isa == 0) expected = found;
          if (found.same(expected)) continue;
          ++wrong;
          std::printf("%s, %ld elements, step %ld, last %d: instruction set %d differs\n", name, static_cast<long>(n),
                      static_cast<long>(step), last, isa);
        }
      }
    }
  }
  return wrong;
}

}  // namespace

int main() {
  const int wrong = differences<float>("float") + differences<double>("double");
  std::printf("instruction sets up to %d\n", static_cast<int>(adgan::best_isa()));
  return wrong != 0;
}
