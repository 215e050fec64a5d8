// Activations, forward and backward.

// softplus alone, number by number: log1p has no vector form here.
static inline float softplus(float x, float beta, float threshold) {
  return x * beta > threshold ? x : std::log1p(std::exp(x * beta)) / beta;
}

// x to a power. The common exponents are exact, and have no logarithm; others are taken number by number.
static void power(float exponent, const float* x, float* y, std::int64_t n) {
  const auto apply = [&](const auto& f) __attribute__((always_inline)) {
    each_vector(n, [&](std::int64_t i, int lanes) { store_up_to(y + i, f(load_up_to(x + i, lanes)), lanes); });
  };
  const F one = set1(1.0f);
  if (exponent == 0.0f) return apply([&](F) { return one; });
  if (exponent == 1.0f) return apply([&](F v) { return v; });
  if (exponent == 2.0f) return apply([&](F v) { return mul(v, v); });
  if (exponent == 3.0f) return apply([&](F v) { return mul(mul(v, v), v); });
  if (exponent == 0.5f) return apply([&](F v) { return sqrt(v); });
  if (exponent == -0.5f) return apply([&](F v) { return div(one, sqrt(v)); });
  if (exponent == -1.0f) return apply([&](F v) { return div(one, v); });
  for (std::int64_t i = 0; i < n; ++i) y[i] = std::pow(x[i], exponent);
}

// g · exponent · x^(exponent - 1); no gradient of x⁰, whatever x is.
static void power_backward(float exponent, const float* x, const float* g, float* gx, bool add_to_gx, std::int64_t n) {
  const auto apply = [&](const auto& f) __attribute__((always_inline)) {
    each_vector(n, [&](std::int64_t i, int lanes) {
      F to = mul(load_up_to(g + i, lanes), f(load_up_to(x + i, lanes)));
      if (add_to_gx) to = add(load_up_to(gx + i, lanes), to);
      store_up_to(gx + i, to, lanes);
    });
  };
  const F one = set1(1.0f), a = set1(exponent);
  if (exponent == 0.0f) {
    for (std::int64_t i = 0; i < n; ++i) gx[i] = add_to_gx ? gx[i] : 0.0f;
    return;
  }
  if (exponent == 1.0f) return apply([&](F) { return one; });
  if (exponent == 2.0f) return apply([&](F v) { return add(v, v); });
  if (exponent == 3.0f) return apply([&](F v) { return mul(a, mul(v, v)); });
  if (exponent == 0.5f) return apply([&](F v) { return div(a, sqrt(v)); });
  if (exponent == -0.5f) return apply([&](F v) { return div(a, mul(v, sqrt(v))); });
  if (exponent == -1.0f) return apply([&](F v) { return div(a, mul(v, v)); });
  for (std::int64_t i = 0; i < n; ++i) {
    const float to = g[i] * (exponent * std::pow(x[i], exponent - 1.0f));
    gx[i] = add_to_gx ? gx[i] + to : to;
  }
}

// √(2/π) (x + 0.044715 x³), of which GELU's approximation takes the hyperbolic tangent; and its derivative.
static inline F gelu_inner(F x) {
  const F cube = mul(mul(x, x), x);
  return mul(set1(0.79788456f), fma(set1(0.044715f), cube, x));
}
static inline F gelu_inner_slope(F x) { return mul(set1(0.79788456f), fma(set1(0.134145f), mul(x, x), set1(1.0f))); }

static void activate(ActivationOp op, const double* numbers, const float* x, float* y, std::int64_t n) {
  const auto apply = [&](const auto& f) __attribute__((always_inline)) {
    each_vector(n, [&](std::int64_t i, int lanes) { store_up_to(y + i, f(load_up_to(x + i, lanes)), lanes); });
  };
  const F a = set1(static_cast<float>(numbers[0])), b = set1(static_cast<float>(numbers[1]));
  const F c = set1(static_cast<float>(numbers[2]));
  switch (op) {
    case ActivationOp::relu: return apply([&](F v) { return if_greater(zero(), v, zero(), v); });  // NaN stays NaN
    case ActivationOp::leaky_relu: return apply([&](F v) { return if_greater(v, zero(), v, mul(v, a)); });
    case ActivationOp::tanh: return apply([&](F v) { return tanh(v); });
    case ActivationOp::sigmoid: return apply([&](F v) { return sigmoid(v); });
    case ActivationOp::silu: return apply([&](F v) { return mul(v, sigmoid(v)); });
    case ActivationOp::scale_shift: return apply([&](F v) { return add(mul(v, a), b); });
    case ActivationOp::gelu: return apply([&](F v) { return mul(v, normal_cdf(v)); });
    case ActivationOp::gelu_tanh:
      return apply([&](F v) {
        const F half = mul(v, set1(0.5f));
        return fma(half, tanh(gelu_inner(v)), half);
      });
    case ActivationOp::erf: return apply([&](F v) { return erf(v); });
    case ActivationOp::hardtanh:
    case ActivationOp::clamp: return apply([&](F v) { return min(b, max(a, v)); });  // NaN stays NaN
    case ActivationOp::pow: return power(static_cast<float>(numbers[0]), x, y, n);
    case ActivationOp::exp:
      return apply([&](F v) { return if_greater(v, set1(88.72284f), set1(__builtin_inff()), exp(v)); });
    case ActivationOp::log: return apply([&](F v) { return log(v); });
    case ActivationOp::abs: return apply([&](F v) { return abs(v); });
    case ActivationOp::sin:
      for (std::int64_t i = 0; i < n; ++i) y[i] = std::sin(x[i]);
      return;
    case ActivationOp::elu:  // alpha, scale, input scale
      return apply([&](F v) { return if_greater(v, zero(), mul(v, b), mul(mul(a, b), expm1(mul(v, c)))); });
    case ActivationOp::softplus:
      for (std::int64_t i = 0; i < n; ++i) {
        y[i] = softplus(x[i], static_cast<float>(numbers[0]), static_cast<float>(numbers[1]));
      }
      return;
  }
}

static void activate_backward(ActivationOp op, const double* numbers, const float* x, const float* y, const float* g,
                              float* gx, bool add_to_gx, std::int64_t n) {
  const auto apply = [&](const auto& f) __attribute__((always_inline)) {
    each_vector(n, [&](std::int64_t i, int lanes) {
      F to = f(i, lanes, load_up_to(g + i, lanes));
      if (add_to_gx) to = add(load_up_to(gx + i, lanes), to);
      store_up_to(gx + i, to, lanes);
    });
  };
  const F one = set1(1.0f), a = set1(static_cast<float>(numbers[0])), b = set1(static_cast<float>(numbers[1]));
  const F c = set1(static_cast<float>(numbers[2]));
  switch (op) {
    case ActivationOp::relu:
      return apply([&](std::int64_t i, int k, F gi) { return if_greater(load_up_to(y + i, k), zero(), gi, zero()); });
    case ActivationOp::leaky_relu:
      return apply(
          [&](std::int64_t i, int k, F gi) { return if_greater(load_up_to(x + i, k), zero(), gi, mul(gi, a)); });
    case ActivationOp::tanh:
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(y + i, k);
        return mul(gi, fnma(v, v, one));
      });
    case ActivationOp::sigmoid:
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(y + i, k);
        return mul(gi, mul(sub(one, v), v));
      });
    case ActivationOp::silu:
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(x + i, k), s = sigmoid(v);
        return mul(gi, mul(s, fma(v, sub(one, s), one)));
      });
    case ActivationOp::gelu:
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(x + i, k);
        const F density = mul(set1(0.39894228f), exp(mul(mul(v, v), set1(-0.5f))));
        return mul(gi, fma(v, density, normal_cdf(v)));
      });
    case ActivationOp::gelu_tanh:
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(x + i, k), t = tanh(gelu_inner(v)), half = set1(0.5f);
        const F slope = mul(mul(fnma(t, t, one), gelu_inner_slope(v)), mul(v, half));
        return mul(gi, add(fma(half, t, half), slope));
      });
    case ActivationOp::erf:  // 2 / √π e^-x²
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(x + i, k);
        return mul(gi, mul(set1(1.12837917f), exp(sub(zero(), mul(v, v)))));
      });
    case ActivationOp::hardtanh:  // none on the bounds, where the output is one
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(y + i, k);
        return if_greater(v, a, if_greater(b, v, gi, zero()), zero());
      });
    case ActivationOp::clamp:
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(x + i, k);
        return if_greater(a, v, zero(), if_greater(v, b, zero(), gi));
      });
    case ActivationOp::pow: return power_backward(static_cast<float>(numbers[0]), x, g, gx, add_to_gx, n);
    case ActivationOp::exp: return apply([&](std::int64_t i, int k, F gi) { return mul(gi, load_up_to(y + i, k)); });
    case ActivationOp::log: return apply([&](std::int64_t i, int k, F gi) { return div(gi, load_up_to(x + i, k)); });
    case ActivationOp::abs:
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(x + i, k);
        return if_greater(v, zero(), gi, if_greater(zero(), v, sub(zero(), gi), zero()));
      });
    case ActivationOp::sin:
      for (std::int64_t i = 0; i < n; ++i) {
        const float to = g[i] * std::cos(x[i]);
        gx[i] = add_to_gx ? gx[i] + to : to;
      }
      return;
    case ActivationOp::scale_shift: return apply([&](std::int64_t, int, F gi) { return mul(gi, a); });
    case ActivationOp::elu:
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = load_up_to(x + i, k);
        return mul(gi, if_greater(v, zero(), b, mul(mul(mul(a, b), c), exp(mul(v, c)))));
      });
    case ActivationOp::softplus:  // beta, threshold
      return apply([&](std::int64_t i, int k, F gi) {
        const F v = mul(load_up_to(x + i, k), a);
        return mul(gi, if_greater(v, b, one, sigmoid(v)));
      });
  }
}

// x > 0 ? x : slope · x, the slope by channel; and gx, and what each slope gets, added to.
static void prelu(const float* x, float* y, int positions, int channels, const float* slope) {
  for (int p = 0; p < positions; ++p, x += channels, y += channels) {
    each_vector(channels, [&](std::int64_t c, int lanes) {
      const F v = load_up_to(x + c, lanes);
      store_up_to(y + c, if_greater(v, zero(), v, mul(v, load_up_to(slope + c, lanes))), lanes);
    });
  }
}

static void prelu_backward(const float* x, const float* g, float* gx, bool add_to_gx, int positions, int channels,
                           const float* slope, float* gslope) {
  each_vector(channels, [&](std::int64_t c, int lanes) {
    const F s = load_up_to(slope + c, lanes);
    LongSum all;
    each_block(positions, [&](std::int64_t first, std::int64_t count) {
      F part = zero();
      for (std::int64_t i = first * channels + c, p = 0; p < count; ++p, i += channels) {
        const F v = load_up_to(x + i, lanes), gi = load_up_to(g + i, lanes);
        part = add(part, if_greater(v, zero(), zero(), mul(v, gi)));
        F to = if_greater(v, zero(), gi, mul(gi, s));
        if (add_to_gx) to = add(load_up_to(gx + i, lanes), to);
        store_up_to(gx + i, to, lanes);
      }
      all.add_block(part);
    });
    if (gslope) store_up_to(gslope + c, add(load_up_to(gslope + c, lanes), all.total()), lanes);
  });
}
