#include "map_node.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace adgan {

namespace {

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

int whole(std::int64_t n) {
  require(n >= 0 && n < (1 << 28), "a layer of the program is too large");
  return static_cast<int>(n);
}

int up_to_vectors(int n) { return (n + 15) / 16 * 16; }

constexpr int kPanel = 128;        // outputs of one piece: what a register block of the widest machine holds
constexpr int kBlockFloats = 4096;  // of a block for one tap: half of a first-level cache of 32 KB
constexpr int kBufferFloats = 4096;  // of the outputs of samples that pass together
constexpr int kNarrow = 16;        // fewer output channels than this go by columns

}  // namespace

MapSpec MapSpec::of(const Layer& layer, const std::vector<Value>& values) {
  const Shape &x = values[layer.inputs[0]].shape, &w = values[layer.inputs[1]].shape, &y = values[layer.output].shape;
  MapSpec spec;
  if (layer.op == Op::linear) {
    const bool transposed = layer.whole[0] != 0;
    require(w.size() == 2 && !x.empty() && x.size() == y.size(), "a linear layer's shapes do not fit");
    spec.order = transposed ? Order::transposed_linear : Order::linear;
    spec.inputs = whole(w[transposed ? 0 : 1]);
    spec.outputs = whole(w[transposed ? 1 : 0]);
    spec.groups = spec.taps = 1;
    spec.input_positions = spec.output_positions = whole(product(x) / x.back());
    require(x.back() == spec.inputs && y.back() == spec.outputs && product(y) / y.back() == spec.input_positions,
            "a linear layer's shapes do not fit");
    for (int p = 0; p < spec.input_positions; ++p) spec.pairs.push_back({p, p});
    spec.first_pair = {0, spec.input_positions};
    return spec;
  }
  require(x.size() == 3 && w.size() == 4 && y.size() == 3, "a convolution's shapes do not fit");
  const bool transposed = layer.op == Op::conv_transpose2d;
  const std::int64_t *stride = &layer.whole[0], *padding = stride + 2, *dilation = stride + 4, groups = stride[6];
  require(stride[0] > 0 && stride[1] > 0 && dilation[0] > 0 && dilation[1] > 0 && padding[0] >= 0 && padding[1] >= 0 &&
              groups > 0 && x[0] % groups == 0 && y[0] % groups == 0,
          "a convolution's settings are out of range");
  spec.order = transposed ? Order::conv_transpose : Order::conv;
  spec.inputs = whole(x[0]);
  spec.outputs = whole(y[0]);
  spec.groups = whole(groups);
  require(w[0] == (transposed ? x[0] : y[0]) && w[1] == (transposed ? y[0] : x[0]) / groups,
          "a convolution's weights do not fit");
  spec.taps = whole(w[2] * w[3]);
  spec.input_positions = whole(x[1] * x[2]);
  spec.output_positions = whole(y[1] * y[2]);
  for (std::int64_t i = 0; i < w[2]; ++i) {
    for (std::int64_t j = 0; j < w[3]; ++j) {
      spec.first_pair.push_back(static_cast<int>(spec.pairs.size()));
      // The larger map's pixel is stride · (the smaller one's) + dilation · tap - padding.
      const Shape &small = transposed ? x : y, &large = transposed ? y : x;
      for (std::int64_t h = 0; h < small[1]; ++h) {
        const std::int64_t top = h * stride[0] + i * dilation[0] - padding[0];
        if (top < 0 || top >= large[1]) continue;
        for (std::int64_t v = 0; v < small[2]; ++v) {
          const std::int64_t left = v * stride[1] + j * dilation[1] - padding[1];
          if (left < 0 || left >= large[2]) continue;
          const int in_small = whole(h * small[2] + v), in_large = whole(top * large[2] + left);
          spec.pairs.push_back(transposed ? Pair{in_small, in_large} : Pair{in_large, in_small});
        }
      }
    }
  }
  spec.first_pair.push_back(static_cast<int>(spec.pairs.size()));
  return spec;
}

std::int64_t MapSpec::natural(int group, int input, int tap, int output) const {
  const std::int64_t group_inputs = inputs / groups, group_outputs = outputs / groups;
  switch (order) {
    case Order::linear: return output * group_inputs + input;
    case Order::transposed_linear: return input * group_outputs + output;
    case Order::conv: return ((group * group_outputs + output) * group_inputs + input) * taps + tap;
    default: return ((group * group_inputs + input) * group_outputs + output) * taps + tap;
  }
}

namespace {

// Taps in sets that share no output position.
std::vector<std::vector<int>> sets_of_taps(const MapSpec& spec) {
  std::vector<int> first_tap(static_cast<std::size_t>(spec.output_positions), -1), set(static_cast<std::size_t>(spec.taps));
  for (int t = 0; t < spec.taps; ++t) set[t] = t;
  for (int t = 0; t < spec.taps; ++t) {
    for (int i = spec.first_pair[t]; i < spec.first_pair[t + 1]; ++i) {
      int& first = first_tap[spec.pairs[i].output];
      if (first < 0) first = t;
      const int from = set[t], to = set[first];
      if (from != to) std::replace(set.begin(), set.end(), std::max(from, to), std::min(from, to));
    }
  }
  std::vector<std::vector<int>> sets;
  for (int s = 0; s < spec.taps; ++s) {
    std::vector<int> taps;
    for (int t = 0; t < spec.taps; ++t) {
      if (set[t] == s) taps.push_back(t);
    }
    if (!taps.empty()) sets.push_back(taps);
  }
  return sets;
}

}  // namespace

MapLayout::MapLayout(const MapSpec& given, bool as_rank1, int most) : spec(given), rank1(as_rank1), together(most) {
  group_inputs = spec.inputs / spec.groups;
  const int outputs = spec.outputs / spec.groups;
  columns = spec.taps > 1 && (outputs < kNarrow || spec.input_positions == 1);
  group_outputs = columns ? spec.taps * outputs : outputs;
  in_order = spec.input_positions == 1 && spec.groups == 1 && spec.output_positions == spec.taps &&
             static_cast<int>(spec.pairs.size()) == spec.taps;
  for (int t = 0; in_order && t < spec.taps; ++t) in_order = spec.pairs[t].output == t;
  if (columns) {
    add_pieces({});
  } else {
    for (const auto& taps : sets_of_taps(spec)) add_pieces(taps);
  }
  for (const Piece& piece : pieces) {
    together = std::clamp<int>(static_cast<int>(kBufferFloats / piece.buffer_size()), 1, together);
  }
  for (Piece& piece : pieces) set_output_rows(piece);
  std::vector<char> reached(static_cast<std::size_t>(spec.output_positions), 0);
  for (const Pair& pair : spec.pairs) reached[pair.output] = 1;
  covered = std::find(reached.begin(), reached.end(), 0) == reached.end();
}

// The pieces of some taps (none: of the columns), which differ in their inputs and outputs alone.
void MapLayout::add_pieces(const std::vector<int>& taps) {
  Piece piece;
  piece.taps = taps;
  std::vector<int> row_of(static_cast<std::size_t>(spec.output_positions), -1);
  for (int t : taps) {
    piece.first_pair.push_back(static_cast<int>(piece.pairs.size()));
    for (int i = spec.first_pair[t]; i < spec.first_pair[t + 1]; ++i) {
      int& row = row_of[spec.pairs[i].output];
      if (row < 0) {
        row = static_cast<int>(piece.positions.size());
        piece.positions.push_back(spec.pairs[i].output);
      }
      piece.pairs.push_back({spec.pairs[i].input, row});
    }
  }
  if (columns) {
    piece.first_pair.push_back(0);
    for (int p = 0; p < spec.input_positions; ++p) {
      piece.positions.push_back(p);
      piece.pairs.push_back({p, p});
    }
  }
  piece.first_pair.push_back(static_cast<int>(piece.pairs.size()));
  const int panel = rank1 ? group_outputs : kPanel;
  MapShape& shape = piece.shape;
  shape.inputs = group_inputs;
  shape.ld = up_to_vectors(std::min(panel, group_outputs));
  shape.taps = columns ? 1 : static_cast<int>(taps.size());
  shape.stride = (shape.taps + (shape.taps > 1)) * shape.ld;
  shape.block = rank1 ? group_inputs : std::clamp(kBlockFloats / shape.ld, 1, group_inputs);
  shape.blocks = (group_inputs + shape.block - 1) / shape.block;
  shape.size = static_cast<std::int64_t>(group_inputs) * shape.stride;
  for (int group = 0; group < spec.groups; ++group) {
    for (int first = 0; first < group_outputs; first += panel) {
      piece.group = group;
      piece.first_output = first;
      shape.outputs = std::min(panel, group_outputs - first);
      piece.offset = size_;
      size_ += shape.size;
      pieces.push_back(piece);
    }
  }
}

void MapLayout::set_output_rows(Piece& piece) const {
  const int ld = piece.shape.ld, each = spec.input_positions, all = together * each;
  whole(together * piece.buffer_size());
  piece.output_row.resize(static_cast<std::size_t>(piece.shape.taps) * all);
  for (int s = 0; s < together; ++s) {
    const int first = s * piece.buffer_rows();
    for (int t = 0; t < piece.shape.taps; ++t) {
      int* const row = piece.output_row.data() + static_cast<std::size_t>(t) * all + s * each;
      std::fill_n(row, each, (first + piece.buffer_rows() - 1) * ld);
      for (int i = piece.first_pair[t]; i < piece.first_pair[t + 1]; ++i) {
        row[piece.pairs[i].input] = (first + piece.pairs[i].output) * ld;
      }
    }
  }
}

// f(packed index of a row, group, input, tap in the module, first output in the module, outputs) for every row's parts.
template <typename F>
void MapLayout::each_row(const F& f) const {
  const int outputs = spec.outputs / spec.groups;
  for (const Piece& piece : pieces) {
    for (int k = 0; k < piece.shape.inputs; ++k) {
      for (int t = 0; t < piece.shape.taps; ++t) {
        const std::int64_t row = piece.offset + piece.shape.row(k, t);
        for (int n = 0; n < piece.shape.outputs;) {
          const int at = piece.first_output + n;
          const int tap = columns ? at / outputs : piece.taps[t], output = columns ? at % outputs : at;
          const int count = std::min(piece.shape.outputs - n, outputs - output);
          f(row + n, piece.group, k, tap, output, count);
          n += count;
        }
      }
    }
  }
}

void MapLayout::pack(const float* natural, float* packed) const {
  std::fill(packed, packed + size_, 0.0f);
  each_row([&](std::int64_t to, int group, int input, int tap, int output, int count) {
    const float* from = natural + spec.natural(group, input, tap, output);
    const std::int64_t step = spec.natural(group, input, tap, output + 1) - spec.natural(group, input, tap, output);
    for (int n = 0; n < count; ++n) packed[to + n] = from[n * step];
  });
}

void MapLayout::add_unpacked(const float* packed, float* natural) const {
  each_row([&](std::int64_t from, int group, int input, int tap, int output, int count) {
    float* to = natural + spec.natural(group, input, tap, output);
    const std::int64_t step = spec.natural(group, input, tap, output + 1) - spec.natural(group, input, tap, output);
    for (int n = 0; n < count; ++n) to[n * step] += packed[from + n];
  });
}

namespace {

std::int64_t aligned(std::int64_t floats) { return (floats + 15) / 16 * 16; }

// Lists and buffers in a node's scratch.
struct Scratch {
  RowLists rows;
  ColumnLists by_channel;
  float* transposed;
  int* gx_offset;
  float* buffer;
  std::int64_t size;

  Scratch(const MapLayout& layout, float* base) {
    const MapSpec& spec = layout.spec;
    const std::int64_t positions = static_cast<std::int64_t>(spec.input_positions) * layout.together;
    std::int64_t at = 0, blocks = 0, listed = 0, largest = 0;
    for (const auto& piece : layout.pieces) {
      blocks = std::max<std::int64_t>(blocks, piece.shape.blocks);
      listed = std::max<std::int64_t>(listed, static_cast<std::int64_t>(piece.shape.blocks) * piece.shape.block);
      largest = std::max(largest, piece.buffer_size());
    }
    const auto take = [&](std::int64_t floats) {
      float* const p = base ? base + at : nullptr;
      at += aligned(floats + 16);  // lists are written by whole vectors
      return p;
    };
    rows.count = reinterpret_cast<int*>(take(positions * blocks));
    rows.offset = reinterpret_cast<int*>(take(positions * listed));
    rows.value = take(positions * listed);
    by_channel.stride = static_cast<int>(positions);
    by_channel.count = reinterpret_cast<int*>(take(layout.group_inputs));
    by_channel.position = reinterpret_cast<int*>(take(layout.group_inputs * positions));
    by_channel.value = take(layout.group_inputs * positions);
    transposed = take(16 * positions);
    gx_offset = reinterpret_cast<int*>(take(positions));
    buffer = take(largest * layout.together);
    size = at;
  }
};

// What a rank-1 layer keeps of the steps of a search: inputs, output gradients by slot, and the column of each slot.
struct History {
  int inputs, outputs, steps;  // steps so far
  std::int64_t per_step, first_g;
  float *base, *out;
  int *slots, *column, *taken;

  History(const MapLayout& layout, float* at, int so_far)
      : inputs(layout.group_inputs), outputs(layout.group_outputs), steps(so_far),
        per_step(aligned(inputs) + aligned(outputs)), first_g(aligned(inputs)) {
    slots = reinterpret_cast<int*>(at);
    column = slots + 16;
    taken = column + aligned(outputs + 1);
    out = at + 16 + 2 * aligned(outputs + 1);
    base = out + aligned(outputs);
  }

  static std::int64_t size(const MapLayout& layout, std::int64_t steps) {
    const std::int64_t in = aligned(layout.group_inputs), wide = aligned(layout.group_outputs);
    return 16 + 2 * aligned(layout.group_outputs + 1) + wide + steps * (in + wide);
  }

  float* x(int step) const { return base + step * per_step; }
  float* g(int step) const { return x(step) + first_g; }

  // Keeps this step's input and output gradient; columns whose gradient is not zero for the first time get slots.
  int add(const float* input, const float* gradient, int known) const {
    if (known == 0) std::fill_n(taken, outputs, 0);
    int count = known;
    for (int n = 0; n < outputs; ++n) {
      const int is_new = (gradient[n] != 0.0f) & !taken[n];
      column[count] = n;
      taken[n] |= is_new;
      count += is_new;
    }
    *slots = count;
    std::copy_n(input, inputs, x(steps - 1));
    float* const now = g(steps - 1);
    for (int a = 0; a < count; ++a) now[a] = gradient[column[a]];
    std::fill(now + count, now + aligned(outputs), 0.0f);  // for slots to come
    return count;
  }

  void scatter(float* y) const {
    for (int a = 0; a < *slots; ++a) y[column[a]] += out[a];
  }
};

class MapNode : public Node {
 public:
  MapNode(const MapLayout* layout, const MapPlaces& at) : layout_(*layout), at_(at) {}

  void prepare(Run& run) const override {
    if (at_.source != MapPlaces::Source::prepared) return;
    layout_.pack(run.state.old + at_.natural, run.prepared + at_.weights);
    if (run.gradient && at_.gradient >= 0) std::fill_n(run.prepared + at_.gradient, layout_.packed_size(), 0.0f);
  }

  bool takes_all_samples() const override { return true; }

  void forward(Run& run) const override {
    if (layout_.rank1) return rank1_forward(run);
    for (int first = 0; first < run.samples; first += layout_.together) {
      forward_some(run, first, std::min(layout_.together, run.samples - first));
    }
  }

  void backward(Run& run) const override {
    const MapSpec& spec = layout_.spec;
    if (run.gradient && at_.bias_gradient >= 0) {
      for (int s = 0; s < run.samples; ++s) {
        run.kernels->sum_rows(run.grad + s * run.grad_stride + at_.dy, spec.output_positions, spec.outputs,
                              run.gradient + at_.bias_gradient);
      }
    }
    if (layout_.rank1) return rank1_backward(run);
    if (at_.dx < 0 && !learns(run)) return;
    for (int first = 0; first < run.samples; first += layout_.together) {
      backward_some(run, first, std::min(layout_.together, run.samples - first));
    }
  }

  void finish(Run& run) const override {
    if (run.gradient && at_.source == MapPlaces::Source::prepared && at_.gradient >= 0) {
      layout_.add_unpacked(run.prepared + at_.gradient, run.gradient + at_.natural_gradient);
    }
  }

 private:
  bool learns(const Run& run) const { return run.gradient && at_.source != MapPlaces::Source::fixed; }

  const float* bias(const Run& run) const {
    return at_.bias < 0 ? nullptr : (at_.bias_fixed ? run.fixed : run.state.old) + at_.bias;
  }

  void forward_some(Run& run, int first, int samples) const {
    const MapSpec& spec = layout_.spec;
    const float* const x = run.act + first * run.act_stride + at_.x;
    float* const y = run.act + first * run.act_stride + at_.y;
    const Scratch scratch(layout_, run.scratch);
    if (layout_.columns || !layout_.covered) {
      for (int s = 0; s < samples; ++s) {
        run.kernels->fill_rows(y + s * run.act_stride, spec.output_positions, spec.outputs, bias(run));
      }
    }
    int listed_group = -1, listed_stride = -1;
    for (const auto& piece : layout_.pieces) {
      if (piece.group != listed_group || piece.shape.stride != listed_stride) {
        listed_group = piece.group;
        listed_stride = piece.shape.stride;
        for (int s = 0; s < samples; ++s) {
          const std::int64_t list = static_cast<std::int64_t>(s) * spec.input_positions * piece.shape.blocks;
          const RowLists lists{scratch.rows.count + list, scratch.rows.offset + list * piece.shape.block,
                               scratch.rows.value + list * piece.shape.block};
          run.kernels->list_rows(piece.shape, x + s * run.act_stride + piece.group * layout_.group_inputs, spec.inputs,
                                 spec.input_positions, false, lists);
        }
      }
      for (int s = 0; s < samples; ++s) {
        fill_buffer(piece, layout_.columns ? nullptr : bias(run), scratch.buffer + s * piece.buffer_size());
      }
      run.kernels->map_forward(piece.shape, source(run) + piece.offset, piece.pairs.data(), piece.first_pair.data(),
                               scratch.rows, samples, spec.input_positions, piece.buffer_rows(), scratch.buffer);
      for (int s = 0; s < samples; ++s) put(piece, scratch.buffer + s * piece.buffer_size(), y + s * run.act_stride);
    }
  }

  void backward_some(Run& run, int first, int samples) const {
    const MapSpec& spec = layout_.spec;
    const float* const x = run.act + first * run.act_stride + at_.x;
    const float* const dy = run.grad + first * run.grad_stride + at_.dy;
    float* const dx = at_.dx < 0 ? nullptr : run.grad + first * run.grad_stride + at_.dx;
    const Scratch scratch(layout_, run.scratch);
    // A channel's entries that are zero have no part in dW; nor in dx, behind a ReLU.
    const bool all = dx && !at_.gated;
    for (int s = 0; s < samples; ++s) {
      if (dx && !at_.add_dx) {
        std::fill_n(dx + s * run.grad_stride, static_cast<std::int64_t>(spec.input_positions) * spec.inputs, 0.0f);
      }
      for (int p = 0; p < spec.input_positions; ++p) {
        scratch.gx_offset[s * spec.input_positions + p] = static_cast<int>(s * run.grad_stride) + p * spec.inputs;
      }
    }
    int listed_group = -1;
    for (const auto& piece : layout_.pieces) {
      const int first_input = piece.group * layout_.group_inputs;
      if (piece.group != listed_group) {
        listed_group = piece.group;
        run.kernels->list_columns(x + first_input, run.act_stride, samples, spec.inputs, spec.input_positions,
                                  layout_.group_inputs, all, scratch.by_channel, scratch.transposed);
      }
      for (int s = 0; s < samples; ++s) get(piece, dy + s * run.grad_stride, scratch.buffer + s * piece.buffer_size());
      MapBackward job{};
      job.weights = source(run) + piece.offset;
      job.packed = at_.packed;
      job.learn = learns(run);
      if (job.learn) {
        if (at_.source == MapPlaces::Source::prepared) {
          job.gradient = run.prepared + at_.gradient + piece.offset;
        } else if (at_.gradient >= 0) {
          job.gradient = run.gradient + at_.gradient + piece.offset;
        } else {
          const std::int64_t at = at_.weights + piece.offset;
          job.state = {run.state.old + at, run.state.value + at, run.state.first + at, run.state.second + at};
        }
      }
      job.lists = scratch.by_channel;
      job.g = scratch.buffer;
      job.output_row = piece.output_row.data();
      job.positions = layout_.together * spec.input_positions;
      job.gx = dx ? dx + first_input : nullptr;
      job.gx_offset = scratch.gx_offset;
      job.adam = run.adam;
      run.kernels->map_backward(piece.shape, job);
    }
  }

  void rank1_forward(Run& run) const {
    const MapSpec& spec = layout_.spec;
    const MapShape& shape = layout_.pieces[0].shape;
    float* const y = run.act + at_.y;
    if (!(at_.moves_latent && run.first_layer_done)) {
      const float* const x = run.act + at_.x;
      std::fill_n(y, shape.outputs, 0.0f);
      run.kernels->rank1_forward(shape.inputs, shape.outputs, shape.ld, run.theta + at_.weights, x, y);
      if (run.step > 0) {
        const History history(layout_, run.history + at_.history, run.step);
        std::fill_n(history.out, shape.ld, 0.0f);
        run.kernels->rank1_forward(shape.inputs, *history.slots, shape.ld, run.change + at_.change, x, history.out);
        history.scatter(y);
      }
    }
    if (!bias(run)) return;
    for (int p = 0; p < spec.output_positions; ++p) run.kernels->add(bias(run), y + p * spec.outputs, spec.outputs);
  }

  const float* source(const Run& run) const {
    switch (at_.source) {
      case MapPlaces::Source::state: return run.state.old + at_.weights;
      case MapPlaces::Source::prepared: return run.prepared + at_.weights;
      default: return run.fixed + at_.weights;
    }
  }

  // A piece's outputs before any tap: the bias, or zero, and zero in the padding.
  void fill_buffer(const MapLayout::Piece& piece, const float* bias, float* buffer) const {
    const int ld = piece.shape.ld, first = piece.group * layout_.group_outputs + piece.first_output;
    std::fill_n(buffer, piece.buffer_size(), 0.0f);
    for (std::size_t row = 0; bias && row < piece.positions.size(); ++row) {
      std::copy_n(bias + first, piece.shape.outputs, buffer + row * ld);
    }
  }

  // f(place in the buffer, place in the output) of each row of a piece's outputs.
  template <typename F>
  void each_output_row(const MapLayout::Piece& piece, const F& f) const {
    const int first = piece.group * layout_.group_outputs + piece.first_output;
    for (std::size_t row = 0; row < piece.positions.size(); ++row) {
      f(row * piece.shape.ld, static_cast<std::size_t>(piece.positions[row]) * layout_.spec.outputs + first);
    }
  }

  // f(place in the buffer, place in the output, how many) for the columns that belong together: a tap's channels.
  template <typename F>
  void each_column(const MapLayout::Piece& piece, const F& f) const {
    const MapSpec& spec = layout_.spec;
    const int outputs = spec.outputs / spec.groups;
    for (int n = 0; n < piece.shape.outputs;) {
      const int tap = (piece.first_output + n) / outputs, channel = (piece.first_output + n) % outputs;
      const int count = std::min(piece.shape.outputs - n, outputs - channel);
      const std::size_t first = static_cast<std::size_t>(piece.group) * outputs + channel;
      for (int i = spec.first_pair[tap]; i < spec.first_pair[tap + 1]; ++i) {
        f(static_cast<std::size_t>(spec.pairs[i].input) * piece.shape.ld + n,
          static_cast<std::size_t>(spec.pairs[i].output) * spec.outputs + first, count);
      }
      n += count;
    }
  }

  // Puts a piece's outputs into place; columns are added.
  void put(const MapLayout::Piece& piece, const float* buffer, float* y) const {
    if (layout_.columns) {
      each_column(piece, [&](std::size_t from, std::size_t to, int count) {
        for (int n = 0; n < count; ++n) y[to + n] += buffer[from + n];
      });
    } else {
      each_output_row(piece, [&](std::size_t from, std::size_t to) {
        std::copy_n(buffer + from, piece.shape.outputs, y + to);
      });
    }
  }

  // The adjoint: what a piece sees of the output's gradient; zero where it sees nothing, and in the padding.
  void get(const MapLayout::Piece& piece, const float* dy, float* buffer) const {
    if (layout_.columns) {
      std::fill_n(buffer, piece.buffer_size(), 0.0f);
      each_column(piece, [&](std::size_t to, std::size_t from, int count) {
        int n = 0;
        do buffer[to + n] = dy[from + n]; while (++n < count);
      });
      return;
    }
    const int ld = piece.shape.ld, outputs = piece.shape.outputs;
    each_output_row(piece, [&](std::size_t to, std::size_t from) {
      std::copy_n(dy + from, outputs, buffer + to);
      std::fill_n(buffer + to + outputs, ld - outputs, 0.0f);
    });
    std::fill_n(buffer + piece.positions.size() * ld, ld, 0.0f);
  }

  void rank1_backward(Run& run) const {
    const MapShape& shape = layout_.pieces[0].shape;
    const int inputs = shape.inputs, outputs = shape.outputs;
    const History history(layout_, run.history + at_.history, run.step);
    const float* const dy = run.grad + at_.dy;
    Rank1Update job{};
    job.ld = shape.ld;
    job.history = run.step;
    job.old_slots = run.step == 1 ? 0 : *history.slots;
    job.slots = history.add(run.act + at_.x, dy, job.old_slots);
    job.adam = run.adam;
    job.packed = at_.packed;
    job.keep = !(at_.moves_latent && run.adam.last);
    for (int s = 0; s < run.step; ++s) job.g[s] = history.g(s);
    float* const dx = at_.dx < 0 ? nullptr : run.grad + at_.dx;
    float* const y = run.next_act + at_.y;
    if (at_.moves_latent) {
      job.out = history.out;
      std::fill_n(job.out, shape.ld, 0.0f);
      std::fill_n(y, outputs, 0.0f);
    }
    // Some rows at a time: their gradient, the latent's step, their part of the next forward pass, their own Adam step
    // and its part, while they are in cache.
    constexpr int kRows = 8;
    for (int row = 0; row < inputs; row += kRows) {
      const float* const theta = run.theta + at_.weights + static_cast<std::int64_t>(row) * shape.ld;
      job.rows = std::min(kRows, inputs - row);
      for (int s = 0; s < run.step; ++s) job.x[s] = history.x(s) + row;
      job.change = run.change + at_.change + static_cast<std::int64_t>(at_.packed ? row / 2 : row) * shape.ld;
      if (dx) {
        const float* const g = job.g[run.step - 1];
        run.kernels->rank1_backward(job.rows, outputs, shape.ld, theta, dy, dx + row, at_.add_dx);
        if (at_.packed) {
          run.kernels->rank1_backward_packed(job.rows, job.old_slots, shape.ld, job.change, g, dx + row);
        } else {
          run.kernels->rank1_backward(job.rows, job.old_slots, shape.ld, job.change, g, dx + row, true);
        }
      }
      if (at_.moves_latent) {
        const State z{run.latent.old + row, run.latent.value + row, run.latent.first + row, run.latent.second + row};
        run.kernels->adam(z, dx + row, job.rows, run.adam_latent);
        job.next = run.latent.value + row;
        run.kernels->rank1_forward(job.rows, outputs, shape.ld, theta, job.next, y);
      }
      run.kernels->rank1_update(job);
    }
    if (at_.moves_latent) history.scatter(y);
  }

  const MapLayout& layout_;
  const MapPlaces at_;
};

}  // namespace

std::int64_t MapLayout::history_size(std::int64_t steps) const { return History::size(*this, steps); }

std::int64_t MapLayout::change_size(bool packed) const {
  return static_cast<std::int64_t>(packed ? (group_inputs + 1) / 2 : group_inputs) * pieces[0].shape.ld;
}

std::int64_t MapLayout::scratch_size() const { return Scratch(*this, nullptr).size; }

std::unique_ptr<Node> make_map_node(const MapLayout* layout, const MapPlaces& places) {
  return std::make_unique<MapNode>(layout, places);
}

}  // namespace adgan
