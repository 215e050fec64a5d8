// Products of dense matrices, and with banded ones.

// R rows by V vectors of y, the last of them of so many lanes, in registers.
template <int R, int V>
ADGAN_INLINE void product_tile(std::int64_t k, const float* a, std::int64_t a_row, std::int64_t a_step, const float* b,
                               std::int64_t m, float* y, int lanes, bool add_to_y) {
  F sums[R][V];
  ADGAN_UNROLL for (int r = 0; r < R; ++r) {
    ADGAN_UNROLL for (int v = 0; v < V; ++v) {
      sums[r][v] = add_to_y ? load_up_to(y + r * m + v * L, v == V - 1 ? lanes : L) : zero();
    }
  }
  for (std::int64_t p = 0; p < k; ++p, a += a_step, b += m) {
    F row[V];
    ADGAN_UNROLL for (int v = 0; v < V; ++v) row[v] = load_up_to(b + v * L, v == V - 1 ? lanes : L);
    ADGAN_UNROLL for (int r = 0; r < R; ++r) {
      const F factor = set1(a[r * a_row]);
      ADGAN_UNROLL for (int v = 0; v < V; ++v) sums[r][v] = fma(factor, row[v], sums[r][v]);
    }
  }
  ADGAN_UNROLL for (int r = 0; r < R; ++r) {
    ADGAN_UNROLL for (int v = 0; v < V; ++v) store_up_to(y + r * m + v * L, sums[r][v], v == V - 1 ? lanes : L);
  }
}

template <int V>
static void product_columns(std::int64_t n, std::int64_t k, std::int64_t m, const float* a, std::int64_t a_row,
                            std::int64_t a_step, const float* b, float* y, int lanes, bool add_to_y) {
  std::int64_t i = 0;
  for (; i + 6 <= n; i += 6) {
    product_tile<6, V>(k, a + i * a_row, a_row, a_step, b, m, y + i * m, lanes, add_to_y);
  }
  for (; i + 2 <= n; i += 2) {
    product_tile<2, V>(k, a + i * a_row, a_row, a_step, b, m, y + i * m, lanes, add_to_y);
  }
  if (i < n) product_tile<1, V>(k, a + i * a_row, a_row, a_step, b, m, y + i * m, lanes, add_to_y);
}

static void matmul(std::int64_t n, std::int64_t k, std::int64_t m, const float* a, std::int64_t a_row,
                   std::int64_t a_step, const float* b, float* y, bool add_to_y) {
  std::int64_t j = 0;
  for (; j + 2 * L <= m; j += 2 * L) product_columns<2>(n, k, m, a, a_row, a_step, b + j, y + j, L, add_to_y);
  for (; j < m; j += L) {
    const int lanes = m - j < L ? static_cast<int>(m - j) : L;
    product_columns<1>(n, k, m, a, a_row, a_step, b + j, y + j, lanes, add_to_y);
  }
}

// By blocks that fit into cache lines of both.
static void transpose(std::int64_t rows, std::int64_t columns, const float* x, float* y) {
  constexpr std::int64_t kTile = 16;
  for (std::int64_t first = 0; first < rows; first += kTile) {
    const std::int64_t last = first + kTile < rows ? first + kTile : rows;
    for (std::int64_t c = 0; c < columns; ++c) {
      for (std::int64_t r = first; r < last; ++r) y[c * rows + r] = x[r * columns + c];
    }
  }
}

static void banded(const Band* bands, const float* weights, int rows, int columns, const float* x, float* y,
                   std::int64_t inner) {
  for (int r = 0; r < rows; ++r, weights += columns, y += inner) {
    each_vector(inner, [&](std::int64_t i, int lanes) {
      F total = zero();
      for (int c = bands[r].first; c < bands[r].end; ++c) {
        total = fma(set1(weights[c]), load_up_to(x + c * inner + i, lanes), total);
      }
      store_up_to(y + i, total, lanes);
    });
  }
}

static void banded_transposed(const Band* bands, const float* weights, int rows, int columns, const float* g, float* gx,
                              std::int64_t inner) {
  for (int r = 0; r < rows; ++r, weights += columns, g += inner) {
    for (int c = bands[r].first; c < bands[r].end; ++c) {
      const F weight = set1(weights[c]);
      each_vector(inner, [&](std::int64_t i, int lanes) {
        float* const to = gx + c * inner + i;
        store_up_to(to, fma(weight, load_up_to(g + i, lanes), load_up_to(to, lanes)), lanes);
      });
    }
  }
}
