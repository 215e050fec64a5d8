#include "core/plan_builder.h"

#include "core/nodes/simple_nodes.h"

namespace adgan {

namespace {

bool is_map(Op op) { return traits(op).family == Family::map; }
bool is_norm(Op op) { return traits(op).family == Family::norm; }
bool is_activation(Op op) { return traits(op).family == Family::activation; }

// Whether backward() of an activation needs its output alone: then it may be computed in place.
bool by_output(const Layer& layer) {
  switch (static_cast<ActivationOp>(layer.op)) {
    case ActivationOp::relu:
    case ActivationOp::tanh:
    case ActivationOp::sigmoid:
    case ActivationOp::hardtanh:
    case ActivationOp::exp:
    case ActivationOp::scale_shift: return true;
    case ActivationOp::leaky_relu: return layer.real[0] > 0;  // the output has the input's sign
    case ActivationOp::elu:
    case ActivationOp::softplus:
    case ActivationOp::silu:
    case ActivationOp::gelu:
    case ActivationOp::gelu_tanh:
    case ActivationOp::erf:
    case ActivationOp::clamp:  // a gradient on the bounds, and none beyond them
    case ActivationOp::pow:
    case ActivationOp::log:
    case ActivationOp::abs:
    case ActivationOp::sin: return false;
  }
  __builtin_unreachable();
}

// Whether backward() of a layer reads its output, which then must stay as it is.
bool reads_output(Op op) { return is_activation(op) || op == Op::softmax; }

// Whether an output is zero only where no gradient passes.
bool closes_at_zero(const Layer& layer) {
  return layer.op == Op::relu || (layer.op == Op::hardtanh && layer.real[0] == 0 && layer.real[1] > 0);
}

}  // namespace

// Whether each element of the output belongs to one of the input: of the same shape, and stored alike.
bool Builder::keeps_places(Op op) {
  return is_activation(op) || is_norm(op) || op == Op::standardize || op == Op::softmax || op == Op::stop;
}

// Whether a layer reads an input where parameters or constants lie, and not as a value.
bool Builder::is_weight(const Layer& layer, std::size_t input) {
  return input > 0 && (is_map(layer.op) || is_norm(layer.op) || layer.op == Op::resample);
}

Builder::Builder(ExecutionPlan& plan, Weights weights, std::int64_t steps, bool compact)
    : plan_(plan), program_(plan.program), learn_(weights != Weights::frozen), fuse_(weights == Weights::per_seed),
      compact_(compact && fuse_), steps_(steps) {
  const std::size_t n = program_.values.size();
  producer_.assign(n, -1);
  uses_.assign(n, 0);
  act_.assign(n, -1);
  grad_.assign(n, -1);
  pixels_.assign(n, 1);
  same_as_.resize(n);
  for (std::size_t v = 0; v < n; ++v) same_as_[v] = static_cast<int>(v);
}

void Builder::build() {
  choose_storage();
  find_gradients();
  read();
  place_parameters();
  add_owner_nodes();
  place(program_.latent);
  place_values();
  plan_.layer_of.resize(plan_.nodes.size(), program_.layers.size());
  for (std::size_t l = 0; l < program_.layers.size(); ++l) {
    if (!made_by_owner(program_.layers[l])) add_nodes(l);
    plan_.layer_of.resize(plan_.nodes.size(), l);
  }
  plan_.latent_act = act_[program_.latent];
  plan_.latent_grad = grad_[program_.latent];
  plan_.latent_size = value(program_.latent).size();
  if (!storage(program_.latent).row_major()) plan_.latent_place = row_major_from(program_.latent);
  plan_.output_act = act_[program_.output];
  plan_.output_grad = grad_[program_.output];
  plan_.output_size = value(program_.output).size();
  for (auto& layout : layouts_) {
    if (layout) plan_.layouts_.push_back(std::move(layout));
  }
}

// Which layers a gradient passes: not a `stop`, nor what nothing but a `stop` reads.
void Builder::find_gradients() {
  passed_.assign(program_.layers.size(), false);
  std::vector<bool> reached(program_.values.size(), false);
  reached[program_.output] = true;
  for (std::size_t l = program_.layers.size(); l-- > 0;) {
    const Layer& layer = program_.layers[l];
    passed_[l] = reached[layer.output] && layer.op != Op::stop;
    for (const int v : layer.inputs) {
      if (v >= 0 && passed_[l]) reached[v] = true;
    }
  }
  for (std::size_t v = 0; v < reached.size(); ++v) {
    const bool moves = value(static_cast<int>(v)).kind == Kind::parameter || static_cast<int>(v) == program_.latent;
    require(reached[v] || !moves, "no gradient reaches the latent, or a parameter");
  }
}

// Who makes and who uses what; reshapes that only rename are resolved.
void Builder::read() {
  for (std::size_t l = 0; l < program_.layers.size(); ++l) {
    const Layer& layer = program_.layers[l];
    of_owner_ = made_by_owner(layer);
    require(producer_[layer.output] < 0 && value(layer.output).kind != Kind::parameter &&
                value(layer.output).kind != Kind::constant && layer.output != program_.latent,
            "a value of the program is made twice");
    for (int v : layer.inputs) {
      const bool made = v >= 0 && value(v).kind != Kind::parameter && value(v).kind != Kind::constant;
      require(!made || v == program_.latent || producer_[v] >= 0, "a layer of the program comes before its input");
    }
    producer_[layer.output] = static_cast<int>(l);
    if (layer.op == Op::reshape) {
      const int x = layer.inputs[0];
      require(value(x).size() == value(layer.output).size(), "a reshape changes the number of elements");
      if (!stored(x) && storage(x) == storage(layer.output)) {
        same_as_[layer.output] = source(x);
        continue;
      }
    }
    for (std::size_t i = 0; i < layer.inputs.size(); ++i) {
      const int v = layer.inputs[i];
      if (v < 0) continue;
      if (stored(v)) {
        parameter_uses_[v] += 1;
        if (!is_weight(layer, i)) {
          bool& passed = (of_owner_ ? owner_operands_ : operands_)[v];
          passed = passed || passed_[l];
        }
        if (is_map(layer.op)) require(i > 0, "a layer's input does not depend on the latent");
        if (value(v).kind == Kind::weight) uses_[source(v)] += 1;
      } else {
        uses_[source(v)] += 1;
        require(!is_weight(layer, i), "a weight is computed by other layers");
      }
    }
  }
  of_owner_ = false;
  require(producer_[program_.output] >= 0, "nothing makes the program's output");
  uses_[source(program_.output)] += 1;  // by the loss
}

void Builder::place_parameters() {
  int count = 0;
  for (const Value& v : program_.values) count = std::max(count, v.kind == Kind::parameter ? v.index + 1 : 0);
  plan_.parameters.resize(count);
  layouts_.resize(program_.layers.size());
  enum Kept { moments, compact_moments, change };  // what a pair keeps of a parameter beside its value
  std::map<int, Kept> kept;
  for (std::size_t l = 0; l < program_.layers.size(); ++l) {
    const Layer& layer = program_.layers[l];
    if (!is_map(layer.op)) continue;
    const int w = layer.inputs[1];
    require(w >= 0 && stored(w), "a layer has no weights");
    const MapSpec spec = MapSpec::of(layer, program_.values);
    const bool alone = value(w).kind == Kind::parameter && parameter_uses_[w] == 1;
    bool rank1 = fuse_ && alone && spec.input_positions == 1 && spec.groups == 1 && steps_ <= kMaxRank1Steps;
    if (rank1) {
      const MapLayout tried(spec, true, 1);
      rank1 = tried.in_order && input_is_row_major(layer);
    }
    auto layout = std::make_unique<MapLayout>(spec, rank1, plan_.batch);
    require(layout->spec.weights() == value(w).size(), "a layer's weights do not fit");
    if (alone) {
      plan_.parameters[value(w).index].packing = layout.get();
      if (rank1 || compact_) kept[w] = rank1 ? change : compact_moments;
    }
    layouts_[l] = std::move(layout);
  }
  for (const Kept kind : {moments, compact_moments, change}) {
    for (std::size_t v = 0; v < program_.values.size(); ++v) {
      const auto found = kept.find(static_cast<int>(v));
      if (value(v).kind != Kind::parameter || (found == kept.end() ? moments : found->second) != kind) continue;
      Parameter& p = plan_.parameters[value(v).index];
      p.size = p.packing ? p.packing->packed_size() : value(v).size();
      p.offset = take(plan_.theta_size, p.size);
      if (learn_ && !(fuse_ && p.packing)) p.gradient = take(plan_.gradient_size, p.size);
    }
    if (kind == moments) plan_.v_size = plan_.theta_size;
    if (kind == compact_moments) plan_.state_size = plan_.theta_size;
  }
}

// Channels of a map's input lie one after another at each position.
bool Builder::input_is_row_major(const Layer& layer) const {
  return layer.op != Op::linear || storage(layer.inputs[0]).row_major();
}

std::int64_t Builder::take(std::int64_t& region, std::int64_t floats) {
  const std::int64_t at = region;
  region += aligned(floats);
  return at;
}

// The nodes of the first scope, and the places of what they make.
void Builder::add_owner_nodes() {
  of_owner_ = true;
  place_values();
  for (std::size_t l = 0; l < program_.layers.size(); ++l) {
    if (made_by_owner(program_.layers[l])) add_nodes(l);
  }
  of_owner_ = false;
  plan_.owner_act = take(plan_.prepared_size, owner_act_size_);
  plan_.owner_grad = take(plan_.gradient_size, learn_ ? owner_grad_size_ : 0);
  owner_act_.swap(act_);
  owner_grad_.swap(grad_);
  act_.assign(owner_act_.size(), -1);
  grad_.assign(owner_grad_.size(), -1);
}

void Builder::place_values() {
  const std::map<int, bool>& operands = of_owner_ ? owner_operands_ : operands_;
  for (const auto& [v, passed] : operands) {
    place(v);
    nodes().back()->passes_gradient = passed;
  }
  for (const Layer& layer : program_.layers) {
    if (made_by_owner(layer) != of_owner_) continue;
    const int y = layer.output, x = layer.inputs[0];
    if (source(y) != y) {
      act_[y] = act_[source(y)];
      grad_[y] = grad_[source(y)];
      continue;
    }
    const int from = source(x);
    if (keeps_places(layer.op) && from != program_.latent && !stored(from) && uses_[from] == 1) {
      require(value(x).size() == value(y).size(), "an elementwise layer changes the number of elements");
      grad_[y] = grad_[from];
      const Layer& maker = program_.layers[producer_[from]];
      if (is_activation(layer.op) && by_output(layer) && !reads_output(maker.op)) act_[y] = act_[from];
    }
    if (act_[y] < 0) act_[y] = take_act(value(y).size());
    if (grad_[y] < 0) grad_[y] = take_grad(value(y).size());
    if (uses_[y] > 1 && !of_owner_) plan_.zeros_.push_back({grad_[y], value(y).size()});
    if (closes_at_zero(layer)) gated_.insert(y);
  }
  if (of_owner_) return;  // ExecutionPlan::prepare makes all of Run::gradient zero
  if (uses_[program_.latent] > 1) plan_.zeros_.push_back({grad_[program_.latent], value(program_.latent).size()});
  for (const auto& [v, passed] : operands) {
    if (parameter_uses_[v] > 1) plan_.zeros_.push_back({grad_[v], value(v).size()});
  }
}

void Builder::place(int v) {
  act_[v] = take_act(value(v).size());
  grad_[v] = take_grad(value(v).size());
  if (v != program_.latent) {
    const Value& operand = value(v);
    OperandPlaces at{};
    at.size = operand.size();
    at.kind = operand.kind;
    switch (operand.kind) {
      case Kind::parameter: at.from = plan_.parameters[operand.index].offset; break;
      case Kind::constant: at.from = constant(v); break;
      case Kind::weight: at.from = plan_.owner_act + owner_act_[v]; break;
      case Kind::latent:
      case Kind::activation: __builtin_unreachable();
    }
    at.sums = sums(v);
    at.y = act_[v];
    at.dy = grad_[v];
    nodes().push_back(make_operand(at));
  }
}

std::int64_t Builder::constant(int v) {
  const std::int64_t at = take(plan_.fixed_size, value(v).size());
  plan_.fixed_.push_back({at, value(v).index, nullptr, -1.0});
  return at;
}

// A bias, or a batch norm's weight or bias: its place, and its gradient.
void Builder::vector_parameter(int v, std::int64_t& at, bool& fixed, SampleSums& gradient) {
  at = -1;
  require(v < 0 || value(v).kind != Kind::weight, "a bias or a norm's weight is computed by other layers");
  fixed = v >= 0 && value(v).kind == Kind::constant;
  gradient = sums(v);
  if (v >= 0) at = fixed ? constant(v) : plan_.parameters[value(v).index].offset;
}

// The gradient of a parameter that is used as it is; not wanted of a constant, or of none.
SampleSums Builder::sums(int v) {
  SampleSums result;
  if (v < 0 || value(v).kind == Kind::constant || !learn_) return result;
  result.size = value(v).size();
  result.stride = aligned(result.size);
  result.parts = of_owner_ ? 1 : plan_.batch;
  result.at = take(plan_.prepared_size, result.stride * result.parts);
  result.gradient =
      value(v).kind == Kind::weight ? plan_.owner_grad + owner_grad_[v] : plan_.parameters[value(v).index].gradient;
  return result;
}

ExecutionPlan::ExecutionPlan(const Program& given, Weights weights, std::int64_t steps, bool compact)
    : program(given), batch(weights == Weights::per_seed ? 1 : kBatch) {
  Builder(*this, weights, steps, compact).build();
}

}  // namespace adgan
