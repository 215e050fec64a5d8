// Sums over some dimensions, and what is made with them: over rows, whose numbers lie together, or over the columns of
// a matrix (n × m), each by itself or `group` neighbours together.

// Σ term(i, lanes) over a row. Lanes beyond its end must give 0.
template <typename Term>
ADGAN_INLINE float row_sum(std::int64_t n, const Term& term) {
  constexpr std::int64_t kBlock = kChain * L;
  LongSum total;
  for (std::int64_t first = 0; first < n; first += kBlock) {
    F part = zero();
    each_vector(n - first < kBlock ? n - first : kBlock,
                [&](std::int64_t i, int lanes) { part = add(part, term(first + i, lanes)); });
    if (n <= kBlock) return sum(part);
    total.add_block(part);
  }
  return total.of_lanes();
}

// Σ term(i, lanes) down some columns, i being the place of the first in each row.
template <typename Term>
ADGAN_INLINE F column_sum(std::int64_t n, std::int64_t m, std::int64_t column, const Term& term) {
  LongSum total;
  each_block(n, [&](std::int64_t first, std::int64_t count) {
    F part = zero();
    for (std::int64_t i = first * m + column, p = 0; p < count; ++p, i += m) part = add(part, term(i));
    total.add_block(part);
  });
  return total.total();
}

// Each number becomes f(sum of its group).
template <typename Function>
ADGAN_INLINE void combine(float* sums, int m, int group, const Function& f) {
  for (int first = 0; first < m; first += group) {
    double all = 0;
    for (int c = 0; c < group; ++c) all += sums[first + c];
    const float result = static_cast<float>(f(all));
    for (int c = 0; c < group; ++c) sums[first + c] = result;
  }
}

// A vector of one number, zero beyond the last lane wanted.
ADGAN_INLINE F set_up_to(float x, int lanes) {
  if (lanes == L) return set1(x);
  float all[L];
  store(all, set1(x));
  return load_n(all, lanes);
}

static void row_sums(const float* x, float* sums, int rows, std::int64_t n) {
  for (int r = 0; r < rows; ++r, x += n) {
    sums[r] = row_sum(n, [&](std::int64_t i, int lanes) { return load_up_to(x + i, lanes); });
  }
}

// -- (x - mean) / √(variance + eps) ---------------------------------------------------------------------------------

static void standardize_rows(const float* x, float* y, int rows, std::int64_t n, double eps, float* means,
                             float* inverses) {
  for (int r = 0; r < rows; ++r, x += n, y += n) {
    const float mean =
        row_sum(n, [&](std::int64_t i, int lanes) { return load_up_to(x + i, lanes); }) / static_cast<float>(n);
    const float square = row_sum(n, [&](std::int64_t i, int lanes) {
      const F d = sub(load_up_to(x + i, lanes), set_up_to(mean, lanes));
      return mul(d, d);
    });
    const auto inverse = static_cast<float>(1.0 / __builtin_sqrt(square / static_cast<double>(n) + eps));
    means[r] = mean;
    inverses[r] = inverse;
    each_vector(n, [&](std::int64_t i, int lanes) {
      store_up_to(y + i, mul(sub(load_up_to(x + i, lanes), set1(mean)), set1(inverse)), lanes);
    });
  }
}

// With x̂ the output: inverse · (g - mean of g - x̂ · mean of g x̂). gx may be g.
static void standardize_rows_backward(const float* x, const float* g, float* gx, bool add_to_gx, int rows,
                                      std::int64_t n, const float* means, const float* inverses) {
  for (int r = 0; r < rows; ++r, x += n, g += n, gx += n) {
    const F mean = set1(means[r]), inverse = set1(inverses[r]);
    const auto size = static_cast<float>(n);
    const F a = set1(row_sum(n, [&](std::int64_t i, int lanes) { return load_up_to(g + i, lanes); }) / size);
    const F b = set1(row_sum(n,
                             [&](std::int64_t i, int lanes) {
                               const F hat = mul(sub(load_up_to(x + i, lanes), mean), inverse);
                               return mul(load_up_to(g + i, lanes), hat);
                             }) /
                     size);
    each_vector(n, [&](std::int64_t i, int lanes) {
      const F hat = mul(sub(load_up_to(x + i, lanes), mean), inverse);
      F to = mul(inverse, fnma(hat, b, sub(load_up_to(g + i, lanes), a)));
      if (add_to_gx) to = add(load_up_to(gx + i, lanes), to);
      store_up_to(gx + i, to, lanes);
    });
  }
}

// means and inverses: one for each column.
static void standardize_columns(const float* x, float* y, std::int64_t n, int m, int group, double eps, float* means,
                                float* inverses) {
  const double size = static_cast<double>(n) * group;
  each_vector(m, [&](std::int64_t c, int lanes) {
    store_up_to(means + c, column_sum(n, m, c, [&](std::int64_t i) { return load_up_to(x + i, lanes); }), lanes);
  });
  combine(means, m, group, [&](double all) { return all / size; });
  each_vector(m, [&](std::int64_t c, int lanes) {
    const F mean = load_up_to(means + c, lanes);
    const F square = column_sum(n, m, c, [&](std::int64_t i) {
      const F d = sub(load_up_to(x + i, lanes), mean);
      return mul(d, d);
    });
    store_up_to(inverses + c, square, lanes);
  });
  combine(inverses, m, group, [&](double all) { return 1.0 / __builtin_sqrt(all / size + eps); });
  for (std::int64_t p = 0; p < n; ++p, x += m, y += m) {
    each_vector(m, [&](std::int64_t c, int lanes) {
      const F d = sub(load_up_to(x + c, lanes), load_up_to(means + c, lanes));
      store_up_to(y + c, mul(d, load_up_to(inverses + c, lanes)), lanes);
    });
  }
}

// sums: of 2 m numbers, to work in.
static void standardize_columns_backward(const float* x, const float* g, float* gx, bool add_to_gx, std::int64_t n,
                                         int m, int group, const float* means, const float* inverses, float* sums) {
  const double size = static_cast<double>(n) * group;
  float *const all_g = sums, *const all_hat = sums + m;
  each_vector(m, [&](std::int64_t c, int lanes) {
    const F mean = load_up_to(means + c, lanes), inverse = load_up_to(inverses + c, lanes);
    LongSum plain, by_hat;
    each_block(n, [&](std::int64_t first, std::int64_t count) {
      F a = zero(), b = zero();
      for (std::int64_t i = first * m + c, p = 0; p < count; ++p, i += m) {
        const F gi = load_up_to(g + i, lanes);
        a = add(a, gi);
        b = fma(gi, mul(sub(load_up_to(x + i, lanes), mean), inverse), b);
      }
      plain.add_block(a);
      by_hat.add_block(b);
    });
    store_up_to(all_g + c, plain.total(), lanes);
    store_up_to(all_hat + c, by_hat.total(), lanes);
  });
  combine(all_g, m, group, [&](double all) { return all / size; });
  combine(all_hat, m, group, [&](double all) { return all / size; });
  for (std::int64_t p = 0; p < n; ++p, x += m, g += m, gx += m) {
    each_vector(m, [&](std::int64_t c, int lanes) {
      const F inverse = load_up_to(inverses + c, lanes);
      const F hat = mul(sub(load_up_to(x + c, lanes), load_up_to(means + c, lanes)), inverse);
      const F rest = sub(load_up_to(g + c, lanes), load_up_to(all_g + c, lanes));
      F to = mul(inverse, fnma(hat, load_up_to(all_hat + c, lanes), rest));
      if (add_to_gx) to = add(load_up_to(gx + c, lanes), to);
      store_up_to(gx + c, to, lanes);
    });
  }
}

// -- softmax --------------------------------------------------------------------------------------------------------

static float row_max(const float* x, std::int64_t n) {
  float most = x[0];
  std::int64_t i = 1;
  if (n >= L) {
    F all = load(x);
    for (i = L; i + L <= n; i += L) all = max(all, load(x + i));
    float lanes[L];
    store(lanes, all);
    for (const float lane : lanes) most = lane > most ? lane : most;
  }
  for (; i < n; ++i) most = x[i] > most ? x[i] : most;
  return most;
}

// A NaN of a row makes its sum one, whatever was taken for the maximum.
static void softmax_rows(const float* x, float* y, int rows, std::int64_t n) {
  for (int r = 0; r < rows; ++r, x += n, y += n) {
    const F most = set1(row_max(x, n));
    const float all = row_sum(n, [&](std::int64_t i, int lanes) {
      store_up_to(y + i, exp(sub(load_up_to(x + i, lanes), most)), lanes);
      return load_up_to(y + i, lanes);
    });
    const F scale = set1(1.0f / all);
    each_vector(n, [&](std::int64_t i, int lanes) { store_up_to(y + i, mul(load_up_to(y + i, lanes), scale), lanes); });
  }
}

// y · (g - Σ g y). gx may be g.
static void softmax_rows_backward(const float* y, const float* g, float* gx, bool add_to_gx, int rows, std::int64_t n) {
  for (int r = 0; r < rows; ++r, y += n, g += n, gx += n) {
    const F all = set1(
        row_sum(n, [&](std::int64_t i, int lanes) { return mul(load_up_to(g + i, lanes), load_up_to(y + i, lanes)); }));
    each_vector(n, [&](std::int64_t i, int lanes) {
      F to = mul(load_up_to(y + i, lanes), sub(load_up_to(g + i, lanes), all));
      if (add_to_gx) to = add(load_up_to(gx + i, lanes), to);
      store_up_to(gx + i, to, lanes);
    });
  }
}

static void softmax_columns(const float* x, float* y, std::int64_t n, int m) {
  each_vector(m, [&](std::int64_t c, int lanes) {
    F most = load_up_to(x + c, lanes);
    for (std::int64_t p = 1; p < n; ++p) most = max(most, load_up_to(x + p * m + c, lanes));
    const F all = column_sum(n, m, c, [&](std::int64_t i) {
      const F e = exp(sub(load_up_to(x + i, lanes), most));
      store_up_to(y + i, e, lanes);
      return e;
    });
    const F scale = div(set1(1.0f), all);
    for (std::int64_t p = 0; p < n; ++p) {
      store_up_to(y + p * m + c, mul(load_up_to(y + p * m + c, lanes), scale), lanes);
    }
  });
}

static void softmax_columns_backward(const float* y, const float* g, float* gx, bool add_to_gx, std::int64_t n, int m) {
  each_vector(m, [&](std::int64_t c, int lanes) {
    const F all =
        column_sum(n, m, c, [&](std::int64_t i) { return mul(load_up_to(g + i, lanes), load_up_to(y + i, lanes)); });
    for (std::int64_t p = 0, i = c; p < n; ++p, i += m) {
      F to = mul(load_up_to(y + i, lanes), sub(load_up_to(g + i, lanes), all));
      if (add_to_gx) to = add(load_up_to(gx + i, lanes), to);
      store_up_to(gx + i, to, lanes);
    }
  });
}
