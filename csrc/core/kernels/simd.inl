// Vectors of float for one instruction set: included inside that set's namespace and target region (all.inl).
//
// F is a vector of L floats, its lanes. Functions ending in _n touch the first n lanes only (1 <= n <= L).

#define ADGAN_INLINE static inline __attribute__((always_inline))
#define ADGAN_UNROLL _Pragma("GCC unroll 16")

// The loop's iterations touch nothing of each other's; the pointers may still be equal (an in-place update), which is
// why this is used and not __restrict.
#if defined(__clang__)
#define ADGAN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define ADGAN_INDEPENDENT _Pragma("GCC ivdep")
#endif

#if defined(ADGAN_ISA_AVX512)

using F = __m512;
constexpr int L = 16;

static inline __mmask16 mask_of(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
static inline F zero() { return _mm512_setzero_ps(); }
static inline F set1(float x) { return _mm512_set1_ps(x); }
static inline F load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
static inline F load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(mask_of(n), p); }
static inline void store_n(float* p, F x, int n) { _mm512_mask_storeu_ps(p, mask_of(n), x); }
static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }    // a b + c
static inline F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
static inline F sqrt(F x) { return _mm512_sqrt_ps(x); }
static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
static inline F min(F a, F b) { return _mm512_min_ps(a, b); }
static inline F abs(F x) { return _mm512_abs_ps(x); }
// x > y ? a : b
static inline F if_greater(F x, F y, F a, F b) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_GT_OQ), b, a);
}
static inline float sum(F x) {
  x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4e));
  x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xb1));
  x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0x4e));
  return _mm512_cvtss_f32(_mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1)));
}
// sums[i] = sum(x[i]) of eight vectors, to the last bit, in a third of the instructions.
static inline void sums_of_8(const F* x, float* sums) {
  F pair[4], four[2];
  for (int i = 0; i < 4; ++i) {
    pair[i] = _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
  }
  for (int i = 0; i < 2; ++i) {
    const __m512d a = _mm512_castps_pd(pair[2 * i]), b = _mm512_castps_pd(pair[2 * i + 1]);
    four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  const F halves =
      _mm512_add_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x44), _mm512_shuffle_f32x4(four[0], four[1], 0xee));
  const F all = _mm512_add_ps(halves, _mm512_shuffle_f32x4(halves, halves, 0xb1));
  _mm_storeu_ps(sums, _mm512_castps512_ps128(all));
  _mm_storeu_ps(sums + 4, _mm512_extractf32x4_ps(all, 2));
}
static inline F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// x 2^n, n whole
static inline F scale_by_power(F x, F n) { return _mm512_scalef_ps(x, n); }
// A positive, normal x as mantissa, from 1/2 to 1, times 2^exponent.
static inline F split_exponent(F x, F* exponent) {
  *exponent = _mm512_add_ps(_mm512_getexp_ps(x), set1(1.0f));
  return _mm512_getmant_ps(x, _MM_MANT_NORM_p5_1, _MM_MANT_SIGN_src);
}
// Two numbers in one lane, each rounded to its upper 16 bits (bfloat16).
static inline F pack_bf16(F high, F low) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i h = _mm512_add_epi32(_mm512_castps_si512(high), half);
  const __m512i l = _mm512_add_epi32(_mm512_castps_si512(low), half);
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_and_si512(h, _mm512_set1_epi32(-65536)), _mm512_srli_epi32(l, 16)));
}
static inline F high_of(F x) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(-65536)));
}
static inline F low_of(F x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16)); }

// Appends the entries of x (n of them) that are not zero to a list: value, and index + step · its
// place. May write up to L entries beyond the new end. Returns how many were added.
static inline int append(const float* x, int n, int index, int step, int* indices, float* values) {
  const __m512 v = load_n(x, n);
  const __mmask16 keep = _mm512_cmp_ps_mask(v, zero(), _CMP_NEQ_UQ);
  const __m512i ramp = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i at = _mm512_add_epi32(_mm512_mullo_epi32(ramp, _mm512_set1_epi32(step)), _mm512_set1_epi32(index));
  _mm512_storeu_si512(indices, _mm512_maskz_compress_epi32(keep, at));
  _mm512_storeu_ps(values, _mm512_maskz_compress_ps(keep, v));
  return __builtin_popcount(keep);
}

#elif defined(ADGAN_ISA_AVX2)

using F = __m256;
constexpr int L = 8;

static inline __m256i mask_of(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline F zero() { return _mm256_setzero_ps(); }
static inline F set1(float x) { return _mm256_set1_ps(x); }
static inline F load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, F x) { _mm256_storeu_ps(p, x); }
static inline F load_n(const float* p, int n) { return _mm256_maskload_ps(p, mask_of(n)); }
static inline void store_n(float* p, F x, int n) { _mm256_maskstore_ps(p, mask_of(n), x); }
static inline F add(F a, F b) { return _mm256_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm256_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
static inline F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
static inline F sqrt(F x) { return _mm256_sqrt_ps(x); }
static inline F max(F a, F b) { return _mm256_max_ps(a, b); }
static inline F min(F a, F b) { return _mm256_min_ps(a, b); }
static inline F abs(F x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
static inline F if_greater(F x, F y, F a, F b) { return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_GT_OQ)); }
static inline float sum(F x) {
  x = _mm256_hadd_ps(x, x);
  x = _mm256_hadd_ps(x, x);
  return _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
}
static inline void sums_of_8(const F* x, float* sums) {
  F pair[4];
  for (int i = 0; i < 4; ++i) pair[i] = _mm256_hadd_ps(x[2 * i], x[2 * i + 1]);
  const F a = _mm256_hadd_ps(pair[0], pair[1]), b = _mm256_hadd_ps(pair[2], pair[3]);
  _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)));
}
static inline F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F scale_by_power(F x, F n) {  // in two halves, so that 2^n may be subnormal or at the top
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127), rest = _mm256_sub_epi32(whole, half);
  x = _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}
static inline F split_exponent(F x, F* exponent) {
  const __m256i bits = _mm256_castps_si256(x);
  *exponent = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(126)));
  const __m256i fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007fffff));
  return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f000000)));
}
static inline F pack_bf16(F high, F low) {
  const __m256i half = _mm256_set1_epi32(0x8000);
  const __m256i h = _mm256_add_epi32(_mm256_castps_si256(high), half);
  const __m256i l = _mm256_add_epi32(_mm256_castps_si256(low), half);
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(h, _mm256_set1_epi32(-65536)), _mm256_srli_epi32(l, 16)));
}
static inline F high_of(F x) {
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(-65536)));
}
static inline F low_of(F x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16)); }

static inline int append(const float* x, int n, int index, int step, int* indices, float* values) {
  int count = 0;
  for (int i = 0; i < n; ++i) {
    indices[count] = index + i * step;
    values[count] = x[i];
    count += x[i] != 0.0f;
  }
  return count;
}

#else  // four lanes: SSE2, NEON, or whatever the compiler makes of it

typedef float F __attribute__((vector_size(16)));
typedef int I __attribute__((vector_size(16)));
typedef unsigned U __attribute__((vector_size(16)));
constexpr int L = 4;

static inline F set1(float x) { return F{x, x, x, x}; }
static inline F zero() { return set1(0.0f); }
static inline F load(const float* p) {
  F x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
static inline void store(float* p, F x) { __builtin_memcpy(p, &x, sizeof x); }
static inline F load_n(const float* p, int n) {
  F x = zero();
  for (int i = 0; i < n; ++i) x[i] = p[i];
  return x;
}
static inline void store_n(float* p, F x, int n) {
  for (int i = 0; i < n; ++i) p[i] = x[i];
}
static inline F add(F a, F b) { return a + b; }
static inline F sub(F a, F b) { return a - b; }
static inline F mul(F a, F b) { return a * b; }
static inline F div(F a, F b) { return a / b; }
#if defined(__ARM_NEON)
static inline F fma(F a, F b, F c) { return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline F fnma(F a, F b, F c) { return (F)vfmsq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline F sqrt(F x) { return (F)vsqrtq_f32((float32x4_t)x); }
#else
static inline F fma(F a, F b, F c) { return a * b + c; }
static inline F fnma(F a, F b, F c) { return c - a * b; }
#if defined(__SSE2__)
static inline F sqrt(F x) { return _mm_sqrt_ps(x); }
#else
static inline F sqrt(F x) {
  return F{__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
}
#endif
#endif
static inline F choose(I mask, F a, F b) { return (F)((mask & (I)a) | (~mask & (I)b)); }
static inline F max(F a, F b) { return choose(a > b, a, b); }
static inline F min(F a, F b) { return choose(a < b, a, b); }
static inline F abs(F x) { return (F)((I)x & I{0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff}); }
static inline F if_greater(F x, F y, F a, F b) { return choose(x > y, a, b); }
static inline float sum(F x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline void sums_of_8(const F* x, float* sums) {
  for (int i = 0; i < 8; ++i) sums[i] = sum(x[i]);
}
static inline F round(F x) {  // |x| < 2^22, which is so where it is used
  const F magic = set1(12582912.0f);
  return (x + magic) - magic;
}
static inline F scale_by_power(F x, F n) {
  const I whole = __builtin_convertvector(n, I), half = whole >> 1, rest = whole - half;
  x = x * (F)((half + 127) << 23);
  return x * (F)((rest + 127) << 23);
}
static inline F split_exponent(F x, F* exponent) {
  *exponent = __builtin_convertvector(((I)x >> 23) - 126, F);
  return (F)(((I)x & 0x007fffff) | 0x3f000000);
}
static inline F pack_bf16(F high, F low) {
  return (F)((((U)high + 0x8000u) & 0xffff0000u) | (((U)low + 0x8000u) >> 16));
}
static inline F high_of(F x) { return (F)((U)x & 0xffff0000u); }
static inline F low_of(F x) { return (F)((U)x << 16); }

static inline int append(const float* x, int n, int index, int step, int* indices, float* values) {
  int count = 0;
  for (int i = 0; i < n; ++i) {
    indices[count] = index + i * step;
    values[count] = x[i];
    count += x[i] != 0.0f;
  }
  return count;
}

#endif

// e^x - 1 for |x| up to ln 2 / 2 (Cephes' expf).
static inline F exp_near_one(F x) {
  F p = set1(1.9875691500e-4f);
  p = fma(p, x, set1(1.3981999507e-3f));
  p = fma(p, x, set1(8.3334519073e-3f));
  p = fma(p, x, set1(4.1665795894e-2f));
  p = fma(p, x, set1(1.6666665459e-1f));
  p = fma(p, x, set1(5.0000001201e-1f));
  return fma(p, mul(x, x), x);
}

// e^x to two units in the last place, clamped where float ends. NaN stays NaN: max and min give their second operand
// then.
static inline F exp(F x) {
  x = min(set1(88.72f), max(set1(-104.0f), x));
  const F n = round(mul(x, set1(1.44269504f)));
  F r = fnma(n, set1(0.693359375f), x);
  r = fnma(n, set1(-2.12194440e-4f), r);
  return scale_by_power(add(exp_near_one(r), set1(1.0f)), n);
}

// e^x - 1, where 1 would take the digits of a small x.
static inline F expm1(F x) { return if_greater(set1(0.34f), abs(x), exp_near_one(x), sub(exp(x), set1(1.0f))); }

static inline F tanh(F x) {
  const F size = abs(x), square = mul(x, x);
  F p = set1(-5.70498872745e-3f);  // near 0, where 1 - 2 / (e^2x + 1) cancels
  p = fma(p, square, set1(2.06390887954e-2f));
  p = fma(p, square, set1(-5.37397155531e-2f));
  p = fma(p, square, set1(1.33314422036e-1f));
  p = fma(p, square, set1(-3.33332819422e-1f));
  const F near = fma(mul(p, square), x, x);
  const F far = sub(set1(1.0f), div(set1(2.0f), add(exp(add(size, size)), set1(1.0f))));
  const F signed_far = if_greater(zero(), x, sub(zero(), far), far);
  return if_greater(set1(0.625f), size, near, signed_far);
}

static inline F sigmoid(F x) { return div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), x)))); }

// To one unit in the last place (Cephes' logf); of 0 it is -Inf, of less NaN.
static inline F log(F x) {
  const F least = set1(1.17549435e-38f), most = set1(3.4028234e38f), one = set1(1.0f);
  F exponent;  // of a subnormal number after it is made larger
  F m = split_exponent(if_greater(least, x, mul(x, set1(8388608.0f)), x), &exponent);
  exponent = if_greater(least, x, sub(exponent, set1(23.0f)), exponent);
  const F half_root = set1(0.70710678f);
  exponent = if_greater(half_root, m, sub(exponent, one), exponent);
  m = sub(if_greater(half_root, m, add(m, m), m), one);
  F p = set1(7.0376836292e-2f);
  p = fma(p, m, set1(-1.1514610310e-1f));
  p = fma(p, m, set1(1.1676998740e-1f));
  p = fma(p, m, set1(-1.2420140846e-1f));
  p = fma(p, m, set1(1.4249322787e-1f));
  p = fma(p, m, set1(-1.6668057665e-1f));
  p = fma(p, m, set1(2.0000714765e-1f));
  p = fma(p, m, set1(-2.4999993993e-1f));
  p = fma(p, m, set1(3.3333331174e-1f));
  const F square = mul(m, m);
  F y = fma(exponent, set1(-2.12194440e-4f), mul(mul(p, m), square));
  y = add(m, fnma(set1(0.5f), square, y));
  y = fma(exponent, set1(0.693359375f), y);
  const F outside = if_greater(zero(), x, set1(__builtin_nanf("")), add(x, set1(-__builtin_inff())));  // NaN: NaN
  return if_greater(x, zero(), if_greater(x, most, x, y), outside);
}

// The normal distribution's function Φ: half of erfc(-x / √2), to 1e-7 of itself (Press et al., Numerical Recipes).
static inline F normal_cdf(F x) {
  const F size = mul(abs(x), set1(0.70710678f)), t = div(set1(1.0f), fma(size, set1(0.5f), set1(1.0f)));
  F p = set1(0.17087277f);
  p = fma(p, t, set1(-0.82215223f));
  p = fma(p, t, set1(1.48851587f));
  p = fma(p, t, set1(-1.13520398f));
  p = fma(p, t, set1(0.27886807f));
  p = fma(p, t, set1(-0.18628806f));
  p = fma(p, t, set1(0.09678418f));
  p = fma(p, t, set1(0.37409196f));
  p = fma(p, t, set1(1.00002368f));
  p = fma(p, t, set1(-1.26551223f));
  const F tail = mul(mul(set1(0.5f), t), exp(fnma(size, size, p)));
  return if_greater(x, zero(), sub(set1(1.0f), tail), tail);
}

// The error function, to 1e-7 of itself: its Taylor series near 0, where 2 Φ(√2 x) - 1 cancels.
static inline F erf(F x) {
  const F square = mul(x, x);
  F p = set1(-1.4925650e-5f);  // (-1)ⁿ 2 / (√π n! (2 n + 1)), the last first
  p = fma(p, square, set1(1.2055333e-4f));
  p = fma(p, square, set1(-8.5483270e-4f));
  p = fma(p, square, set1(5.2239776e-3f));
  p = fma(p, square, set1(-2.6866171e-2f));
  p = fma(p, square, set1(1.1283792e-1f));
  p = fma(p, square, set1(-3.7612639e-1f));
  const F near = mul(x, fma(p, square, set1(1.1283792f)));
  const F twice = normal_cdf(mul(x, set1(1.41421356f)));
  return if_greater(set1(0.75f), abs(x), near, sub(add(twice, twice), set1(1.0f)));
}

// A sum of many vectors. A float that has taken a million summands has lost four digits; so blocks of `kChain` are
// summed plainly, and their sums with what rounding takes from them (Kahan 1965).
constexpr int kChain = 32;

class LongSum {
 public:
  LongSum() : total_(zero()), lost_(zero()) {}  // written out: an implicit one is not compiled for this instruction set
  void add_block(F block) {
    const F y = sub(block, lost_), next = add(total_, y);
    lost_ = sub(sub(next, total_), y);
    total_ = next;
  }
  F total() const { return total_; }
  float of_lanes() const {  // rounded once
    float totals[L], lost[L];
    store(totals, total_);
    store(lost, lost_);
    double sum = 0;
    for (int i = 0; i < L; ++i) sum += static_cast<double>(totals[i]) - lost[i];
    return static_cast<float>(sum);
  }

 private:
  F total_, lost_;
};

// body(i, n) for the vectors of a range: n is L, or less for the last.
template <typename Body>
ADGAN_INLINE void each_vector(std::int64_t count, const Body& body) {
  std::int64_t i = 0;
  for (; i + L <= count; i += L) body(i, L);
  if (i < count) body(i, static_cast<int>(count - i));
}

// body(first, count) for blocks of kChain of a range.
template <typename Body>
ADGAN_INLINE void each_block(std::int64_t count, const Body& body) {
  for (std::int64_t first = 0; first < count; first += kChain) {
    body(first, count - first < kChain ? count - first : kChain);
  }
}

ADGAN_INLINE F load_up_to(const float* p, int n) { return n == L ? load(p) : load_n(p, n); }
ADGAN_INLINE void store_up_to(float* p, F x, int n) {
  if (n == L) {
    store(p, x);
  } else {
    store_n(p, x, n);
  }
}
