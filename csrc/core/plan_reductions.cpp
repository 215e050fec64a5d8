// Sums over dimensions, and products that are no maps: their nodes (plan_builder.h).
#include "core/nodes/gather_node.h"
#include "core/nodes/matmul_node.h"
#include "core/nodes/reduction_nodes.h"
#include "core/nodes/resample_node.h"
#include "core/plan_builder.h"

namespace adgan {

namespace {

// A dimension, or a part of one: its size, how far its elements lie apart in row-major order, whether it is summed
// over.
struct Axis {
  std::int64_t size, step;
  bool reduced;
};

// The axes of a value in row-major order.
std::vector<Axis> axes_of(const Shape& shape, const std::vector<std::int64_t>& dims) {
  std::vector<Axis> axes;
  std::int64_t step = 1;
  for (std::size_t d = shape.size(); d-- > 0;) {
    axes.insert(axes.begin(), Axis{shape[d], step, false});
    step *= shape[d];
  }
  for (const std::int64_t d : dims) {
    require(d >= 0 && d < static_cast<std::int64_t>(shape.size()), "a layer sums over a dimension that is not there");
    axes[static_cast<std::size_t>(d)].reduced = true;
  }
  return axes;
}

// The same in the order in which they are stored, outermost first; none where an axis is cut in no whole parts.
std::vector<Axis> as_stored(const std::vector<Axis>& axes, const Storage& storage) {
  if (storage.row_major()) return axes;
  const std::int64_t pixels = storage.pixels();
  std::vector<Axis> outer, inner;  // pixels, channels
  for (const Axis& axis : axes) {
    if (axis.step >= pixels) {
      inner.push_back(axis);
    } else if (axis.step * axis.size <= pixels) {
      outer.push_back(axis);
    } else {
      if (pixels % axis.step != 0 || axis.size % (pixels / axis.step) != 0) return {};
      const std::int64_t part = pixels / axis.step;
      inner.push_back({axis.size / part, pixels, axis.reduced});
      outer.push_back({part, axis.step, axis.reduced});
    }
  }
  outer.insert(outer.end(), inner.begin(), inner.end());
  return outer;
}

// The same elements in a form that kernels take. False where there is none.
bool find_form(const std::vector<Axis>& axes, Reduced& form) {
  std::vector<Axis> merged;
  for (const Axis& axis : axes) {
    if (axis.size == 1) continue;
    if (!merged.empty() && merged.back().reduced == axis.reduced) {
      merged.back().size *= axis.size;
    } else {
      merged.push_back(axis);
    }
  }
  std::size_t at = 0;
  const auto next = [&](bool reduced, std::int64_t otherwise) {
    return at < merged.size() && merged[at].reduced == reduced ? merged[at++].size : otherwise;
  };
  form = Reduced{};
  form.outer = next(false, 1);
  form.n = next(true, 1);
  const std::int64_t kept = next(false, 0), group = next(true, 1);
  form.columns = static_cast<int>(kept * group);
  form.group = static_cast<int>(group);
  return at == merged.size();
}

// Where the elements are stored, those that are kept in their stored order, and for each of them those of its sum.
std::vector<int> kept_first(const std::vector<Axis>& axes, const Storage& storage) {
  std::vector<Axis> order;
  for (const bool reduced : {false, true}) {
    for (const Axis& axis : axes) {
      if (axis.reduced == reduced) order.push_back(axis);
    }
  }
  std::int64_t size = 1;
  for (const Axis& axis : order) size *= axis.size;
  std::vector<int> index(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) {
    std::int64_t rest = i, flat = 0;
    for (std::size_t d = order.size(); d-- > 0;) {
      flat += rest % order[d].size * order[d].step;
      rest /= order[d].size;
    }
    index[static_cast<std::size_t>(i)] = static_cast<int>(storage(flat));
  }
  return index;
}

std::vector<int> inverse(const std::vector<int>& index) {
  std::vector<int> result(index.size());
  for (std::size_t i = 0; i < index.size(); ++i) result[static_cast<std::size_t>(index[i])] = static_cast<int>(i);
  return result;
}

// For each sum as y stores it, its place among the kept axes of x in their stored order.
std::vector<int> places_of_sums(const std::vector<Axis>& row_major, const std::vector<Axis>& stored, const Storage& y,
                                std::int64_t count) {
  std::vector<std::int64_t> step(row_major.size(), 0);
  std::vector<int> index(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t rest = i, flat = 0;  // flat: in x, where the axes that are summed over are at 0
    for (std::size_t d = row_major.size(); d-- > 0;) {
      if (row_major[d].reduced) continue;
      flat += rest % row_major[d].size * row_major[d].step;
      rest /= row_major[d].size;
    }
    std::int64_t place = 0;
    for (const Axis& axis : stored) {
      if (!axis.reduced) place = place * axis.size + flat / axis.step % axis.size;
    }
    index[static_cast<std::size_t>(y(i))] = static_cast<int>(place);
  }
  return index;
}

bool in_order(const std::vector<int>& index) {
  for (std::size_t i = 0; i < index.size(); ++i) {
    if (index[i] != static_cast<int>(i)) return false;
  }
  return true;
}

}  // namespace

// Where no form fits, the elements of a sum are first brought together, and what comes out is brought back.
void Builder::add_reduction(const Layer& layer) {
  const int x = layer.inputs[0], y = layer.output;
  const std::int64_t size = value(x).size(), size_y = value(y).size();
  const std::vector<Axis> row_major = axes_of(value(x).shape, layer.whole);
  std::int64_t kept = 1;
  for (const Axis& axis : row_major) kept *= axis.reduced ? 1 : axis.size;
  const bool sums = layer.op == Op::sum;
  require(size_y == (sums ? kept : size), "a layer's shapes do not fit");

  Place from{act_[x], gradient_of(x), adds(x), false}, to{act_[y], grad_[y], false, false};
  std::vector<Axis> axes = as_stored(row_major, storage(x));
  Reduced form;
  std::vector<int> together;  // where each element of the copy of x is; empty where there is none
  if (axes.empty() != row_major.empty() || !find_form(axes, form) || (layer.op == Op::softmax && form.group > 1)) {
    if (axes.empty()) axes = row_major;
    together = kept_first(axes, storage(x));
    form = Reduced{};
    form.outer = kept;
    form.n = size / kept;
    const Place copy{take_act(size), take_grad(size), false, true};
    nodes().push_back(make_gather({together, size, 0.0f, from.act, copy.act, from.grad, copy.grad, from.add}));
    from = copy;
  }
  std::vector<int> back = sums ? places_of_sums(row_major, axes, storage(y), kept) : inverse(together);
  if (in_order(back)) back.clear();
  if (!back.empty()) to = {take_act(size_y), take_grad(size_y), false, true};
  switch (static_cast<ReductionOp>(layer.op)) {
    case ReductionOp::standardize:
      need_scratch(standardize_scratch_size(form));
      nodes().push_back(make_standardize(
          {form, layer.real[0], from.act, to.act, from.grad, to.grad, from.add, take_act(statistics_size(form))}));
      break;
    case ReductionOp::softmax:
      nodes().push_back(make_softmax({form, from.act, to.act, from.grad, to.grad, from.add}));
      break;
    case ReductionOp::sum:
      need_scratch(sum_scratch_size(form));
      nodes().push_back(make_sum({form, from.act, to.act, from.grad, to.grad, from.add}));
      break;
  }
  if (!back.empty()) {
    nodes().push_back(make_gather({std::move(back), size_y, 0.0f, to.act, act_[y], to.grad, grad_[y], false}));
  }
}

void Builder::add_product(const Layer& layer) {
  switch (static_cast<ProductOp>(layer.op)) {
    case ProductOp::matmul: return add_matmul(layer);
  }
}

void Builder::add_matmul(const Layer& layer) {
  const int a = layer.inputs[0], b = layer.inputs[1], y = layer.output;
  require(b >= 0 && value(a).batched() == value(b).batched() && value(a).batched() == value(y).batched(),
          "the matrices of a product do not fit");
  const Shape &left = value(a).shape, &right = value(b).shape, &product_of = value(y).shape;
  const std::size_t rank = left.size();
  require(rank >= 2 && right.size() == rank && product_of.size() == rank, "the matrices of a product do not fit");
  MatmulPlaces at{};
  at.count = 1;
  for (std::size_t d = 0; d + 2 < rank; ++d) {
    require(left[d] == right[d] && left[d] == product_of[d], "the matrices of a product do not fit");
    at.count *= left[d];
  }
  at.n = left[rank - 2];
  at.k = left[rank - 1];
  at.m = right[rank - 1];
  require(right[rank - 2] == at.k && product_of[rank - 2] == at.n && product_of[rank - 1] == at.m,
          "the matrices of a product do not fit");
  const Place first = taken_as(a, rows_of(a)), second = taken_as(b, rows_of(b)), made = made_as(y, rows_of(y));
  at.a = first.act;
  at.da = first.grad;
  at.add_da = first.add;
  at.b = second.act;
  at.db = second.grad;
  at.add_db = second.add;
  at.y = made.act;
  at.dy = made.grad;
  need_scratch(matmul_scratch_size(at));
  nodes().push_back(make_matmul(at));
  put(y, rows_of(y), made);
}

void Builder::add_banded(const Layer& layer) {
  switch (static_cast<BandedOp>(layer.op)) {
    case BandedOp::resample: return add_resample(layer);
  }
}

void Builder::add_resample(const Layer& layer) {
  const int x = layer.inputs[0], y = layer.output;
  const Shape &from = value(x).shape, &to = value(y).shape;
  require(from.size() == 3 && to.size() == 3 && from[0] == to[0], "the shapes of a resampling do not fit");
  ResamplePlaces at{};
  const auto matrix = [&](int input, std::int64_t rows, std::int64_t columns, std::int64_t& place) {
    const int v = layer.inputs[static_cast<std::size_t>(input)];
    require(v >= 0 && value(v).kind == Kind::constant && value(v).shape == Shape({rows, columns}),
            "the matrices of a resampling do not fit");
    auto packing = std::make_unique<BandedMatrix>(rows, columns);
    const BandedMatrix* const result = packing.get();
    place = take(plan_.fixed_size, result->packed_size());
    plan_.fixed_.push_back({place, value(v).index, result, -1.0});
    plan_.layouts_.push_back(std::move(packing));
    return result;
  };
  at.rows = matrix(1, to[1], from[1], at.rows_at);
  at.columns = matrix(2, to[2], from[2], at.columns_at);
  at.channels = static_cast<int>(from[0]);
  const Storage in(value(x).size(), from[1] * from[2]), out(value(y).size(), to[1] * to[2]);
  const Place taken = taken_as(x, in), made = made_as(y, out);
  at.x = taken.act;
  at.dx = taken.grad;
  at.add_dx = taken.add;
  at.y = made.act;
  at.dy = made.grad;
  need_scratch(resample_scratch_size(at));
  nodes().push_back(make_resample(at));
  put(y, out, made);
}

}  // namespace adgan
