// Operands that broadcast: the nodes of arithmetic (plan_builder.h).
#include <utility>

#include "core/nodes/arithmetic_node.h"
#include "core/nodes/gather_node.h"
#include "core/plan_builder.h"

namespace adgan {

namespace {

// Whether an operand of n numbers is repeated as it is, one time after another.
bool repeats(const std::vector<int>& index, std::int64_t n) {
  for (std::size_t i = 0; i < index.size(); ++i) {
    if (index[i] != static_cast<std::int64_t>(i) % n) return false;
  }
  return true;
}

// Whether each of its numbers is repeated so many times, one after another.
bool repeats_each(const std::vector<int>& index, std::int64_t times) {
  for (std::size_t i = 0; i < index.size(); ++i) {
    if (index[i] != static_cast<std::int64_t>(i) / times) return false;
  }
  return true;
}

}  // namespace

// How an operand lies among the numbers of y. `inner` is 0 as long as none asks for one. False: it fits no such form.
bool Builder::find_steps(int v, int y, std::int64_t& inner, OperandSteps& steps) const {
  const std::int64_t n = value(v).size(), size = value(y).size();
  const std::vector<int> index = broadcast(v, y);
  if (index.empty()) {
    steps = {-1, 1};  // -1: inner, once it is known
    return true;
  }
  if (n == 1) {
    steps = {0, 0};
    return true;
  }
  if ((inner == 0 || inner == n) && repeats(index, n)) {
    inner = n;
    steps = {0, 1};
    return true;
  }
  if (size % n == 0 && (inner == 0 || inner == size / n) && repeats_each(index, size / n)) {
    inner = size / n;
    steps = {1, 0};
    return true;
  }
  return false;
}

void Builder::add_arithmetic(const Layer& layer) {
  const int y = layer.output;
  require(layer.inputs[1] >= 0, "an operand is missing");
  ArithmeticPlaces at{};
  at.op = static_cast<ArithmeticOp>(layer.op);
  at.number = static_cast<float>(layer.real[0]);
  at.y = act_[y];
  at.dy = grad_[y];
  const std::int64_t size = value(y).size();
  const auto operand = [&](int v, std::int64_t& act, std::int64_t& grad, bool& add, OperandSteps& steps) {
    act = act_[v];
    grad = gradient_of(v);
    add = adds(v);
    if (find_steps(v, y, at.inner, steps)) return;
    const Place copy{take_act(size), take_grad(size), false, true};
    scratch_for_sums(size, value(v).size());
    nodes().push_back(make_gather({broadcast(v, y), value(v).size(), 0.0f, act, copy.act, grad, copy.grad, add}));
    act = copy.act;
    grad = grad < 0 ? -1 : copy.grad;
    add = false;
    steps = {-1, 1};
  };
  operand(layer.inputs[0], at.a, at.da, at.add_da, at.a_steps);
  operand(layer.inputs[1], at.b, at.db, at.add_db, at.b_steps);
  if (at.inner == 0) at.inner = size;
  at.outer = size / at.inner;
  for (OperandSteps* steps : {&at.a_steps, &at.b_steps}) {
    if (steps->outer < 0) steps->outer = at.inner;
  }
  nodes().push_back(make_arithmetic(at));
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

}  // namespace adgan
