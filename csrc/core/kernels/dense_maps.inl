// Maps whose input is not behind a ReLU (kernels.h): all of it takes part, so that a tile of the result, some rows by
// some vectors, stays in registers, and each vector of an operand that is loaded meets all rows of the tile. The order
// of a sum is the same in each tile, whatever its size: by channel, by position, or by tap and vector of outputs.

// Of 32 registers, or of 16, what a tile may take; the rest hold what meets it.
constexpr int kTileSums = L == 16 ? 24 : 12;
constexpr int kTileVectors = L == 16 ? 4 : 2;
constexpr int kTileRows = 8;  // at most: each has a pointer
constexpr int rows_of_tile(int vectors) { return kTileSums / vectors < kTileRows ? kTileSums / vectors : kTileRows; }

// body(N) with a number from 1 to MOST as a constant.
template <int MOST, typename Body>
ADGAN_INLINE void with_constant(int n, const Body& body) {
  if (n == MOST) return body(std::integral_constant<int, MOST>{});
  if constexpr (MOST > 1) with_constant<MOST - 1>(n, body);
}

// body(vector, NV) for the vectors of some outputs, kTileVectors at a time.
template <typename Body>
ADGAN_INLINE void by_vectors(int outputs, const Body& body) {
  const int all = (outputs + L - 1) / L;
  for (int vector = 0; vector < all; vector += kTileVectors) {
    const int count = all - vector < kTileVectors ? all - vector : kTileVectors;
    with_constant<kTileVectors>(count, [&](auto constant) { body(vector, constant); });
  }
}

// -- forward -------------------------------------------------------------------------------------------------------

constexpr int kMostChannels = 32;  // in one plain sum (docs/numerics.md)

// out[r][0 : NV vectors] += Σ x[r][c] · (row c of the weights), summed from zero.
template <int R, int NV>
static void rows_by_weights(const float* weights, std::int64_t stride, int channels, const float* const* x,
                            float* const* out) {
  const float* from[R];
  F sums[R][NV];
  ADGAN_UNROLL for (int r = 0; r < R; ++r) {
    from[r] = x[r];
    ADGAN_UNROLL for (int v = 0; v < NV; ++v) sums[r][v] = zero();
  }
  for (int c = 0; c < channels; ++c, weights += stride) {
    F w[NV];
    ADGAN_UNROLL for (int v = 0; v < NV; ++v) w[v] = load(weights + v * L);
    ADGAN_UNROLL for (int r = 0; r < R; ++r) {
      const F factor = set1(from[r][c]);
      ADGAN_UNROLL for (int v = 0; v < NV; ++v) sums[r][v] = fma(factor, w[v], sums[r][v]);
    }
  }
  ADGAN_UNROLL for (int r = 0; r < R; ++r) {
    ADGAN_UNROLL for (int v = 0; v < NV; ++v) store(out[r] + v * L, add(load(out[r] + v * L), sums[r][v]));
  }
}

// One tap's part from some channels: all connections, of all samples, in tiles of nearly the same size.
template <int NV>
static void dense_tap(const MapShape& shape, const float* weights, int channels, const float* next, int next_channels,
                      const Connection* connections, int joined, const DenseInput& x, int outputs_each, float* out) {
  constexpr int R = rows_of_tile(NV);
  const int all = joined * x.samples, tiles = (all + R - 1) / R;
  int sample = 0, i = 0, fetched = 0;
  for (int tile = 0, done = 0; tile < tiles; ++tile) {
    const int rows = (all - done + tiles - tile - 1) / (tiles - tile);
    const float* from[R];
    float* to[R];
    for (int r = 0; r < rows; ++r) {
      from[r] = x.row(sample, connections[i].input);
      to[r] = out + (static_cast<std::int64_t>(sample) * outputs_each + connections[i].output) * shape.ld;
      if (++i == joined) {
        i = 0;
        ++sample;
      }
    }
    done += rows;
    // Between them the tiles fetch the rows that come next, which lie too far apart for the processor to foresee.
    for (const int end = static_cast<int>(static_cast<std::int64_t>(next_channels) * done / all); fetched < end;
         ++fetched) {
      ADGAN_UNROLL for (int v = 0; v < NV; ++v) {
        __builtin_prefetch(next + static_cast<std::int64_t>(fetched) * shape.stride + v * L, 0, 2);
      }
    }
    with_constant<R>(rows, [&](auto constant) {
      rows_by_weights<decltype(constant)::value, NV>(weights, shape.stride, channels, from, to);
    });
  }
}

static void dense_forward(const MapShape& shape, const float* weights, const Connection* connections,
                          const int* first_connection, const DenseInput& x, int outputs_each, float* out) {
  const int block = shape.block < kMostChannels ? shape.block : kMostChannels;
  const auto channels_from = [&](int first) { return shape.inputs - first < block ? shape.inputs - first : block; };
  by_vectors(shape.outputs, [&](int vector, auto constant) {
    constexpr int NV = decltype(constant)::value;
    for (int first = 0; first < shape.inputs; first += block) {
      for (int t = 0; t < shape.taps; ++t) {
        const bool last = t + 1 == shape.taps;
        const int next = last ? first + channels_from(first) : first;
        dense_tap<NV>(shape, weights + shape.row(first, t) + vector * L, channels_from(first),
                      weights + shape.row(next, last ? 0 : t + 1) + vector * L, channels_from(next),
                      connections + first_connection[t], first_connection[t + 1] - first_connection[t], x.from(first),
                      outputs_each, out + vector * L);
      }
    }
  });
}

// -- backward ------------------------------------------------------------------------------------------------------

constexpr int kDotChannels = 4, kDotPositions = L == 16 ? 4 : 2;

// gx of C channels at P positions: their weights against what the taps see of g. The sums are those of dots().
template <int C, int P>
static void dense_dots(const MapShape& shape, const MapBackward& job, const float* weights, int position, float* gx) {
  F sums[P][C];
  ADGAN_UNROLL for (int p = 0; p < P; ++p) { ADGAN_UNROLL for (int c = 0; c < C; ++c) sums[p][c] = zero(); }
  const int* row = job.output_row + position;
  for (int t = 0; t < shape.taps; ++t, row += job.positions, weights += shape.ld) {
    const float* g[P];
    ADGAN_UNROLL for (int p = 0; p < P; ++p) g[p] = job.g + row[p];
    for (int n = 0; n < shape.outputs; n += L) {
      F w[C];
      ADGAN_UNROLL for (int c = 0; c < C; ++c) w[c] = load(weights + c * static_cast<std::int64_t>(shape.stride) + n);
      ADGAN_UNROLL for (int p = 0; p < P; ++p) {
        const F from = load(g[p] + n);
        ADGAN_UNROLL for (int c = 0; c < C; ++c) sums[p][c] = fma(w[c], from, sums[p][c]);
      }
    }
  }
  float total[P * C];
  if constexpr (P * C % 8 == 0) {
    ADGAN_UNROLL for (int i = 0; i < P * C; i += 8) sums_of_8(&sums[0][0] + i, total + i);
  } else {
    ADGAN_UNROLL for (int p = 0; p < P; ++p) {
      ADGAN_UNROLL for (int c = 0; c < C; ++c) total[p * C + c] = sum(sums[p][c]);
    }
  }
  for (int p = 0; p < P; ++p) {
    float* const to = gx + job.gx_offset[position + p];
    for (int c = 0; c < C; ++c) to[c] += total[p * C + c];
  }
}

template <int C>
static void dense_input_gradient(const MapShape& shape, const MapBackward& job, int channel, int positions) {
  const float* const weights = job.weights + shape.row(channel, 0);
  int p = 0;
  for (; p + kDotPositions <= positions; p += kDotPositions) {
    dense_dots<C, kDotPositions>(shape, job, weights, p, job.gx + channel);
  }
  for (; p < positions; ++p) dense_dots<C, 1>(shape, job, weights, p, job.gx + channel);
}

// totals[C][NV] = Σ x[position][c] · (row of g): the outer products of a tap's connections, of all samples.
template <int C, int NV>
static void outer_products(const DenseInput& x, int channel, const float* g, int ld, const Connection* connections,
                           int joined, int outputs_each, F (*totals)[NV]) {
  ADGAN_UNROLL for (int c = 0; c < C; ++c) { ADGAN_UNROLL for (int v = 0; v < NV; ++v) totals[c][v] = zero(); }
  const int all = joined * x.samples;
  int sample = 0, i = 0;
  for (int done = 0; done < all; done += kMostPositions) {
    int left = all - done < kMostPositions ? all - done : kMostPositions;
    F sums[C][NV];
    ADGAN_UNROLL for (int c = 0; c < C; ++c) { ADGAN_UNROLL for (int v = 0; v < NV; ++v) sums[c][v] = zero(); }
    while (left > 0) {
      const int end = joined - i < left ? joined : i + left;
      const float* const rows = g + static_cast<std::int64_t>(sample) * outputs_each * ld;
      left -= end - i;
      for (; i < end; ++i) {
        const float* const from = x.row(sample, connections[i].input) + channel;
        const float* const row = rows + static_cast<std::int64_t>(connections[i].output) * ld;
        F at[NV];
        ADGAN_UNROLL for (int v = 0; v < NV; ++v) at[v] = load(row + v * L);
        ADGAN_UNROLL for (int c = 0; c < C; ++c) {
          const F factor = set1(from[c]);
          ADGAN_UNROLL for (int v = 0; v < NV; ++v) sums[c][v] = fma(factor, at[v], sums[c][v]);
        }
      }
      if (i == joined) {
        i = 0;
        ++sample;
      }
    }
    ADGAN_UNROLL for (int c = 0; c < C; ++c) {
      ADGAN_UNROLL for (int v = 0; v < NV; ++v) totals[c][v] = add(totals[c][v], sums[c][v]);
    }
  }
}

template <int C, int PHASE>
static void dense_weight_gradients(const MapShape& shape, const MapBackward& job, int channel) {
  const AdamVectors adam(job.adam);
  const State state = job.state;
  by_vectors(shape.outputs, [&](int vector, auto constant) {
    constexpr int NV = decltype(constant)::value, ROWS = rows_of_tile(NV) < C ? C / 2 : C;
    for (int t = 0; t < shape.taps; ++t) {
      const int first = job.first_connection[t];
      for (int c = channel; c < channel + C; c += ROWS) {
        F sums[ROWS][NV];
        outer_products<ROWS, NV>(job.x, c, job.g + vector * L, shape.ld, job.connections + first,
                                 job.first_connection[t + 1] - first, job.outputs_each, sums);
        for (int r = 0; r < ROWS; ++r) {
          apply_gradient<NV, PHASE>(job, state, sums[r], shape.row(c + r, t) + vector * L, ROWS * shape.stride, adam);
        }
      }
    }
  });
}

template <int C, int PHASE>
static void dense_channels(const MapShape& shape, const MapBackward& job, int channel) {
  if (job.gx) {
    constexpr int TILE = C < kDotChannels ? C : kDotChannels;
    for (int c = 0; c < C; c += TILE) {
      dense_input_gradient<TILE>(shape, job, channel + c, job.x.samples * job.x.positions);
    }
  }
  if (job.learn) dense_weight_gradients<C, PHASE>(shape, job, channel);
}

static void dense_backward(const MapShape& shape, const MapBackward& job) {
  by_phase(job, [&](auto phase) {
    constexpr int PHASE = decltype(phase)::value;
    int c = 0;
    for (; c + 8 <= job.channels; c += 8) dense_channels<8, PHASE>(shape, job, c);
    for (; c + 4 <= job.channels; c += 4) dense_channels<4, PHASE>(shape, job, c);
    for (; c < job.channels; ++c) dense_channels<1, PHASE>(shape, job, c);
  });
}
