// Adam in the two forms of kernels.h.

struct AdamVectors {
  F beta1, beta2, scale, eps;
  explicit AdamVectors(const AdamStep& step)
      : beta1(set1(step.beta1)), beta2(set1(step.beta2)), scale(set1(step.scale)), eps(set1(step.eps)) {}
};

enum Phase { kFirst = 1, kLast = 2, kAccumulate = 4, kCompact = 8 };

ADGAN_INLINE F moved(F w, F m, F v, const AdamVectors& adam) {
  return fnma(adam.scale, div(m, add(sqrt(v), adam.eps)), w);
}

// The first step: √V = |g|. (Not lr · sign(g): eps counts where g is small.)
ADGAN_INLINE F moved_first(F w, F g, const AdamVectors& adam) {
  return fnma(adam.scale, div(g, add(abs(g), adam.eps)), w);
}

// The weight w after gradient g; m and v are those of the step before, unless it is the first, and become this step's.
template <int PHASE>
ADGAN_INLINE F stepped(F w, F g, F& m, F& v, const AdamVectors& adam) {
  if constexpr (PHASE & kFirst) {
    m = g;
    v = mul(g, g);
    return moved_first(w, g, adam);
  } else {
    m = fma(adam.beta1, m, g);
    v = fma(adam.beta2, v, mul(g, g));
    return moved(w, m, v, adam);
  }
}

template <int PHASE>
ADGAN_INLINE void update(F g, const State& state, std::int64_t at, const AdamVectors& adam) {
  F m = g, v = g;
  if constexpr (!(PHASE & kFirst)) {
    const F stored = load(state.m + at);
    m = PHASE & kCompact ? high_of(stored) : stored;
    v = PHASE & kCompact ? low_of(stored) : load(state.v + at);
  }
  const F w = stepped<PHASE>(load(state.old + at), g, m, v, adam);
  if constexpr (!(PHASE & kLast)) {
    store(state.m + at, PHASE & kCompact ? pack_bf16(m, v) : m);
    if constexpr (!(PHASE & kCompact)) store(state.v + at, v);
  }
  store(state.value + at, w);
}

template <int PHASE>
static void adam_phase(const State& s, const float* gradient, std::int64_t n, const AdamStep& step) {
  const AdamVectors adam(step);
  each_vector(n, [&](std::int64_t i, int lanes) {
    const F g = load_up_to(gradient + i, lanes);
    F m = g, v = g;
    if constexpr (!(PHASE & kFirst)) {
      m = load_up_to(s.m + i, lanes);
      v = load_up_to(s.v + i, lanes);
    }
    const F w = stepped<PHASE>(load_up_to(s.old + i, lanes), g, m, v, adam);
    if constexpr (!(PHASE & kLast)) {
      store_up_to(s.m + i, m, lanes);
      store_up_to(s.v + i, v, lanes);
    }
    store_up_to(s.value + i, w, lanes);
  });
}

static void adam(const State& state, const float* gradient, std::int64_t n, const AdamStep& step) {
  switch ((step.first_step ? kFirst : 0) | (step.last_step ? kLast : 0)) {
    case 0: return adam_phase<0>(state, gradient, n, step);
    case kFirst: return adam_phase<kFirst>(state, gradient, n, step);
    case kLast: return adam_phase<kLast>(state, gradient, n, step);
    default: return adam_phase<kFirst | kLast>(state, gradient, n, step);
  }
}

// The operator's form. A template of the type and two flags, so that each loop is free of branches and becomes vectors.
template <typename T, bool FIRST, bool LAST>
static void stacked_adam_phase(T* param, T* exp_avg, T* exp_avg_sq, const T* grad, const T* old_param, std::int64_t n,
                               StackedAdam<T> s) {
  ADGAN_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i];
    T m = g * s.one_minus_beta1;
    T v = (g * s.one_minus_beta2) * g;
    if constexpr (!FIRST) {
      m = m + exp_avg[i] * s.beta1;
      v = v + exp_avg_sq[i] * s.beta2;
    }
    if constexpr (!LAST) {
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
static void stacked_adam(T* param, T* exp_avg, T* exp_avg_sq, const T* grad, const T* old_param, std::int64_t n,
                         StackedAdam<T> s) {
  const auto first = s.last_step ? stacked_adam_phase<T, true, true> : stacked_adam_phase<T, true, false>;
  const auto later = s.last_step ? stacked_adam_phase<T, false, true> : stacked_adam_phase<T, false, false>;
  (s.first_step ? first : later)(param, exp_avg, exp_avg_sq, grad, old_param, n, s);
}
