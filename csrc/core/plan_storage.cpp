// Which values are stored position by position, and which row-major (plan_builder.h, storage.h).
#include <numeric>

#include "core/plan_builder.h"

namespace adgan {

namespace {

bool is_spatial(Op op) {
  return op == Op::conv2d || op == Op::conv_transpose2d || op == Op::resample || op == Op::upsample_nearest ||
         op == Op::pixel_shuffle;
}

// Whether so many pixels are the last dimensions of a shape.
bool ends_with(const Shape& shape, std::int64_t pixels) {
  std::int64_t last = 1;
  for (std::size_t d = shape.size(); d-- > 1 && last < pixels;) last *= shape[d];
  return last == pixels;
}

}  // namespace

// What goes element by element is stored as what it comes from. Convolutions want positions, products of matrices rows;
// a reshape passes on what one side of it wants.
void Builder::choose_storage() {
  std::vector<int> like(program_.values.size());
  std::iota(like.begin(), like.end(), 0);
  const auto root = [&](int v) {
    while (like[v] != v) v = like[v];
    return v;
  };
  for (const Layer& layer : program_.layers) {
    if (keeps_places(layer.op)) like[root(layer.output)] = root(layer.inputs[0]);
  }
  std::vector<std::int64_t> wanted(program_.values.size(), 0);  // pixels, by root
  const auto want = [&](int v, std::int64_t pixels) {
    if (v < 0 || !value(v).batched() || wanted[root(v)] != 0) return;
    wanted[root(v)] = pixels == value(v).size() ? 1 : pixels;  // of one channel: row-major
  };
  const auto want_positions = [&](int v) {
    if (value(v).shape.size() == 3) want(v, product(value(v).shape, 1));
  };
  want_positions(program_.output);
  for (const Layer& layer : program_.layers) {
    if (is_spatial(layer.op) || layer.op == Op::batch_norm) want_positions(layer.inputs[0]);
    if (is_spatial(layer.op)) want_positions(layer.output);
  }
  for (const Layer& layer : program_.layers) {
    if (layer.op != Op::matmul && layer.op != Op::linear) continue;
    want(layer.inputs[0], 1);
    want(layer.output, 1);
    if (layer.op == Op::matmul) want(layer.inputs[1], 1);
  }
  for (bool changed = true; changed;) {
    changed = false;
    const auto pass_on = [&](int from, int to) {
      if (from < 0 || to < 0 || !value(from).batched() || !value(to).batched()) return;
      const std::int64_t pixels = wanted[root(from)];
      if (pixels == 0 || wanted[root(to)] != 0 || value(from).size() != value(to).size() ||
          !ends_with(value(to).shape, pixels)) {
        return;
      }
      want(to, pixels);
      changed = true;
    };
    for (const Layer& layer : program_.layers) {
      if (layer.op != Op::reshape && traits(layer.op).family != Family::arithmetic) continue;
      for (const int x : layer.inputs) {
        pass_on(x, layer.output);
        pass_on(layer.output, x);
      }
    }
  }
  for (std::size_t v = 0; v < program_.values.size(); ++v) {
    const Value& found = value(static_cast<int>(v));
    std::int64_t pixels = found.batched() ? wanted[root(static_cast<int>(v))] : 1;
    if (pixels == 0) pixels = found.shape.size() == 3 ? product(found.shape, 1) : 1;
    pixels_[v] = found.size() % pixels == 0 ? pixels : 1;
  }
}

}  // namespace adgan
