// The nodes of each layer (plan_builder.h).
#include <algorithm>
#include <numeric>
#include <utility>

#include "core/nodes/rank1_node.h"
#include "core/nodes/simple_nodes.h"
#include "core/plan_builder.h"

namespace adgan {

void Builder::add_nodes(const Layer& layer, const MapLayout* layout) {
  const int y = layer.output, from = source(y);
  if (from != y) {  // a reshape that only renames
    if (gated_.count(from)) gated_.insert(y);
    return;
  }
  switch (traits(layer.op).family) {
    case Family::map: return add_map(layer, layout);
    case Family::norm: return add_norm(layer);
    case Family::activation: return add_activation(layer);
    case Family::arithmetic: return add_arithmetic(layer);
    case Family::gather: return add_gather(layer);
  }
}

void Builder::add_map(const Layer& layer, const MapLayout* layout) {
  const int x = layer.inputs[0], w = layer.inputs[1], b = layer.inputs[2], y = layer.output;
  require(value(x).batched() && value(y).batched(), "a layer's input does not depend on the latent");
  require(b < 0 || (stored(b) && value(b).size() == layout->spec.outputs), "a layer's bias does not fit");
  MapPlaces at{};
  at.x = act_[x];
  at.dx = gradient_of(x);
  at.add_dx = adds(x);
  at.y = act_[y];
  at.dy = grad_[y];
  at.gated = gated_.count(source(x)) || gated_.count(x);
  std::int64_t x_row = -1, dx_row = -1, y_row = -1, dy_row = -1;
  const Storage in = storage(x), out = storage(y);
  if (layer.op == Op::linear && !in.row_major()) {  // the last dimension has to be the innermost
    x_row = take(plan_.act_size, value(x).size());
    dx_row = take_gradient(value(x).shape);
    plan_.nodes.push_back(
        make_gather(row_major_from(value(x)), value(x).size(), at.x, x_row, at.dx, dx_row, at.add_dx));
    at.x = x_row;
    at.dx = dx_row;
    at.add_dx = false;
  }
  if (layer.op == Op::linear && !out.row_major()) {
    y_row = take(plan_.act_size, value(y).size());
    dy_row = take_gradient(value(y).shape);
    at.y = y_row;
    at.dy = dy_row;
  }
  find_map_weights(w, layout, at);
  vector_parameter(b, at.bias, at.bias_fixed, at.bias_sums);
  if (layout->rank1) {
    at.history = take(plan_.history_size, rank1_history_size(*layout, steps_));
    at.moves_latent = source(x) == program_.latent && uses_[program_.latent] == 1 && x_row < 0 && y_row < 0;
    at.compact = compact_ && at.moves_latent;
    at.change = take(plan_.change_size, rank1_change_size(*layout, at.compact));
    plan_.moves_latent = plan_.moves_latent || at.moves_latent;
  }
  plan_.nodes.push_back(layout->rank1 ? make_rank1_node(layout, at) : make_map_node(layout, at));
  if (y_row >= 0) {
    std::vector<int> index(static_cast<std::size_t>(value(y).size()));
    for (std::int64_t i = 0; i < value(y).size(); ++i) index[static_cast<std::size_t>(out(i))] = static_cast<int>(i);
    plan_.nodes.push_back(make_gather(index, value(y).size(), y_row, act_[y], dy_row, grad_[y], false));
  }
}

void Builder::find_map_weights(int w, const MapLayout* layout, MapPlaces& at) {
  if (value(w).kind == Kind::constant) {
    at.source = MapPlaces::Source::fixed;
    at.weights = take(plan_.fixed_size, layout->packed_size());
    at.gradient = -1;
    plan_.fixed_.push_back({at.weights, value(w).index, layout, -1.0});
  } else if (plan_.parameters[value(w).index].packing == layout) {
    at.source = MapPlaces::Source::state;
    at.weights = plan_.parameters[value(w).index].offset;
    at.gradient = plan_.parameters[value(w).index].gradient;
  } else {  // several layers' weights, or an operand's
    const Parameter& p = plan_.parameters[value(w).index];
    at.source = MapPlaces::Source::prepared;
    at.unpacked = p.offset;
    at.unpacked_gradient = p.gradient;
    at.weights = take(plan_.prepared_size, layout->packed_size());
    at.gradient = learn_ ? take(plan_.prepared_size, layout->packed_size()) : -1;
  }
  at.compact = compact_ && at.source == MapPlaces::Source::state;
}

// For each element in row-major order, where it is stored.
std::vector<int> Builder::row_major_from(const Value& v) {
  const Storage stored_as(v);
  std::vector<int> index(static_cast<std::size_t>(v.size()));
  for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<int>(stored_as(static_cast<std::int64_t>(i)));
  return index;
}

void Builder::add_norm(const Layer& layer) {
  switch (static_cast<NormOp>(layer.op)) {
    case NormOp::batch_norm: return add_batch_norm(layer);
  }
}

void Builder::add_batch_norm(const Layer& layer) {
  const int x = layer.inputs[0], y = layer.output;
  const Shape& shape = value(x).shape;
  require(value(x).batched() && !shape.empty() && value(x).size() == value(y).size(),
          "a batch norm's shapes do not fit");
  for (int i = 3; i < 5; ++i) {
    const int v = layer.inputs[i];
    require(v >= 0 && value(v).kind == Kind::constant && value(v).size() == shape[0], "a batch norm has no statistics");
  }
  for (int i = 1; i < 3; ++i) {
    const int v = layer.inputs[i];
    require(v < 0 || (stored(v) && value(v).size() == shape[0]), "a batch norm's parameters do not fit");
  }
  NormPlaces at{};
  at.x = act_[x];
  at.y = act_[y];
  at.dx = gradient_of(x);
  at.dy = grad_[y];
  at.add_dx = adds(x);
  at.channels = static_cast<int>(shape[0]);
  at.mean = constant(layer.inputs[3]);
  at.inverse = take(plan_.fixed_size, at.channels);
  plan_.fixed_.push_back({at.inverse, value(layer.inputs[4]).index, nullptr, layer.real[0]});
  vector_parameter(layer.inputs[1], at.weight, at.weight_fixed, at.weight_sums);
  vector_parameter(layer.inputs[2], at.bias, at.bias_fixed, at.bias_sums);
  at.prepared = take(plan_.prepared_size, 2 * at.channels);
  const std::int64_t rest = product(shape, 1);
  const bool by_position = shape.size() == 3;
  at.outer = by_position ? static_cast<int>(rest) : 1;
  at.inner = by_position ? 1 : static_cast<int>(rest);
  plan_.scratch_size = std::max(plan_.scratch_size, value(x).size());
  plan_.nodes.push_back(make_norm(at));
}

void Builder::add_activation(const Layer& layer) {
  const int x = layer.inputs[0], y = layer.output;
  const auto op = static_cast<ActivationOp>(layer.op);
  require(value(x).size() == value(y).size(), "an elementwise layer changes the number of elements");
  const std::int64_t from = op == ActivationOp::leaky_relu && act_[x] == act_[y] ? act_[y] : act_[x];
  plan_.nodes.push_back(
      make_activation(op, layer.real, from, act_[y], gradient_of(x), grad_[y], adds(x), value(y).size()));
}

void Builder::add_arithmetic(const Layer& layer) {
  const int a = layer.inputs[0], b = layer.inputs[1], y = layer.output;
  require(b >= 0, "an operand is missing");
  BinaryPlaces at{};
  at.op = static_cast<ArithmeticOp>(layer.op);
  at.alpha = static_cast<float>(layer.real[0]);
  at.a = act_[a];
  at.b = act_[b];
  at.y = act_[y];
  at.da = gradient_of(a);
  at.db = gradient_of(b);
  at.dy = grad_[y];
  at.add_da = adds(a);
  at.add_db = adds(b);
  at.size = value(y).size();
  at.size_a = value(a).size();
  at.size_b = value(b).size();
  at.index_a = broadcast(a, y);
  at.index_b = broadcast(b, y);
  scratch_for_sums(at.size, at.size_a);
  scratch_for_sums(at.size, at.size_b);
  plan_.nodes.push_back(make_binary(std::move(at)));
}

void Builder::scratch_for_sums(std::int64_t numbers, std::int64_t n) {
  if (gathers_many(numbers, n)) plan_.scratch_size = std::max(plan_.scratch_size, 2 * n);
}

// For each element of y as stored, that of the operand v which it meets; empty where it is the same.
std::vector<int> Builder::broadcast(int v, int y) const {
  const Shape& to = value(y).shape;
  Shape from = value(v).shape;
  if (value(y).batched() && !value(v).batched() && from.size() == to.size() + 1) {
    require(from[0] == 1, "an operand's batch dimension is not one");
    from.erase(from.begin());
  }
  require(from.size() <= to.size(), "an operand has too many dimensions");
  from.insert(from.begin(), to.size() - from.size(), 1);
  const Storage source_of = storage(v), target = storage(y);
  std::vector<int> index(static_cast<std::size_t>(value(y).size()));
  bool same = value(v).size() == value(y).size();
  for (std::int64_t i = 0; i < value(y).size(); ++i) {
    std::int64_t rest = i, flat = 0, step = 1;
    for (std::size_t d = to.size(); d-- > 0;) {
      require(from[d] == to[d] || from[d] == 1, "an operand's shape does not broadcast");
      if (from[d] != 1) flat += rest % to[d] * step;
      rest /= to[d];
      step *= from[d];
    }
    const std::int64_t here = target(i), there = source_of(flat);
    index[static_cast<std::size_t>(here)] = static_cast<int>(there);
    same = same && here == there;
  }
  if (same) index.clear();
  return index;
}

namespace {

// For each element of a permutation's output, which of its input; both in row-major order.
std::vector<std::int64_t> permutation(const Shape& from, const Shape& to, const std::vector<std::int64_t>& dims) {
  require(dims.size() == to.size() && from.size() == to.size(), "a permutation does not fit");
  Shape steps(from.size(), 1);
  for (std::size_t d = from.size(); d-- > 1;) steps[d - 1] = steps[d] * from[d];
  for (std::size_t d = 0; d < to.size(); ++d) {
    require(dims[d] >= 0 && dims[d] < static_cast<std::int64_t>(from.size()) && from[dims[d]] == to[d],
            "a permutation does not fit");
  }
  std::vector<std::int64_t> index(static_cast<std::size_t>(product(to)));
  for (std::size_t i = 0; i < index.size(); ++i) {
    std::int64_t rest = static_cast<std::int64_t>(i);
    for (std::size_t d = to.size(); d-- > 0;) {
      index[i] += rest % to[d] * steps[dims[d]];
      rest /= to[d];
    }
  }
  return index;
}

// The same of a map that grows `high` × `wide` times: each pixel repeated, or (shuffle) taken from as many channels.
std::vector<std::int64_t> enlarged(const Shape& from, const Shape& to, std::int64_t high, std::int64_t wide,
                                   bool shuffle) {
  require(from.size() == 3 && to.size() == 3, "a layer's shapes do not fit");
  require(high > 0 && wide > 0 && to[1] == from[1] * high && to[2] == from[2] * wide &&
              from[0] == (shuffle ? to[0] * high * wide : to[0]),
          "a layer's shapes do not fit");
  std::vector<std::int64_t> index;
  for (std::int64_t c = 0; c < to[0]; ++c) {
    for (std::int64_t h = 0; h < to[1]; ++h) {
      for (std::int64_t w = 0; w < to[2]; ++w) {
        const std::int64_t channel = shuffle ? (c * high + h % high) * wide + w % wide : c;
        index.push_back((channel * from[1] + h / high) * from[2] + w / wide);
      }
    }
  }
  return index;
}

std::vector<std::int64_t> unchanged(std::int64_t n) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(n));
  std::iota(index.begin(), index.end(), 0);
  return index;
}

// Which element of x each element of y is, both in row-major order.
std::vector<std::int64_t> gathered(const Layer& layer, const Shape& x, const Shape& y) {
  switch (static_cast<GatherOp>(layer.op)) {
    case GatherOp::reshape: return unchanged(product(y));
    case GatherOp::permute: return permutation(x, y, layer.whole);
    case GatherOp::upsample_nearest: return enlarged(x, y, layer.whole[0], layer.whole[1], false);
    case GatherOp::pixel_shuffle: return enlarged(x, y, layer.whole[0], layer.whole[0], true);
  }
  __builtin_unreachable();
}

}  // namespace

void Builder::add_gather(const Layer& layer) {
  const int x = layer.inputs[0], y = layer.output;
  const Storage in = storage(x), out = storage(y);
  const std::vector<std::int64_t> from = gathered(layer, value(x).shape, value(y).shape);
  std::vector<int> index(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    require(from[i] >= 0 && from[i] < value(x).size(), "a layer's shapes do not fit");
    index[static_cast<std::size_t>(out(static_cast<std::int64_t>(i)))] = static_cast<int>(in(from[i]));
  }
  scratch_for_sums(value(y).size(), value(x).size());
  plan_.nodes.push_back(
      make_gather(std::move(index), value(x).size(), act_[x], act_[y], gradient_of(x), grad_[y], adds(x)));
  if (gated_.count(source(x))) gated_.insert(y);
}

}  // namespace adgan
