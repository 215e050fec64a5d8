// What touches each number once: norms by constants, sums, losses.

static void fill_rows(float* out, int positions, int channels, const float* row) {
  for (int p = 0; p < positions; ++p, out += channels) {
    for (int c = 0; c < channels; ++c) out[c] = row ? row[c] : 0.0f;
  }
}

static void sum_rows(const float* g, int positions, int channels, float* sums) {
  each_vector(channels, [&](std::int64_t c, int lanes) {
    LongSum total;
    each_block(positions, [&](std::int64_t first, std::int64_t count) {
      F part = zero();
      for (std::int64_t p = first; p < first + count; ++p) part = add(part, load_up_to(g + p * channels + c, lanes));
      total.add_block(part);
    });
    store_up_to(sums + c, add(load_up_to(sums + c, lanes), total.total()), lanes);
  });
}

static void add_to(const float* x, float* out, std::int64_t n) {
  each_vector(n, [&](std::int64_t i, int lanes) {
    store_up_to(out + i, add(load_up_to(out + i, lanes), load_up_to(x + i, lanes)), lanes);
  });
}

static void affine_rows(const float* x, float* out, int positions, int channels, const float* scale,
                        const float* shift) {
  for (int p = 0; p < positions; ++p, x += channels, out += channels) {
    each_vector(channels, [&](std::int64_t c, int lanes) {
      store_up_to(out + c, fma(load_up_to(x + c, lanes), load_up_to(scale + c, lanes), load_up_to(shift + c, lanes)),
                  lanes);
    });
  }
}

static void norm_backward(const float* x, const float* g, float* gx, bool add_to_gx, int positions, int channels,
                          const float* scale, const float* mean, const float* inverse, float* dgamma, float* dbeta) {
  each_vector(channels, [&](std::int64_t c, int lanes) {
    const F s = load_up_to(scale + c, lanes), mu = load_up_to(mean + c, lanes), inv = load_up_to(inverse + c, lanes);
    LongSum all_gamma, all_beta;
    each_block(positions, [&](std::int64_t first, std::int64_t count) {
      F gamma = zero(), beta = zero();
      for (std::int64_t i = first * channels + c, p = 0; p < count; ++p, i += channels) {
        const F gi = load_up_to(g + i, lanes);
        gamma = fma(gi, mul(sub(load_up_to(x + i, lanes), mu), inv), gamma);
        beta = add(beta, gi);
        F to = mul(gi, s);
        if (add_to_gx) to = add(load_up_to(gx + i, lanes), to);
        store_up_to(gx + i, to, lanes);
      }
      all_gamma.add_block(gamma);
      all_beta.add_block(beta);
    });
    if (dgamma) store_up_to(dgamma + c, add(load_up_to(dgamma + c, lanes), all_gamma.total()), lanes);
    if (dbeta) store_up_to(dbeta + c, add(load_up_to(dbeta + c, lanes), all_beta.total()), lanes);
  });
}

// Σ term(i, lanes) over n numbers, each vector once. What a search gains may be a small part of it: few roundings.
template <typename Term>
ADGAN_INLINE float sum_of(std::int64_t n, const Term& term) {
  constexpr std::int64_t kBlock = 4 * L;
  LongSum total;
  for (std::int64_t first = 0; first < n; first += kBlock) {
    F part = zero();
    each_vector(n - first < kBlock ? n - first : kBlock,
                [&](std::int64_t i, int lanes) { part = add(part, term(first + i, lanes)); });
    total.add_block(part);
  }
  return total.of_lanes();
}

static float l2(const float* y, const float* target, float* g, std::int64_t n) {
  return sum_of(n, [&](std::int64_t i, int lanes) {
    const F d = sub(load_up_to(y + i, lanes), load_up_to(target + i, lanes));
    store_up_to(g + i, add(d, d), lanes);
    return mul(d, d);
  });
}

static float l1(const float* y, const float* target, float* g, std::int64_t n) {
  return sum_of(n, [&](std::int64_t i, int lanes) {
    const F d = sub(load_up_to(y + i, lanes), load_up_to(target + i, lanes));
    store_up_to(g + i, if_greater(d, zero(), set1(1.0f), if_greater(zero(), d, set1(-1.0f), zero())), lanes);
    return abs(d);
  });
}
