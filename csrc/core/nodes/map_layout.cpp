#include "core/nodes/map_layout.h"

#include <algorithm>

namespace adgan {

namespace {

int whole(std::int64_t n) {
  require(n >= 0 && n < (1 << 28), "a layer of the program is too large");
  return static_cast<int>(n);
}

constexpr int kPanel = 128;          // outputs of one piece: what a register block of the widest machine holds
constexpr int kBlockFloats = 4096;   // of a block for one tap: half of a first-level cache of 32 KB
constexpr int kBufferFloats = 4096;  // of the outputs of samples that pass together
constexpr int kNarrow = 16;          // fewer output channels than this go by columns

MapSpec linear_spec(const Layer& layer, const Shape& x, const Shape& w, const Shape& y) {
  const bool transposed = layer.whole[0] != 0;
  require(w.size() == 2 && !x.empty() && x.size() == y.size(), "a linear layer's shapes do not fit");
  MapSpec spec;
  spec.order = transposed ? MapSpec::Order::transposed_linear : MapSpec::Order::linear;
  spec.inputs = whole(w[transposed ? 0 : 1]);
  spec.outputs = whole(w[transposed ? 1 : 0]);
  spec.groups = spec.taps = 1;
  spec.input_positions = spec.output_positions = whole(product(x) / x.back());
  require(x.back() == spec.inputs && y.back() == spec.outputs && product(y) / y.back() == spec.input_positions,
          "a linear layer's shapes do not fit");
  for (int p = 0; p < spec.input_positions; ++p) spec.connections.push_back({p, p});
  spec.first_connection = {0, spec.input_positions};
  return spec;
}

MapSpec convolution_spec(const Layer& layer, const Shape& x, const Shape& w, const Shape& y, bool transposed) {
  require(x.size() == 3 && w.size() == 4 && y.size() == 3, "a convolution's shapes do not fit");
  const std::int64_t *stride = &layer.whole[0], *padding = stride + 2, *dilation = stride + 4, groups = stride[6];
  require(stride[0] > 0 && stride[1] > 0 && dilation[0] > 0 && dilation[1] > 0 && padding[0] >= 0 && padding[1] >= 0 &&
              groups > 0 && x[0] % groups == 0 && y[0] % groups == 0,
          "a convolution's settings are out of range");
  MapSpec spec;
  spec.order = transposed ? MapSpec::Order::conv_transpose : MapSpec::Order::conv;
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
      spec.first_connection.push_back(static_cast<int>(spec.connections.size()));
      // The larger map's pixel is stride · (the smaller one's) + dilation · tap - padding.
      const Shape &small = transposed ? x : y, &large = transposed ? y : x;
      for (std::int64_t h = 0; h < small[1]; ++h) {
        const std::int64_t top = h * stride[0] + i * dilation[0] - padding[0];
        if (top < 0 || top >= large[1]) continue;
        for (std::int64_t v = 0; v < small[2]; ++v) {
          const std::int64_t left = v * stride[1] + j * dilation[1] - padding[1];
          if (left < 0 || left >= large[2]) continue;
          const int in_small = whole(h * small[2] + v), in_large = whole(top * large[2] + left);
          spec.connections.push_back(transposed ? Connection{in_small, in_large} : Connection{in_large, in_small});
        }
      }
    }
  }
  spec.first_connection.push_back(static_cast<int>(spec.connections.size()));
  return spec;
}

}  // namespace

MapSpec MapSpec::of(const Layer& layer, const std::vector<Value>& values) {
  const Shape &x = values[layer.inputs[0]].shape, &w = values[layer.inputs[1]].shape, &y = values[layer.output].shape;
  switch (static_cast<MapOp>(layer.op)) {
    case MapOp::linear: return linear_spec(layer, x, w, y);
    case MapOp::conv2d: return convolution_spec(layer, x, w, y, false);
    case MapOp::conv_transpose2d: return convolution_spec(layer, x, w, y, true);
  }
  __builtin_unreachable();
}

std::int64_t MapSpec::index_in_module(int group, int input, int tap, int output) const {
  const std::int64_t group_inputs = inputs / groups, group_outputs = outputs / groups;
  switch (order) {
    case Order::linear: return output * group_inputs + input;
    case Order::transposed_linear: return input * group_outputs + output;
    case Order::conv: return ((group * group_outputs + output) * group_inputs + input) * taps + tap;
    case Order::conv_transpose: return ((group * group_inputs + input) * group_outputs + output) * taps + tap;
  }
  __builtin_unreachable();
}

namespace {

// Taps in sets that share no output position.
std::vector<std::vector<int>> sets_of_taps(const MapSpec& spec) {
  std::vector<int> first_tap(static_cast<std::size_t>(spec.output_positions), -1),
      set(static_cast<std::size_t>(spec.taps));
  for (int t = 0; t < spec.taps; ++t) set[t] = t;
  for (int t = 0; t < spec.taps; ++t) {
    for (int i = spec.first_connection[t]; i < spec.first_connection[t + 1]; ++i) {
      int& first = first_tap[spec.connections[i].output];
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
             static_cast<int>(spec.connections.size()) == spec.taps;
  for (int t = 0; in_order && t < spec.taps; ++t) in_order = spec.connections[t].output == t;
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
  for (const Connection& joined : spec.connections) reached[joined.output] = 1;
  covered = std::find(reached.begin(), reached.end(), 0) == reached.end();
}

// The pieces of some taps (none: of the columns), which differ in their inputs and outputs alone.
void MapLayout::add_pieces(const std::vector<int>& taps) {
  Piece piece;
  piece.taps = taps;
  std::vector<int> row_of(static_cast<std::size_t>(spec.output_positions), -1);
  for (int t : taps) {
    piece.first_connection.push_back(static_cast<int>(piece.connections.size()));
    for (int i = spec.first_connection[t]; i < spec.first_connection[t + 1]; ++i) {
      int& row = row_of[spec.connections[i].output];
      if (row < 0) {
        row = static_cast<int>(piece.positions.size());
        piece.positions.push_back(spec.connections[i].output);
      }
      piece.connections.push_back({spec.connections[i].input, row});
    }
  }
  if (columns) {
    piece.first_connection.push_back(0);
    for (int p = 0; p < spec.input_positions; ++p) {
      piece.positions.push_back(p);
      piece.connections.push_back({p, p});
    }
  }
  piece.first_connection.push_back(static_cast<int>(piece.connections.size()));
  const int panel = rank1 ? group_outputs : kPanel;
  MapShape& shape = piece.shape;
  shape.inputs = group_inputs;
  shape.ld = static_cast<int>(aligned(std::min(panel, group_outputs)));
  shape.taps = columns ? 1 : static_cast<int>(taps.size());
  shape.stride = (shape.taps + (shape.taps > 1)) * shape.ld;
  shape.block = rank1 ? group_inputs : std::clamp(kBlockFloats / shape.ld, 1, group_inputs);
  shape.blocks = ceil_div(group_inputs, shape.block);
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
      for (int i = piece.first_connection[t]; i < piece.first_connection[t + 1]; ++i) {
        row[piece.connections[i].input] = (first + piece.connections[i].output) * ld;
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

void MapLayout::pack(const float* unpacked, float* packed) const {
  std::fill(packed, packed + size_, 0.0f);
  each_row([&](std::int64_t to, int group, int input, int tap, int output, int count) {
    const float* from = unpacked + spec.index_in_module(group, input, tap, output);
    const std::int64_t step =
        spec.index_in_module(group, input, tap, output + 1) - spec.index_in_module(group, input, tap, output);
    for (int n = 0; n < count; ++n) packed[to + n] = from[n * step];
  });
}

void MapLayout::add_unpacked(const float* packed, float* unpacked) const {
  each_row([&](std::int64_t from, int group, int input, int tap, int output, int count) {
    float* to = unpacked + spec.index_in_module(group, input, tap, output);
    const std::int64_t step =
        spec.index_in_module(group, input, tap, output + 1) - spec.index_in_module(group, input, tap, output);
    for (int n = 0; n < count; ++n) to[n * step] += packed[from + n];
  });
}

}  // namespace adgan
