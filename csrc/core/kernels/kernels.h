// The arithmetic of the search, one table of functions for each instruction set. No allocation, no threads, no Torch.
//
// A map is what linear layers and convolutions have in common: K input channels at some positions, N output channels at
// others, and taps: a tap joins an input position with an output position through its own K × N matrix. Its weights are
// packed as [input channel][tap][output channel, padded to ld]: the backward pass reads a channel's part, the forward
// pass one tap's rows of a block of channels, which fit into the first-level cache together. A channel's part is one
// row longer than its content, so that those rows fall into different cache sets. Padding is zero and stays zero.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/cpu.h"
#include "core/layers.h"

namespace adgan {

struct MapShape {
  int inputs = 0;   // K
  int outputs = 0;  // N
  int ld = 0;       // N rounded up to whole vectors
  int taps = 0;
  int stride = 0;  // floats from a channel to the next
  int block = 0;   // channels in a block of the forward pass
  int blocks = 0;
  std::int64_t size = 0;  // floats in all

  std::int64_t row(int channel, int tap) const {
    return static_cast<std::int64_t>(channel) * stride + static_cast<std::int64_t>(tap) * ld;
  }
};

// An input and an output position that a tap joins (an entry of what sparse convolutions call a kernel map).
struct Connection {
  int input;
  int output;
};

// Several samples may pass through a map together; their positions are then numbered one sample after another.

// Which entries of an input (positions × channels) take part: by position and block of channels, for the forward pass.
struct RowLists {
  int* count;    // [position][block]
  int* offset;   // [position][block][...]: of the channel in its block, in floats
  float* value;  // likewise
};

// The same by channel, for the backward pass.
struct ColumnLists {
  int* count;     // [channel]
  int* position;  // [channel][stride]
  float* value;
  int stride;
};

// An input all of which takes part: what is not behind a ReLU.
struct DenseInput {
  const float* x;  // [sample][position][channel]
  std::int64_t sample_stride;
  int position_stride;
  int samples, positions;

  const float* row(int sample, int position) const {
    return x + sample * sample_stride + static_cast<std::int64_t>(position) * position_stride;
  }
  DenseInput from(int channel) const { return {x + channel, sample_stride, position_stride, samples, positions}; }
};

// Adam in a form that has the fewest operations (Kingma & Ba 2015, with both moments unnormalised):
//   M ← β₁ M + g,  V ← β₂ V + g²,  w ← w - scale · M / (√V + eps)
struct AdamStep {
  float beta1, beta2, scale, eps;
  bool first_step, last_step;  // moments are not read at the first, nor written at the last

  static AdamStep of(double lr, double beta1, double beta2, double eps, std::int64_t step, std::int64_t steps);
};

// One owner's copy of some parameters. `old` is what to read: `value` itself, or at the first step the shared ones.
struct State {
  const float* old;
  float* value;
  float* m;  // M; where moments are compact, M and V in 16 bits each
  float* v;  // V

  State at(std::int64_t offset) const { return {old + offset, value + offset, m + offset, v + offset}; }
};

// Adam as the operator has it (adgan_fast/ops/adam.py), one rounding for each operation: for elements of stacked
// copies.
template <typename T>
struct StackedAdam {
  T beta1, beta2, one_minus_beta1, one_minus_beta2;
  T inv_sqrt_bias2, eps, step_size;
  bool first_step, last_step;
};
template <typename T>
using StackedAdamKernel = void (*)(T* param, T* exp_avg, T* exp_avg_sq, const T* grad, const T* old_param,
                                   std::int64_t n, StackedAdam<T>);

struct MapBackward {
  int channels;          // so many input channels; what has a place by channel below begins with the first of them
  State state;           // where gradient is null: updated in place
  bool compact;          // its moments: in 16 bits each
  float* gradient;       // else the gradient is added here
  const float* weights;  // what the gradient of x is taken with
  bool learn;
  ColumnLists lists;  // map_backward's
  DenseInput x;       // dense_backward's, with the connections of one sample
  const Connection* connections;
  const int* first_connection;
  int outputs_each;
  const float* g;         // gradient of the output, rows of ld
  const int* output_row;  // [tap][input position]: where in g; a row of zeros where the tap falls outside
  int positions;
  float* gx;             // [position][channel], or null where it is not wanted; added to where listed
  const int* gx_offset;  // of a position
  AdamStep adam;
};

constexpr int kMaxRank1Steps = 8;

// Some rows (input channels) of a weight matrix whose gradient at step s has rank 1: it is the outer product of x_s and
// g_s. What is kept is the change Δ = w - θ₀, and of it the columns (outputs) that ever had a gradient: each has a
// slot, in order of coming.
struct Rank1Update {
  int rows, ld, steps;             // steps so far, this one included
  int slots, old_slots;            // now, and before this step: what came since has no Δ yet
  const float* g[kMaxRank1Steps];  // gradients of the output by slot, oldest first
  const float* x[kMaxRank1Steps];  // inputs of these rows
  float* change;                   // Δ: [row][ld]; compact: two rows' in 16 bits each, [row / 2][ld]
  bool compact;
  bool keep;          // whether the new Δ is written
  const float* next;  // the rows' next input, or null
  float* out;         // by slot: next · new Δ is added
  AdamStep adam;
};

// Of a row of a banded matrix: the columns that may be other than zero.
struct Band {
  int first, end;
};

// An operand that broadcasts, among numbers seen as [outer][inner]: how far its own lie apart, 0 where one is repeated.
// Neighbours on the inside lie together.
struct Spread {
  const float* at;
  std::int64_t outer, inner;
};

struct KernelTable {
  // Lists the entries of x that are not zero. Returns how many.
  std::int64_t (*list_rows)(const MapShape&, const float* x, int stride, int positions, RowLists);
  std::int64_t (*list_columns)(const float* x, std::int64_t sample_stride, int samples, int stride, int positions,
                               int channels, ColumnLists, float* scratch);
  // out[output position][ld] += Σ W x; `connections` are those of one sample.
  void (*map_forward)(const MapShape&, const float* weights, const Connection* connections, const int* first_connection,
                      RowLists, int samples, int inputs_each, int outputs_each, float* out);
  // Gradients of x and of the weights, and Adam; channel by channel, while its weights are in cache.
  void (*map_backward)(const MapShape&, const MapBackward&);
  // The same of an input all of which takes part.
  void (*dense_forward)(const MapShape&, const float* weights, const Connection* connections,
                        const int* first_connection, const DenseInput&, int outputs_each, float* out);
  void (*dense_backward)(const MapShape&, const MapBackward&);

  // out += x W for one row of x; gx = W g, or gx += W g. W is [K][ld].
  void (*rank1_forward)(int inputs, int outputs, int ld, const float* weights, const float* x, float* out);
  void (*rank1_backward)(int inputs, int outputs, int ld, const float* weights, const float* g, float* gx, bool add);
  void (*rank1_backward_compact)(int inputs, int outputs, int ld, const float* weights, const float* g,
                                 float* gx);  // +=
  void (*rank1_update)(const Rank1Update&);

  void (*adam)(const State&, const float* gradient, std::int64_t n, const AdamStep&);
  StackedAdamKernel<float> stacked_adam_float;
  StackedAdamKernel<double> stacked_adam_double;

  void (*fill_rows)(float* out, int positions, int channels, const float* row);  // row null: zeros
  void (*sum_rows)(const float* g, int positions, int channels, float* sums);    // sums += Σ over positions
  void (*add)(const float* x, float* out, std::int64_t n);                       // out += x
  void (*affine_rows)(const float* x, float* out, int positions, int channels, const float* scale, const float* shift);
  // Of y = γ x̂ + β with x̂ = (x - mean) · inverse: dγ and dβ are added to where not null; gx = g · scale.
  void (*norm_backward)(const float* x, const float* g, float* gx, bool add, int positions, int channels,
                        const float* scale, const float* mean, const float* inverse, float* dgamma, float* dbeta);
  void (*activate)(ActivationOp, const double* numbers, const float* x, float* y, std::int64_t n);
  void (*activate_backward)(ActivationOp, const double* numbers, const float* x, const float* y, const float* g,
                            float* gx, bool add, std::int64_t n);
  // The layer's real number goes with it. The gradient of the first operand or of the second, written or added to.
  void (*arithmetic)(ArithmeticOp, float number, Spread a, Spread b, float* y, std::int64_t outer, std::int64_t inner);
  void (*arithmetic_backward)(ArithmeticOp, bool first, float number, Spread a, Spread b, const float* g,
                              float* gradient, bool add, std::int64_t outer, std::int64_t inner);
  // x > 0 ? x : slope · x, positions × channels, the slope by channel; gslope: added to where not null.
  void (*prelu)(const float* x, float* y, int positions, int channels, const float* slope);
  void (*prelu_backward)(const float* x, const float* g, float* gx, bool add, int positions, int channels,
                         const float* slope, float* gslope);

  // (x - mean) / √(variance + eps) of each row of n; means and inverses (1 / √...) are kept for the way back, where gx
  // may be g. Columns: of n × m numbers, `group` columns together; means and inverses by column.
  void (*row_sums)(const float* x, float* sums, int rows, std::int64_t n);
  void (*standardize_rows)(const float* x, float* y, int rows, std::int64_t n, double eps, float* means,
                           float* inverses);
  void (*standardize_rows_backward)(const float* x, const float* g, float* gx, bool add, int rows, std::int64_t n,
                                    const float* means, const float* inverses);
  void (*standardize_columns)(const float* x, float* y, std::int64_t n, int m, int group, double eps, float* means,
                              float* inverses);
  void (*standardize_columns_backward)(const float* x, const float* g, float* gx, bool add, std::int64_t n, int m,
                                       int group, const float* means, const float* inverses, float* sums);  // 2 m
  void (*softmax_rows)(const float* x, float* y, int rows, std::int64_t n);
  void (*softmax_rows_backward)(const float* y, const float* g, float* gx, bool add, int rows, std::int64_t n);
  void (*softmax_columns)(const float* x, float* y, std::int64_t n, int m);
  void (*softmax_columns_backward)(const float* y, const float* g, float* gx, bool add, std::int64_t n, int m);

  // y = a b, or y += a b: n × m of n × k and k × m. Elements of a lie a_row and a_step apart.
  void (*matmul)(std::int64_t n, std::int64_t k, std::int64_t m, const float* a, std::int64_t a_row,
                 std::int64_t a_step, const float* b, float* y, bool add);
  void (*transpose)(std::int64_t rows, std::int64_t columns, const float* x, float* y);
  // y = W x, W of rows × columns zero outside its bands, x of columns × inner; and gx += Wᵀ g.
  void (*banded)(const Band* bands, const float* weights, int rows, int columns, const float* x, float* y,
                 std::int64_t inner);
  void (*banded_transposed)(const Band* bands, const float* weights, int rows, int columns, const float* g, float* gx,
                            std::int64_t inner);

  // Value and gradient of Σ (y - target)², or Σ |y - target|.
  float (*l2)(const float* y, const float* target, float* g, std::int64_t n);
  float (*l1)(const float* y, const float* target, float* g, std::int64_t n);
};

const KernelTable& kernels(Isa isa = best_isa());

namespace baseline {
extern const KernelTable kTable;
}
#if ADGAN_X86
namespace avx2 {
extern const KernelTable kTable;
}
namespace avx512 {
extern const KernelTable kTable;
}
#endif

}  // namespace adgan
