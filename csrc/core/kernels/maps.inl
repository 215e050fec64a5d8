// Linear layers and convolutions (see kernels.h): forward, gradient of the input, gradient of the weights with Adam.

constexpr int kMostVectors = 8;  // outputs held in registers at once: more are done in turns

static std::int64_t list_rows(const MapShape& shape, const float* x, int stride, int positions, RowLists lists) {
  std::int64_t found = 0;
  for (int p = 0; p < positions; ++p) {
    for (int b = 0; b < shape.blocks; ++b) {
      const int first = b * shape.block;
      const int channels = shape.inputs - first < shape.block ? shape.inputs - first : shape.block;
      const std::int64_t list = (static_cast<std::int64_t>(p) * shape.blocks + b) * shape.block;
      int count = 0;
      for (int c = 0; c < channels; c += L) {
        const int n = channels - c < L ? channels - c : L;
        count += append(x + static_cast<std::int64_t>(p) * stride + first + c, n, c * shape.stride, shape.stride,
                        lists.offset + list + count, lists.value + list + count);
      }
      lists.count[p * shape.blocks + b] = count;
      found += count;
    }
  }
  return found;
}

static std::int64_t list_columns(const float* x, std::int64_t sample_stride, int samples, int stride, int positions,
                                 int channels, ColumnLists lists, float* scratch) {
  std::int64_t found = 0;
  const int total = samples * positions;
  for (int first = 0; first < channels; first += L) {
    const int width = channels - first < L ? channels - first : L;
    for (int s = 0; s < samples; ++s) {  // a transposed copy of some channels
      for (int p = 0; p < positions; ++p) {
        const float* row = x + s * sample_stride + static_cast<std::int64_t>(p) * stride + first;
        for (int c = 0; c < width; ++c) scratch[c * total + s * positions + p] = row[c];
      }
    }
    for (int c = 0; c < width; ++c) {
      const std::int64_t list = static_cast<std::int64_t>(first + c) * lists.stride;
      int count = 0;
      for (int p = 0; p < total; p += L) {
        const int n = total - p < L ? total - p : L;
        count += append(scratch + c * total + p, n, p, 1, lists.position + list + count, lists.value + list + count);
      }
      lists.count[first + c] = count;
      found += count;
    }
  }
  return found;
}

// -- forward -------------------------------------------------------------------------------------------------------

// out[0 : NV vectors] += Σ value[i] · (row at offset[i]). Summed from zero: what is there already may be far larger,
// and a sum of sums has half the error (of an image, in the paper's setting; docs/numerics.md).
template <int NV>
ADGAN_INLINE void add_rows(const float* rows, const int* offset, const float* value, int count, float* out) {
  F sum_a[NV];
  ADGAN_UNROLL
  for (int v = 0; v < NV; ++v) sum_a[v] = zero();
  int i = 0;
  if constexpr (NV <= 4) {  // two sums, since one would wait for its own last addition
    F sum_b[NV];
    ADGAN_UNROLL
    for (int v = 0; v < NV; ++v) sum_b[v] = zero();
    for (; i + 2 <= count; i += 2) {
      const F xa = set1(value[i]), xb = set1(value[i + 1]);
      const float *ra = rows + offset[i], *rb = rows + offset[i + 1];
      ADGAN_UNROLL
      for (int v = 0; v < NV; ++v) sum_a[v] = fma(xa, load(ra + v * L), sum_a[v]);
      ADGAN_UNROLL
      for (int v = 0; v < NV; ++v) sum_b[v] = fma(xb, load(rb + v * L), sum_b[v]);
    }
    ADGAN_UNROLL
    for (int v = 0; v < NV; ++v) sum_a[v] = add(sum_a[v], sum_b[v]);
  }
  for (; i < count; ++i) {
    const F x = set1(value[i]);
    const float* row = rows + offset[i];
    ADGAN_UNROLL
    for (int v = 0; v < NV; ++v) sum_a[v] = fma(x, load(row + v * L), sum_a[v]);
  }
  ADGAN_UNROLL
  for (int v = 0; v < NV; ++v) store(out + v * L, add(load(out + v * L), sum_a[v]));
}

template <int NV>
static void forward_vectors(const MapShape& shape, const float* weights, const Connection* connections,
                            const int* first_connection, RowLists lists, int samples, int inputs_each, int outputs_each,
                            float* out, int vector) {
  for (int b = 0; b < shape.blocks; ++b) {
    for (int t = 0; t < shape.taps; ++t) {
      const float* rows = weights + shape.row(b * shape.block, t) + vector * L;
      // Between them the connections fetch the next block's rows for this tap, before they are due.
      const float* next = rows + static_cast<std::int64_t>(shape.block) * shape.stride;
      const int joined = (first_connection[t + 1] - first_connection[t]) * samples;
      const int share = b + 1 < shape.blocks && joined > 0 ? (shape.block + joined - 1) / joined : 0;
      int fetched = 0;
      for (int s = 0; s < samples; ++s) {
        for (int i = first_connection[t]; i < first_connection[t + 1]; ++i) {
          for (int end = fetched + share < shape.block ? fetched + share : shape.block; fetched < end; ++fetched) {
            ADGAN_UNROLL
            for (int v = 0; v < NV; ++v) {
              __builtin_prefetch(next + static_cast<std::int64_t>(fetched) * shape.stride + v * L, 0, 2);
            }
          }
          const std::int64_t list =
              (static_cast<std::int64_t>(s) * inputs_each + connections[i].input) * shape.blocks + b;
          const std::int64_t to = static_cast<std::int64_t>(s) * outputs_each + connections[i].output;
          add_rows<NV>(rows, lists.offset + list * shape.block, lists.value + list * shape.block, lists.count[list],
                       out + to * shape.ld + vector * L);
        }
      }
    }
  }
}

// CALL(NV) for NV vectors from `vector` on, until all outputs are done.
#define ADGAN_BY_VECTORS(OUTPUTS, CALL)                                  \
  for (int vector = 0; vector * L < (OUTPUTS); vector += kMostVectors) { \
    const int count = ((OUTPUTS) - vector * L + L - 1) / L;              \
    switch (count < kMostVectors ? count : kMostVectors) {               \
      case 1: CALL(1); break;                                            \
      case 2: CALL(2); break;                                            \
      case 3: CALL(3); break;                                            \
      case 4: CALL(4); break;                                            \
      case 5: CALL(5); break;                                            \
      case 6: CALL(6); break;                                            \
      case 7: CALL(7); break;                                            \
      default: CALL(8); break;                                           \
    }                                                                    \
  }

static void map_forward(const MapShape& shape, const float* weights, const Connection* connections,
                        const int* first_connection, RowLists lists, int samples, int inputs_each, int outputs_each,
                        float* out) {
#define ADGAN_CALL(NV)                                                                                               \
  forward_vectors<NV>(shape, weights, connections, first_connection, lists, samples, inputs_each, outputs_each, out, \
                      vector)
  ADGAN_BY_VECTORS(shape.outputs, ADGAN_CALL)
#undef ADGAN_CALL
}

// -- backward ------------------------------------------------------------------------------------------------------

// gx of one channel at R positions: its weights against what the taps see of g.
template <int R>
ADGAN_INLINE void dots(const MapShape& shape, const MapBackward& job, const float* weights, const int* position,
                       float* gx) {
  F sums[R];
  ADGAN_UNROLL
  for (int r = 0; r < R; ++r) sums[r] = zero();
  const int* row = job.output_row;
  for (int t = 0; t < shape.taps; ++t, row += job.positions, weights += shape.ld) {
    const float* g[R];
    ADGAN_UNROLL
    for (int r = 0; r < R; ++r) g[r] = job.g + row[position[r]];
    for (int n = 0; n < shape.outputs; n += L) {
      const F w = load(weights + n);
      ADGAN_UNROLL
      for (int r = 0; r < R; ++r) sums[r] = fma(w, load(g[r] + n), sums[r]);
    }
  }
  if constexpr (R == 8) {
    float total[8];
    sums_of_8(sums, total);
    for (int r = 0; r < R; ++r) gx[job.gx_offset[position[r]]] += total[r];
    return;
  }
  ADGAN_UNROLL
  for (int r = 0; r < R; ++r) {
    gx[job.gx_offset[position[r]]] += sum(sums[r]);
  }
}

static inline void input_gradient(const MapShape& shape, const MapBackward& job, int channel) {
  const float* weights = job.weights + shape.row(channel, 0);
  const int* position = job.lists.position + static_cast<std::int64_t>(channel) * job.lists.stride;
  float* gx = job.gx + channel;
  int left = job.lists.count[channel];
  for (; left >= 8; left -= 8, position += 8) dots<8>(shape, job, weights, position, gx);
  for (; left >= 4; left -= 4, position += 4) dots<4>(shape, job, weights, position, gx);
  if (left == 3) dots<3>(shape, job, weights, position, gx);
  if (left == 2) dots<2>(shape, job, weights, position, gx);
  if (left == 1) dots<1>(shape, job, weights, position, gx);
}

constexpr int kMostPositions = 512;  // in one plain sum; more are summed in parts, since rounding grows with the length

// sums[0 : NV vectors] = Σ value[i] · (row of g at position[i]).
template <int NV>
ADGAN_INLINE void sum_positions(const float* g, const int* row, const int* position, const float* value, int count,
                                F* sums) {
  ADGAN_UNROLL
  for (int v = 0; v < NV; ++v) sums[v] = zero();
  for (int i = 0; i < count; ++i) {
    const F x = set1(value[i]);
    const float* from = g + row[position[i]];
    ADGAN_UNROLL
    for (int v = 0; v < NV; ++v) sums[v] = fma(x, load(from + v * L), sums[v]);
  }
}

// Adam with a gradient in registers, for the weights at a place; or the gradient is added to. The row that is next, so
// much further, is fetched: the processor's own prefetching, page by page, fetches it too late.
template <int NV, int PHASE>
ADGAN_INLINE void apply_gradient(const MapBackward& job, const State& state, const F* gradient, std::int64_t at,
                                 std::int64_t to_next, const AdamVectors& adam) {
  ADGAN_UNROLL
  for (int v = 0; v < NV; ++v) {
    if constexpr (PHASE == kAccumulate) {
      store(job.gradient + at + v * L, add(load(job.gradient + at + v * L), gradient[v]));
    } else {
      update<PHASE>(gradient[v], state, at + v * L, adam);
      const std::int64_t next = at + v * L + to_next;
      __builtin_prefetch(state.old + next, 0, 2);
      if constexpr (!(PHASE & kFirst)) {
        __builtin_prefetch(state.m + next, 1, 2);
        if constexpr (!(PHASE & kCompact)) __builtin_prefetch(state.v + next, 1, 2);
      }
    }
  }
}

// dW of one channel, tap by tap in registers, then Adam on the spot (or added to the gradient).
template <int NV, int PHASE>
ADGAN_INLINE void weight_gradient(const MapShape& shape, const MapBackward& job, int channel, int vector,
                                  const AdamVectors& adam) {
  const std::int64_t list = static_cast<std::int64_t>(channel) * job.lists.stride;
  const int* position = job.lists.position + list;
  const float* value = job.lists.value + list;
  const int count = job.lists.count[channel];
  std::int64_t at = shape.row(channel, 0) + vector * L;
  const State state = job.state;  // by value: a store could change what a reference refers to
  const int* row = job.output_row;
  const float* g = job.g + vector * L;
  for (int t = 0; t < shape.taps; ++t, row += job.positions, at += shape.ld) {
    F sums[NV];
    sum_positions<NV>(g, row, position, value, count < kMostPositions ? count : kMostPositions, sums);
    for (int first = kMostPositions; first < count; first += kMostPositions) {
      F more[NV];
      const int left = count - first;
      sum_positions<NV>(g, row, position + first, value + first, left < kMostPositions ? left : kMostPositions, more);
      ADGAN_UNROLL
      for (int v = 0; v < NV; ++v) sums[v] = add(sums[v], more[v]);
    }
    apply_gradient<NV, PHASE>(job, state, sums, at, shape.stride, adam);
  }
}

template <int NV, int PHASE>
static void weight_gradients(const MapShape& shape, const MapBackward& job, int channel, int vector) {
  const AdamVectors adam(job.adam);
  weight_gradient<NV, PHASE>(shape, job, channel, vector, adam);
}

template <int PHASE>
static void weight_gradients(const MapShape& shape, const MapBackward& job, int channel) {
#define ADGAN_CALL(NV) weight_gradients<NV, PHASE>(shape, job, channel, vector)
  ADGAN_BY_VECTORS(shape.outputs, ADGAN_CALL)
#undef ADGAN_CALL
}

// -- both gradients on one reading of g ----------------------------------------------------------------------------

constexpr int kMostJoint = 128;  // positions whose sums of gx wait in the first-level cache

// What `input_gradient` and `weight_gradient` make, to the last bit: each sum keeps its order. The weights of a tap,
// all its outputs, and its gradient are in registers; each vector of g that is loaded meets both.
template <int NV, int PHASE>
static void both_gradients(const MapShape& shape, const MapBackward& job, int channel) {
  const AdamVectors adam(job.adam);
  const std::int64_t list = static_cast<std::int64_t>(channel) * job.lists.stride;
  const int* position = job.lists.position + list;
  const float* value = job.lists.value + list;
  const int count = job.lists.count[channel];
  const State state = job.state;
  alignas(64) float of_gx[kMostJoint * L];
  for (int i = 0; i < count; ++i) store(of_gx + i * L, zero());
  std::int64_t at = shape.row(channel, 0);
  const int* row = job.output_row;
  for (int t = 0; t < shape.taps; ++t, row += job.positions, at += shape.ld) {
    F w[NV], sums[NV];
    ADGAN_UNROLL
    for (int v = 0; v < NV; ++v) w[v] = load(job.weights + at + v * L);
    ADGAN_UNROLL
    for (int v = 0; v < NV; ++v) sums[v] = zero();
    for (int i = 0; i < count; ++i) {
      const F x = set1(value[i]);
      const float* const from = job.g + row[position[i]];
      F gx = load(of_gx + i * L);
      ADGAN_UNROLL
      for (int v = 0; v < NV; ++v) {
        const F g = load(from + v * L);
        sums[v] = fma(x, g, sums[v]);
        gx = fma(w[v], g, gx);
      }
      store(of_gx + i * L, gx);
    }
    apply_gradient<NV, PHASE>(job, state, sums, at, shape.stride, adam);
  }
  float* const gx = job.gx + channel;
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    F sums[8];
    ADGAN_UNROLL
    for (int r = 0; r < 8; ++r) sums[r] = load(of_gx + (i + r) * L);
    float total[8];
    sums_of_8(sums, total);
    for (int r = 0; r < 8; ++r) gx[job.gx_offset[position[i + r]]] += total[r];
  }
  for (; i < count; ++i) gx[job.gx_offset[position[i]]] += sum(load(of_gx + i * L));
}

// Whether it was done so: all outputs of a tap must fit into registers twice, and the positions into the cache.
template <int PHASE>
ADGAN_INLINE bool both_gradients(const MapShape& shape, const MapBackward& job, int channel) {
  if (shape.outputs > kMostVectors * L || job.lists.count[channel] > kMostJoint) return false;
  switch ((shape.outputs + L - 1) / L) {
    case 2: both_gradients<2, PHASE>(shape, job, channel); return true;
    case 3: both_gradients<3, PHASE>(shape, job, channel); return true;
    case 4: both_gradients<4, PHASE>(shape, job, channel); return true;
    case 5: both_gradients<5, PHASE>(shape, job, channel); return true;
    case 6: both_gradients<6, PHASE>(shape, job, channel); return true;
    case 7: both_gradients<7, PHASE>(shape, job, channel); return true;
    case 8: both_gradients<8, PHASE>(shape, job, channel); return true;
    default: return false;
  }
}

// body(PHASE), as a constant.
template <typename Body>
ADGAN_INLINE void by_phase(const MapBackward& job, const Body& body) {
  if (job.gradient) return body(std::integral_constant<int, kAccumulate>{});
  switch ((job.adam.first_step ? kFirst : 0) | (job.adam.last_step ? kLast : 0) | (job.compact ? kCompact : 0)) {
    case 0: return body(std::integral_constant<int, 0>{});
    case kFirst: return body(std::integral_constant<int, kFirst>{});
    case kLast: return body(std::integral_constant<int, kLast>{});
    case kCompact: return body(std::integral_constant<int, kCompact>{});
    case kCompact | kFirst: return body(std::integral_constant<int, kCompact | kFirst>{});
    case kCompact | kLast: return body(std::integral_constant<int, kCompact | kLast>{});
    default: return body(std::integral_constant<int, kFirst | kLast>{});
  }
}

static void map_backward(const MapShape& shape, const MapBackward& job) {
  by_phase(job, [&](auto phase) {
    for (int c = 0; c < job.channels; ++c) {
      if constexpr (L == 16) {  // 32 registers
        if (job.gx && job.learn && both_gradients<decltype(phase)::value>(shape, job, c)) continue;
      }
      if (job.gx) input_gradient(shape, job, c);
      if (job.learn) weight_gradients<decltype(phase)::value>(shape, job, c);
    }
  });
}
