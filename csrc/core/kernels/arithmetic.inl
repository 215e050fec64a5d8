// Sums, products, quotients and the larger of two values that broadcast (kernels.h: Spread).

ADGAN_INLINE F load_spread(const float* p, std::int64_t step, std::int64_t i, int lanes) {
  return step == 0 ? set1(*p) : load_up_to(p + i, lanes);
}

// x where a is greater, y where b is, and else (alike, or NaN) z.
ADGAN_INLINE F by_larger(F a, F b, F x, F y, F z) { return if_greater(a, b, x, if_greater(b, a, y, z)); }

// Without what stands in the lanes beyond, which may be NaN.
ADGAN_INLINE F keep_up_to(F x, int lanes) {
  if (lanes == L) return x;
  float all[L];
  store(all, x);
  return load_n(all, lanes);
}

static void arithmetic(ArithmeticOp op, float number, Spread a, Spread b, float* y, std::int64_t outer,
                       std::int64_t inner) {
  const auto apply = [&](const auto& f) __attribute__((always_inline)) {
    for (std::int64_t o = 0; o < outer; ++o, y += inner) {
      const float *const x = a.at + o * a.outer, *const z = b.at + o * b.outer;
      each_vector(inner, [&](std::int64_t i, int lanes) {
        store_up_to(y + i, f(load_spread(x, a.inner, i, lanes), load_spread(z, b.inner, i, lanes)), lanes);
      });
    }
  };
  const F factor = set1(number);
  switch (op) {
    case ArithmeticOp::add: return apply([&](F x, F z) { return fma(factor, z, x); });
    case ArithmeticOp::mul: return apply([&](F x, F z) { return mul(x, z); });
    case ArithmeticOp::div: return apply([&](F x, F z) { return div(x, z); });
    case ArithmeticOp::maximum:  // NaN where either is
      return apply([&](F x, F z) { return by_larger(x, z, x, z, add(mul(x, set1(0.5f)), mul(z, set1(0.5f)))); });
  }
}

// The gradient of one operand, of whose numbers each belongs to as many of y as `d` says: term(g, a, b) or its sum.
template <typename Term>
ADGAN_INLINE void arithmetic_gradient(Spread a, Spread b, const float* g, float* gradient, Spread d, bool add_to,
                                      std::int64_t outer, std::int64_t inner, const Term& term) {
  const auto put = [&](float* to, F x, int lanes) __attribute__((always_inline)) {
    store_up_to(to, add_to ? add(load_up_to(to, lanes), x) : x, lanes);
  };
  const auto at = [&](std::int64_t o, std::int64_t i, int lanes) __attribute__((always_inline)) {
    return term(load_up_to(g + o * inner + i, lanes), load_spread(a.at + o * a.outer, a.inner, i, lanes),
                load_spread(b.at + o * b.outer, b.inner, i, lanes));
  };
  if (d.inner != 0 && d.outer != 0) {
    for (std::int64_t o = 0; o < outer; ++o) {
      each_vector(inner, [&](std::int64_t i, int lanes) { put(gradient + o * inner + i, at(o, i, lanes), lanes); });
    }
  } else if (d.inner != 0) {
    each_vector(inner, [&](std::int64_t i, int lanes) {
      LongSum total;
      each_block(outer, [&](std::int64_t first, std::int64_t count) {
        F part = zero();
        for (std::int64_t o = first; o < first + count; ++o) part = add(part, at(o, i, lanes));
        total.add_block(part);
      });
      put(gradient + i, total.total(), lanes);
    });
  } else {
    double all = 0;
    for (std::int64_t o = 0; o < outer; ++o) {
      const float row = row_sum(inner, [&](std::int64_t i, int lanes) { return keep_up_to(at(o, i, lanes), lanes); });
      all += row;
      if (d.outer != 0) gradient[o] = add_to ? gradient[o] + row : row;
    }
    if (d.outer == 0) *gradient = add_to ? *gradient + static_cast<float>(all) : static_cast<float>(all);
  }
}

static void arithmetic_backward(ArithmeticOp op, bool first, float number, Spread a, Spread b, const float* g,
                                float* gradient, bool add_to, std::int64_t outer, std::int64_t inner) {
  const auto apply = [&](const auto& of_a, const auto& of_b) __attribute__((always_inline)) {
    if (first) {
      arithmetic_gradient(a, b, g, gradient, a, add_to, outer, inner, of_a);
    } else {
      arithmetic_gradient(a, b, g, gradient, b, add_to, outer, inner, of_b);
    }
  };
  const F factor = set1(number);
  switch (op) {
    case ArithmeticOp::add: return apply([&](F gi, F, F) { return gi; }, [&](F gi, F, F) { return mul(gi, factor); });
    case ArithmeticOp::mul:
      return apply([&](F gi, F, F z) { return mul(gi, z); }, [&](F gi, F x, F) { return mul(gi, x); });
    case ArithmeticOp::div:
      return apply([&](F gi, F, F z) { return div(gi, z); },
                   [&](F gi, F x, F z) { return sub(zero(), div(mul(gi, div(x, z)), z)); });
    case ArithmeticOp::maximum:  // of two alike a has `factor`
      return apply([&](F gi, F x, F z) { return by_larger(x, z, gi, zero(), mul(gi, factor)); },
                   [&](F gi, F x, F z) { return by_larger(x, z, zero(), gi, sub(gi, mul(gi, factor))); });
  }
}
