#include "core/nodes/map_node.h"

#include <algorithm>

namespace adgan {

namespace {

constexpr int kShare = 16;  // channels are listed so many at a time: a thread takes a multiple of them

// Lists, where the input is not taken whole, and buffers in a node's scratch.
struct Scratch {
  RowLists rows{};
  ColumnLists by_channel{};
  float* transposed = nullptr;
  int* gx_offset;
  float* buffer;
  std::int64_t size;

  Scratch(const MapLayout& layout, bool dense, float* base) {
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
    if (!dense) {
      rows.count = reinterpret_cast<int*>(take(positions * blocks));
      rows.offset = reinterpret_cast<int*>(take(positions * listed));
      rows.value = take(positions * listed);
      by_channel.stride = static_cast<int>(positions);
      by_channel.count = reinterpret_cast<int*>(take(layout.group_inputs));
      by_channel.position = reinterpret_cast<int*>(take(layout.group_inputs * positions));
      by_channel.value = take(layout.group_inputs * positions);
      transposed = take(16 * positions);
    }
    gx_offset = reinterpret_cast<int*>(take(positions));
    buffer = take(largest * layout.together);
    size = at;
  }
};

class MapNode : public Node {
 public:
  MapNode(const MapLayout* layout, const MapPlaces& at) : layout_(*layout), at_(at) {}

  void prepare(Run& run) const override {
    at_.bias_sums.clear(run);
    if (at_.source != MapPlaces::Source::prepared) return;
    layout_.pack((at_.computed ? run.prepared : run.state.old) + at_.unpacked, run.prepared + at_.weights);
    if (run.gradient && at_.gradient >= 0) std::fill_n(run.prepared + at_.gradient, layout_.packed_size(), 0.0f);
  }

  bool takes_all_samples() const override { return true; }

  // Shared by the team: samples, as many as pass together; and pieces, where that leaves some idle.
  void forward(Run& run) const override {
    const MapSpec& spec = layout_.spec;
    if (layout_.columns || !layout_.covered) {
      run.team->each(run.samples, [&](int s, int) {
        run.kernels->fill_rows(run.act + s * run.act_stride + at_.y, spec.output_positions, spec.outputs,
                               at_.bias_of(run));
      });
    }
    const int groups = ceil_div(run.samples, layout_.together), pieces = static_cast<int>(layout_.pieces.size());
    const int parts =
        layout_.columns ? 1 : std::min(pieces, ceil_div(run.team->threads(), groups));  // columns meet in y
    run.team->each(groups * parts, [&](int i, int thread) {
      const int first = i / parts * layout_.together, part = i % parts;
      forward_some(run.of_sample(first, thread), std::min(layout_.together, run.samples - first), part * pieces / parts,
                   (part + 1) * pieces / parts);
    });
  }

  // Shared by the team: input channels, for all samples.
  void backward(Run& run) const override {
    const MapSpec& spec = layout_.spec;
    if (at_.bias_sums.wanted(run)) {
      run.team->each(run.samples, [&](int s, int) {
        run.kernels->sum_rows(run.grad + s * run.grad_stride + at_.dy, spec.output_positions, spec.outputs,
                              at_.bias_sums.part(run, s));
      });
    }
    if (at_.dx < 0 && !learns(run)) return;
    const int threads = run.team->threads(), inputs = layout_.group_inputs;
    const int share = threads == 1 ? inputs : ceil_div(ceil_div(inputs, 2 * threads), kShare) * kShare;
    run.team->each(ceil_div(inputs, share), [&](int i, int thread) {
      const int channel = i * share, channels = std::min(share, inputs - channel);
      for (int first = 0; first < run.samples; first += layout_.together) {
        backward_some(run.of_sample(first, thread), std::min(layout_.together, run.samples - first), channel, channels);
      }
    });
  }

  void finish(Run& run) const override {
    at_.bias_sums.add_up(run);
    if (run.gradient && at_.source == MapPlaces::Source::prepared && at_.gradient >= 0) {
      layout_.add_unpacked(run.prepared + at_.gradient, run.gradient + at_.unpacked_gradient);
    }
  }

 private:
  bool learns(const Run& run) const { return run.gradient && at_.source != MapPlaces::Source::fixed; }

  // `run`: of the first of the samples.
  void forward_some(const Run& run, int samples, int first_piece, int end_piece) const {
    const MapSpec& spec = layout_.spec;
    const float* const x = run.act + at_.x;
    float* const y = run.act + at_.y;
    const float* const bias = layout_.columns ? nullptr : at_.bias_of(run);
    const Scratch scratch(layout_, at_.dense(), run.scratch);
    int listed_group = -1, listed_stride = -1;
    for (int i = first_piece; i < end_piece; ++i) {
      const auto& piece = layout_.pieces[i];
      if (!at_.dense() && (piece.group != listed_group || piece.shape.stride != listed_stride)) {
        listed_group = piece.group;
        listed_stride = piece.shape.stride;
        for (int s = 0; s < samples; ++s) {
          const std::int64_t list = static_cast<std::int64_t>(s) * spec.input_positions * piece.shape.blocks;
          const RowLists lists{scratch.rows.count + list, scratch.rows.offset + list * piece.shape.block,
                               scratch.rows.value + list * piece.shape.block};
          run.kernels->list_rows(piece.shape, x + s * run.act_stride + piece.group * layout_.group_inputs, spec.inputs,
                                 spec.input_positions, lists);
        }
      }
      for (int s = 0; s < samples; ++s) fill_buffer(piece, bias, scratch.buffer + s * piece.buffer_size());
      if (at_.dense()) {
        run.kernels->dense_forward(
            piece.shape, source(run) + piece.offset, piece.connections.data(), piece.first_connection.data(),
            whole_input(run, samples).from(piece.group * layout_.group_inputs), piece.buffer_rows(), scratch.buffer);
      } else {
        run.kernels->map_forward(piece.shape, source(run) + piece.offset, piece.connections.data(),
                                 piece.first_connection.data(), scratch.rows, samples, spec.input_positions,
                                 piece.buffer_rows(), scratch.buffer);
      }
      for (int s = 0; s < samples; ++s) put(piece, scratch.buffer + s * piece.buffer_size(), y + s * run.act_stride);
    }
  }

  // `run`: of the first of the samples. Some input channels of each group.
  void backward_some(const Run& run, int samples, int channel, int channels) const {
    const MapSpec& spec = layout_.spec;
    const float* const x = run.act + at_.x + channel;
    const float* const dy = run.grad + at_.dy;
    float* const dx = at_.dx < 0 ? nullptr : run.grad + at_.dx + channel;
    const Scratch scratch(layout_, at_.dense(), run.scratch);
    if (dx && !at_.add_dx) clear(run, dx, samples, channels);
    for (int s = 0; s < samples; ++s) {
      for (int p = 0; p < spec.input_positions; ++p) {
        scratch.gx_offset[s * spec.input_positions + p] = static_cast<int>(s * run.grad_stride) + p * spec.inputs;
      }
    }
    int listed_group = -1;
    for (const auto& piece : layout_.pieces) {
      const int first_input = piece.group * layout_.group_inputs;
      if (!at_.dense() && piece.group != listed_group) {  // entries that are zero have no part in dW, nor in dx
        listed_group = piece.group;
        run.kernels->list_columns(x + first_input, run.act_stride, samples, spec.inputs, spec.input_positions, channels,
                                  scratch.by_channel, scratch.transposed);
      }
      for (int s = 0; s < samples; ++s) get(piece, dy + s * run.grad_stride, scratch.buffer + s * piece.buffer_size());
      const std::int64_t row = piece.offset + piece.shape.row(channel, 0);
      MapBackward job{};
      job.channels = channels;
      job.weights = source(run) + row;
      job.compact = at_.compact;
      job.learn = learns(run);
      if (job.learn) {
        if (at_.source == MapPlaces::Source::prepared) {
          job.gradient = run.prepared + at_.gradient + row;
        } else if (at_.gradient >= 0) {
          job.gradient = run.gradient + at_.gradient + row;
        } else {
          job.state = run.state.at(at_.weights + row);
        }
      }
      job.lists = scratch.by_channel;
      job.x = whole_input(run, samples).from(first_input + channel);
      job.connections = piece.connections.data();
      job.first_connection = piece.first_connection.data();
      job.outputs_each = piece.buffer_rows();
      job.g = scratch.buffer;
      job.output_row = piece.output_row.data();
      job.positions = layout_.together * spec.input_positions;
      job.gx = dx ? dx + first_input : nullptr;
      job.gx_offset = scratch.gx_offset;
      job.adam = run.adam;
      (at_.dense() ? run.kernels->dense_backward : run.kernels->map_backward)(piece.shape, job);
    }
  }

  DenseInput whole_input(const Run& run, int samples) const {
    return {run.act + at_.x, run.act_stride, layout_.spec.inputs, samples, layout_.spec.input_positions};
  }

  // Zeros in some channels of each group, of each sample.
  void clear(const Run& run, float* dx, int samples, int channels) const {
    const MapSpec& spec = layout_.spec;
    for (int s = 0; s < samples; ++s, dx += run.grad_stride) {
      if (channels == spec.inputs) {
        std::fill_n(dx, static_cast<std::int64_t>(spec.input_positions) * spec.inputs, 0.0f);
        continue;
      }
      for (int i = 0; i < spec.input_positions * spec.groups; ++i) {
        std::fill_n(dx + static_cast<std::int64_t>(i) * layout_.group_inputs, channels, 0.0f);
      }
    }
  }

  const float* source(const Run& run) const {
    switch (at_.source) {
      case MapPlaces::Source::state: return run.state.old + at_.weights;
      case MapPlaces::Source::prepared: return run.prepared + at_.weights;
      case MapPlaces::Source::fixed: return run.fixed + at_.weights;
    }
    __builtin_unreachable();
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
      for (int i = spec.first_connection[tap]; i < spec.first_connection[tap + 1]; ++i) {
        f(static_cast<std::size_t>(spec.connections[i].input) * piece.shape.ld + n,
          static_cast<std::size_t>(spec.connections[i].output) * spec.outputs + first, count);
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
      each_output_row(
          piece, [&](std::size_t from, std::size_t to) { std::copy_n(buffer + from, piece.shape.outputs, y + to); });
    }
  }

  // The adjoint: what a piece sees of the output's gradient; zero where it sees nothing, and in the padding.
  void get(const MapLayout::Piece& piece, const float* dy, float* buffer) const {
    if (layout_.columns) {
      std::fill_n(buffer, piece.buffer_size(), 0.0f);
      each_column(piece, [&](std::size_t to, std::size_t from, int count) {
        int n = 0;
        do buffer[to + n] = dy[from + n];
        while (++n < count);
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

  const MapLayout& layout_;
  const MapPlaces at_;
};

}  // namespace

std::int64_t map_scratch_size(const MapLayout& layout, const MapPlaces& at) {
  return Scratch(layout, at.dense(), nullptr).size;
}

std::unique_ptr<Node> make_map_node(const MapLayout* layout, const MapPlaces& places) {
  return std::make_unique<MapNode>(layout, places);
}

}  // namespace adgan
