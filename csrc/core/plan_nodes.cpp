// The nodes of each layer (plan_builder.h).
#include <tuple>
#include <utility>

#include "core/nodes/prelu_node.h"
#include "core/nodes/rank1_node.h"
#include "core/nodes/simple_nodes.h"
#include "core/plan_builder.h"

namespace adgan {

void Builder::add_nodes(std::size_t l) {
  const std::size_t first = nodes().size();
  add_nodes_of(program_.layers[l], layouts_[l].get());
  for (std::size_t i = first; i < nodes().size(); ++i) nodes()[i]->passes_gradient = passed_[l];
}

void Builder::add_nodes_of(const Layer& layer, const MapLayout* layout) {
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
    case Family::product: return add_product(layer);
    case Family::reduction: return add_reduction(layer);
    case Family::banded: return add_banded(layer);
    case Family::gather: return add_gather(layer);
    case Family::join: return add_join(layer);
  }
}

void Builder::add_map(const Layer& layer, const MapLayout* layout) {
  const int x = layer.inputs[0], w = layer.inputs[1], b = layer.inputs[2], y = layer.output;
  require(value(x).batched() && value(y).batched(), "a layer's input does not depend on the latent");
  require(b < 0 || (stored(b) && value(b).size() == layout->spec.outputs), "a layer's bias does not fit");
  // Of a linear layer the last dimension has to be the innermost.
  const bool linear = layer.op == Op::linear;
  const Storage in = linear ? rows_of(x) : storage(x), out = linear ? rows_of(y) : storage(y);
  const Place from = taken_as(x, in), to = made_as(y, out);
  MapPlaces at{};
  at.x = from.act;
  at.dx = from.grad;
  at.add_dx = from.add;
  at.y = to.act;
  at.dy = to.grad;
  at.gated = gated_.count(source(x)) || gated_.count(x);
  find_map_weights(w, layout, at);
  vector_parameter(b, at.bias, at.bias_fixed, at.bias_sums);
  if (layout->rank1) {
    at.history = take(plan_.history_size, rank1_history_size(*layout, steps_));
    at.moves_latent = source(x) == program_.latent && uses_[program_.latent] == 1 && !from.copy && !to.copy;
    at.compact = compact_ && at.moves_latent;
    at.change = take(plan_.change_size, rank1_change_size(*layout, at.compact));
    plan_.moves_latent = plan_.moves_latent || at.moves_latent;
  }
  if (!layout->rank1) need_scratch(map_scratch_size(*layout, at));
  nodes().push_back(layout->rank1 ? make_rank1_node(layout, at) : make_map_node(layout, at));
  put(y, out, to);
}

void Builder::find_map_weights(int w, const MapLayout* layout, MapPlaces& at) {
  if (value(w).kind == Kind::constant) {
    at.source = MapPlaces::Source::fixed;
    at.weights = take(plan_.fixed_size, layout->packed_size());
    at.gradient = -1;
    plan_.fixed_.push_back({at.weights, value(w).index, layout, -1.0});
  } else if (value(w).kind == Kind::parameter && plan_.parameters[value(w).index].packing == layout) {
    at.source = MapPlaces::Source::state;
    at.weights = plan_.parameters[value(w).index].offset;
    at.gradient = plan_.parameters[value(w).index].gradient;
  } else {  // several layers' weights, or an operand's, or computed from others
    at.source = MapPlaces::Source::prepared;
    at.computed = value(w).kind == Kind::weight;
    at.unpacked = at.computed ? plan_.owner_act + owner_act_[w] : plan_.parameters[value(w).index].offset;
    at.unpacked_gradient = at.computed ? plan_.owner_grad + owner_grad_[w] : plan_.parameters[value(w).index].gradient;
    at.weights = take(plan_.prepared_size, layout->packed_size());
    at.gradient = learn_ ? take(plan_.prepared_size, layout->packed_size()) : -1;
  }
  at.compact = compact_ && at.source == MapPlaces::Source::state;
}

void Builder::add_norm(const Layer& layer) {
  switch (static_cast<NormOp>(layer.op)) {
    case NormOp::batch_norm: return add_batch_norm(layer);
    case NormOp::prelu: return add_prelu(layer);
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
  std::tie(at.outer, at.inner) = around_channels(x);
  need_scratch(value(x).size());
  nodes().push_back(make_norm(at));
}

// How many times the channels, the first dimension of x, are there as stored: [outer][channel][inner].
std::pair<int, int> Builder::around_channels(int x) const {
  const std::int64_t rest = product(value(x).shape, 1), pixels = storage(x).pixels();
  require(rest % pixels == 0, "a layer's channels do not fit");
  return {static_cast<int>(pixels), static_cast<int>(rest / pixels)};
}

void Builder::add_prelu(const Layer& layer) {
  const int x = layer.inputs[0], w = layer.inputs[1], y = layer.output;
  const Shape& shape = value(x).shape;
  require(w >= 0 && stored(w) && value(x).size() == value(y).size() &&
              (value(w).size() == 1 || (!shape.empty() && value(w).size() == shape[0])),
          "the slopes of a PReLU do not fit");
  PreluPlaces at{};
  at.x = act_[x];
  at.y = act_[y];
  at.dx = gradient_of(x);
  at.dy = grad_[y];
  at.add_dx = adds(x);
  at.channels = static_cast<int>(value(w).size());
  at.outer = 1;
  at.inner = static_cast<int>(value(x).size());
  if (at.channels > 1) std::tie(at.outer, at.inner) = around_channels(x);
  vector_parameter(w, at.slope, at.slope_fixed, at.slope_sums);
  need_scratch(value(x).size());
  nodes().push_back(make_prelu(at));
}

void Builder::add_activation(const Layer& layer) {
  const int x = layer.inputs[0], y = layer.output;
  const auto op = static_cast<ActivationOp>(layer.op);
  require(value(x).size() == value(y).size(), "an elementwise layer changes the number of elements");
  const std::int64_t from = op == ActivationOp::leaky_relu && act_[x] == act_[y] ? act_[y] : act_[x];
  nodes().push_back(make_activation(op, layer.real, from, act_[y], gradient_of(x), grad_[y], adds(x), value(y).size()));
}

}  // namespace adgan
