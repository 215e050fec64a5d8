// Weight matrices that meet one row of input: y = x W. Their gradient is an outer product (rank 1), so moments are
// rebuilt from the inputs and output gradients of the steps so far instead of being stored, and of w = θ₀ + Δ the
// change alone is kept, for the columns that ever had a gradient.

// R rows; what comes after them is fetched into the second-level cache.
template <int R>
ADGAN_INLINE void rank1_forward_rows(int outputs, int ld, const float* w, const float* x, float* out) {
  F xs[R];
  ADGAN_UNROLL
  for (int r = 0; r < R; ++r) xs[r] = set1(x[r]);
  each_vector(outputs, [&](std::int64_t n, int lanes) {
    F y = load_up_to(out + n, lanes);
    ADGAN_UNROLL
    for (int r = 0; r < R; ++r) {
      y = fma(xs[r], load(w + r * static_cast<std::int64_t>(ld) + n), y);
      __builtin_prefetch(w + (R + r) * static_cast<std::int64_t>(ld) + n, 0, 2);
    }
    store_up_to(out + n, y, lanes);
  });
}

static void rank1_forward(int inputs, int outputs, int ld, const float* weights, const float* x, float* out) {
  int k = 0;
  for (; k + 8 <= inputs; k += 8) {
    rank1_forward_rows<8>(outputs, ld, weights + static_cast<std::int64_t>(k) * ld, x + k, out);
  }
  for (; k < inputs; ++k) rank1_forward_rows<1>(outputs, ld, weights + static_cast<std::int64_t>(k) * ld, x + k, out);
}

constexpr int kMostOutputs = 4096;  // in one plain sum; more are summed in parts, since rounding grows with the length

static void rank1_backward(int inputs, int outputs, int ld, const float* weights, const float* g, float* gx,
                           bool add_to_gx) {
  for (; outputs > kMostOutputs;
       outputs -= kMostOutputs, weights += kMostOutputs, g += kMostOutputs, add_to_gx = true) {
    rank1_backward(inputs, kMostOutputs, ld, weights, g, gx, add_to_gx);
  }
  for (int k = 0; k < inputs; k += 4) {
    const int rows = inputs - k < 4 ? inputs - k : 4;
    const float* w = weights + static_cast<std::int64_t>(k) * ld;
    F sums[4] = {zero(), zero(), zero(), zero()};
    if (rows == 4) {
      each_vector(outputs, [&](std::int64_t n, int lanes) {
        const F gn = load_up_to(g + n, lanes);
        ADGAN_UNROLL
        for (int r = 0; r < 4; ++r) sums[r] = fma(gn, load_up_to(w + r * ld + n, lanes), sums[r]);
      });
    } else {
      for (int r = 0; r < rows; ++r) {
        each_vector(outputs, [&](std::int64_t n, int lanes) {
          sums[r] = fma(load_up_to(g + n, lanes), load_up_to(w + r * ld + n, lanes), sums[r]);
        });
      }
    }
    for (int r = 0; r < rows; ++r) gx[k + r] = add_to_gx ? gx[k + r] + sum(sums[r]) : sum(sums[r]);
  }
}

// gx += Δ g, where Δ is compact.
static void rank1_backward_compact(int inputs, int outputs, int ld, const float* weights, const float* g, float* gx) {
  for (; outputs > kMostOutputs; outputs -= kMostOutputs, weights += kMostOutputs, g += kMostOutputs) {
    rank1_backward_compact(inputs, kMostOutputs, ld, weights, g, gx);
  }
  for (int k = 0; k < inputs; k += 8) {
    const int rows = inputs - k < 8 ? inputs - k : 8;
    const float* w = weights + static_cast<std::int64_t>(k / 2) * ld;
    F sums[8] = {zero(), zero(), zero(), zero(), zero(), zero(), zero(), zero()};
    if (rows == 8) {
      each_vector(outputs, [&](std::int64_t n, int lanes) {
        const F gn = load_up_to(g + n, lanes);
        ADGAN_UNROLL
        for (int r = 0; r < 4; ++r) {
          const F both = load_up_to(w + r * static_cast<std::int64_t>(ld) + n, lanes);
          sums[2 * r] = fma(gn, high_of(both), sums[2 * r]);
          sums[2 * r + 1] = fma(gn, low_of(both), sums[2 * r + 1]);
        }
      });
    } else {
      for (int r = 0; r < rows; ++r) {
        each_vector(outputs, [&](std::int64_t n, int lanes) {
          const F both = load_up_to(w + (r / 2) * static_cast<std::int64_t>(ld) + n, lanes);
          sums[r] = fma(load_up_to(g + n, lanes), r % 2 == 0 ? high_of(both) : low_of(both), sums[r]);
        });
      }
    }
    for (int r = 0; r < rows; ++r) gx[k + r] += sum(sums[r]);
  }
}

// R rows at T steps. M = Σ β₁^(T-1-s) x_s g_s and V = Σ β₂^(T-1-s) x_s² g_s², as Adam's recurrences give them.
template <int R, int T, bool COMPACT>
ADGAN_INLINE void rank1_rows(const Rank1Update& job, int row) {
  const AdamVectors adam(job.adam);
  float* const change = job.change + static_cast<std::int64_t>(COMPACT ? row / 2 : row) * job.ld;
  float* const out = job.out;
  const float* g_of[T];
  for (int s = 0; s < T; ++s) g_of[s] = job.g[s];
  F a[R][T], b[R][T], next[R];
  ADGAN_UNROLL
  for (int r = 0; r < R; ++r) {
    float decay1 = 1.0f, decay2 = 1.0f;
    for (int s = T - 1; s >= 0; --s, decay1 *= job.adam.beta1, decay2 *= job.adam.beta2) {
      const float x = job.x[s][row + r];
      a[r][s] = set1(x * decay1);
      b[r][s] = set1(x * x * decay2);
    }
    next[r] = set1(job.next ? job.next[row + r] : 0.0f);
  }
  const std::int64_t ahead = static_cast<std::int64_t>(COMPACT ? job.rows / 2 : job.rows) * job.ld;  // rows to come
  each_vector(job.slots, [&](std::int64_t n, int lanes) {
    F m[R], v[R];
    ADGAN_UNROLL
    for (int s = 0; s < T; ++s) {
      const F g = load_up_to(g_of[s] + n, lanes), square = mul(g, g);
      ADGAN_UNROLL
      for (int r = 0; r < R; ++r) {
        m[r] = s == 0 ? mul(a[r][s], g) : fma(a[r][s], g, m[r]);
        v[r] = s == 0 ? mul(b[r][s], square) : fma(b[r][s], square, v[r]);
      }
    }
    F y = out ? load_up_to(out + n, lanes) : zero();
    const int known = static_cast<int>(job.old_slots - n);
    F delta[2] = {zero(), zero()};
    ADGAN_UNROLL
    for (int r = 0; r < R; ++r) {
      float* const at = change + (COMPACT ? 0 : r) * static_cast<std::int64_t>(job.ld) + n;
      if (!COMPACT || r == 0) {
        delta[r] = T == 1 || known <= 0 ? zero() : known >= L ? load(at) : load_n(at, known);
        if (T > 1) __builtin_prefetch(at + ahead, 0, 2);
      }
      if (COMPACT && r == 0) {
        delta[1] = low_of(delta[0]);
        delta[0] = high_of(delta[0]);
      }
      delta[r] = T == 1 ? moved_first(delta[r], m[r], adam) : moved(delta[r], m[r], v[r], adam);
      if (!COMPACT && job.keep) store_up_to(at, delta[r], lanes);
      y = fma(next[r], delta[r], y);
    }
    if (COMPACT && job.keep) store_up_to(change + n, pack_bf16(delta[0], delta[1]), lanes);
    if (out) store_up_to(out + n, y, lanes);
  });
}

template <int T, bool COMPACT>
static void rank1_steps(const Rank1Update& job) {
  int row = 0;
  for (; row + 2 <= job.rows; row += 2) rank1_rows<2, T, COMPACT>(job, row);
  if (row < job.rows) rank1_rows<1, T, COMPACT>(job, row);
}

template <bool COMPACT>
static void rank1_update_by_steps(const Rank1Update& job) {
  switch (job.steps) {
    case 1: return rank1_steps<1, COMPACT>(job);
    case 2: return rank1_steps<2, COMPACT>(job);
    case 3: return rank1_steps<3, COMPACT>(job);
    case 4: return rank1_steps<4, COMPACT>(job);
    case 5: return rank1_steps<5, COMPACT>(job);
    case 6: return rank1_steps<6, COMPACT>(job);
    case 7: return rank1_steps<7, COMPACT>(job);
    default: return rank1_steps<8, COMPACT>(job);
  }
}

static void rank1_update(const Rank1Update& job) {
  return job.compact ? rank1_update_by_steps<true>(job) : rank1_update_by_steps<false>(job);
}
