// What moves elements: the nodes of gathers, and of values taken or made in another storage (plan_builder.h).
#include <numeric>
#include <utility>

#include "core/nodes/gather_node.h"
#include "core/nodes/wide_sums.h"
#include "core/plan_builder.h"

namespace adgan {

void Builder::scratch_for_sums(std::int64_t numbers, std::int64_t n) {
  if (gathers_many(numbers, n)) need_scratch(2 * n);
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

// The slices at index[1...] along the dimension index[0].
std::vector<std::int64_t> slices(const Shape& from, const Shape& to, const std::vector<std::int64_t>& index) {
  require(
      !index.empty() && index[0] >= 0 && index[0] < static_cast<std::int64_t>(from.size()) && from.size() == to.size(),
      "slices do not fit");
  const auto along = static_cast<std::size_t>(index[0]);
  for (std::size_t d = 0; d < to.size(); ++d) {
    require(to[d] == (d == along ? static_cast<std::int64_t>(index.size()) - 1 : from[d]), "slices do not fit");
  }
  const std::int64_t inner = product(to, along + 1), count = to[along];
  std::vector<std::int64_t> found(static_cast<std::size_t>(product(to)));
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::int64_t flat = static_cast<std::int64_t>(i), row = flat / inner;
    const std::int64_t at = index[static_cast<std::size_t>(row % count) + 1];
    require(at >= 0 && at < from[along], "slices do not fit");
    found[i] = (row / count * from[along] + at) * inner + flat % inner;
  }
  return found;
}

// x with so many numbers around: before each dimension, then after each; -1 where none of x is.
std::vector<std::int64_t> padded(const Shape& from, const Shape& to, const std::vector<std::int64_t>& around) {
  const std::size_t rank = from.size();
  require(to.size() == rank && around.size() == 2 * rank, "a padding does not fit");
  for (std::size_t d = 0; d < rank; ++d) {
    require(around[d] >= 0 && around[rank + d] >= 0 && to[d] == around[d] + from[d] + around[rank + d],
            "a padding does not fit");
  }
  std::vector<std::int64_t> index(static_cast<std::size_t>(product(to)));
  for (std::size_t i = 0; i < index.size(); ++i) {
    std::int64_t rest = static_cast<std::int64_t>(i), flat = 0, step = 1;
    bool inside = true;
    for (std::size_t d = rank; d-- > 0;) {
      const std::int64_t at = rest % to[d] - around[d];
      inside = inside && at >= 0 && at < from[d];
      flat += at * step;
      rest /= to[d];
      step *= from[d];
    }
    index[i] = inside ? flat : -1;
  }
  return index;
}

// Which element of x each element of y is, both in row-major order; -1: none.
std::vector<std::int64_t> gathered(const Layer& layer, const Shape& x, const Shape& y) {
  switch (static_cast<GatherOp>(layer.op)) {
    case GatherOp::reshape:
    case GatherOp::stop: return unchanged(product(y));
    case GatherOp::expand: break;  // add_gather: by broadcast()
    case GatherOp::take: return slices(x, y, layer.whole);
    case GatherOp::pad: return padded(x, y, layer.whole);
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
  GatherPlaces at{};
  if (layer.op == Op::expand) {
    at.source = broadcast(x, y);
    if (at.source.empty()) {
      at.source.resize(static_cast<std::size_t>(value(y).size()));
      std::iota(at.source.begin(), at.source.end(), 0);
    }
  } else {
    const std::vector<std::int64_t> from = gathered(layer, value(x).shape, value(y).shape);
    at.source.resize(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) {
      require(from[i] < value(x).size(), "a layer's shapes do not fit");
      at.source[static_cast<std::size_t>(out(static_cast<std::int64_t>(i)))] =
          from[i] < 0 ? -1 : static_cast<int>(in(from[i]));
    }
  }
  at.elsewhere = static_cast<float>(layer.real[0]);
  at.input_size = value(x).size();
  at.x = act_[x];
  at.y = act_[y];
  at.dx = gradient_of(x);
  at.dy = grad_[y];
  at.add_dx = adds(x);
  scratch_for_sums(value(y).size(), value(x).size());
  nodes().push_back(make_gather(std::move(at)));
  if (gated_.count(source(x)) || gated_.count(x)) gated_.insert(y);  // no gradient reaches the padding
}

void Builder::add_join(const Layer& layer) {
  switch (static_cast<JoinOp>(layer.op)) {
    case JoinOp::cat: return add_cat(layer);
  }
}

void Builder::add_cat(const Layer& layer) {
  const int y = layer.output;
  const Shape& to = value(y).shape;
  const std::int64_t along = layer.whole[0];
  require(along >= 0 && along < static_cast<std::int64_t>(to.size()), "values side by side do not fit");
  const auto dim = static_cast<std::size_t>(along);
  std::int64_t before = 0;
  bool gated = true;
  for (const int x : layer.inputs) {
    require(x >= 0 && value(x).shape.size() == to.size() && value(x).batched() == value(y).batched(),
            "values side by side do not fit");
    const Shape& from = value(x).shape;
    for (std::size_t d = 0; d < to.size(); ++d) require(d == dim || from[d] == to[d], "values side by side do not fit");
    require(before + from[dim] <= to[dim], "values side by side do not fit");
    const std::int64_t inner = product(to, dim + 1), row = from[dim] * inner;
    const Storage in = storage(x), out = storage(y);
    std::vector<int> target(static_cast<std::size_t>(value(x).size()));
    for (std::int64_t i = 0; i < value(x).size(); ++i) {
      const std::int64_t place = i / row * to[dim] * inner + before * inner + i % row;
      target[static_cast<std::size_t>(in(i))] = static_cast<int>(out(place));
    }
    nodes().push_back(make_placement({std::move(target), act_[x], act_[y], gradient_of(x), grad_[y], adds(x)}));
    before += from[dim];
    gated = gated && (gated_.count(source(x)) || gated_.count(x));
  }
  require(before == to[dim], "values side by side do not fit");
  if (gated) gated_.insert(y);
}

// For each element in row-major order, where it is stored.
std::vector<int> Builder::row_major_from(int v) const {
  const Storage stored_as = storage(v);
  std::vector<int> index(static_cast<std::size_t>(value(v).size()));
  for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<int>(stored_as(static_cast<std::int64_t>(i)));
  return index;
}

namespace {

// For each element stored as `to`, where it is in `from`.
std::vector<int> rearranged(std::int64_t size, const Storage& from, const Storage& to) {
  std::vector<int> index(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) index[static_cast<std::size_t>(to(i))] = static_cast<int>(from(i));
  return index;
}

}  // namespace

Builder::Place Builder::taken_as(int v, const Storage& wanted) {
  const Place as_it_is{act_[v], gradient_of(v), adds(v), false};
  if (wanted == storage(v)) return as_it_is;
  const std::int64_t size = value(v).size();
  const Place copy{take_act(size), take_grad(size), false, true};
  nodes().push_back(make_gather({rearranged(size, storage(v), wanted), size, 0.0f, as_it_is.act, copy.act,
                                 as_it_is.grad, copy.grad, as_it_is.add}));
  return copy;
}

Builder::Place Builder::made_as(int v, const Storage& wanted) {
  if (wanted == storage(v)) return {act_[v], grad_[v], false, false};
  return {take_act(value(v).size()), take_grad(value(v).size()), false, true};
}

void Builder::put(int v, const Storage& made, const Place& place) {
  if (!place.copy) return;
  const std::int64_t size = value(v).size();
  nodes().push_back(
      make_gather({rearranged(size, made, storage(v)), size, 0.0f, place.act, act_[v], place.grad, grad_[v], false}));
}

}  // namespace adgan
