// Linear layers and convolutions: their geometry, and the layout of their weights.
#pragma once

#include <vector>

#include "core/plan.h"

namespace adgan {

// A layer as channels, positions and taps, whatever its kind.
struct MapSpec {
  enum class Order { linear, transposed_linear, conv, conv_transpose };  // of the weights, as the module has them
  Order order;
  int inputs, outputs, groups;  // channels in all
  int input_positions, output_positions, taps;
  std::vector<Connection> connections;  // by tap, then by input position
  std::vector<int> first_connection;    // taps + 1

  static MapSpec of(const Layer& layer, const std::vector<Value>& values);

  // Where the weight from a channel through a tap to an output lies in the module's tensor; channels within the group.
  std::int64_t index_in_module(int group, int input, int tap, int output) const;
  std::int64_t weights() const { return static_cast<std::int64_t>(inputs) * (outputs / groups) * taps; }
};

// How a layer is computed: in pieces, each a map (kernels.h) from all inputs of a group to some of its outputs by some
// of its taps. A piece's outputs are computed in a buffer of their own, a row for each position, and then put into
// place.
//
//  direct: taps that never meet in an output position are apart (a stride of two makes four such sets, one for each
//    parity), so that what a piece reads and writes again and again is small.
//  columns: few output channels. One map to (tap, output channel) for each input position, then taps are summed: a
//  matrix
//    product and col2im, the transpose of im2col.
class MapLayout : public Packing {
 public:
  // `most` samples pass at a time, or fewer where their outputs would not stay in the first-level cache.
  MapLayout(const MapSpec& spec, bool rank1, int most);

  struct Piece {
    MapShape shape;
    int group;
    int first_output;                     // within the group's outputs, or columns
    std::vector<int> taps;                // in the module's numbers; empty: columns
    std::vector<int> positions;           // of the output, that these taps reach
    std::vector<Connection> connections;  // input position, row of the buffer
    std::vector<int> first_connection;    // by tap
    std::vector<int> output_row;  // [tap][input position]: where in the buffer; a row of zeros ends each sample's part
    std::int64_t offset;          // of the weights

    int buffer_rows() const { return static_cast<int>(positions.size()) + 1; }  // of one sample
    std::int64_t buffer_size() const { return static_cast<std::int64_t>(buffer_rows()) * shape.ld; }
  };
  MapSpec spec;
  bool rank1;
  int together;  // samples at a time
  bool columns;
  bool in_order;                    // there is one input position, and its columns are the output
  bool covered;                     // every output position is reached
  int group_inputs, group_outputs;  // outputs: columns where there are
  std::vector<Piece> pieces;

  std::int64_t packed_size() const override { return size_; }
  void pack(const float* unpacked, float* packed) const override;
  void add_unpacked(const float* packed, float* unpacked) const override;

 private:
  template <typename F>
  void each_row(const F& f) const;
  void add_pieces(const std::vector<int>& taps);
  void set_output_rows(Piece& piece) const;
  std::int64_t size_ = 0;
};

}  // namespace adgan
