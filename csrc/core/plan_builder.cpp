// From a program to a plan: which nodes, and where each of their numbers lies.
#include "plan.h"

#include <algorithm>
#include <map>

#include "map_node.h"
#include "rank1_node.h"
#include "simple_nodes.h"

namespace adgan {

namespace {

bool is_map(Op op) { return op == Op::linear || op == Op::conv2d || op == Op::conv_transpose2d; }

// Elementwise, and backward() needs the output alone: may be computed in place.
bool by_output(const Layer& layer) {
  switch (layer.op) {
    case Op::relu:
    case Op::tanh:
    case Op::sigmoid:
    case Op::scale_shift: return true;
    case Op::leaky_relu: return layer.real[0] > 0;  // the output has the input's sign
    default: return false;
  }
}

bool is_activation(Op op) { return op >= Op::relu && op <= Op::scale_shift; }

// Position of an element of a tensor with this shape, in the order it is stored in, of the element that has `flat` as
// its place in row-major order.
class Storage {
 public:
  Storage(const Shape& shape, bool by_position) : shape_(shape), by_position_(by_position && shape.size() == 3) {}
  std::int64_t operator()(std::int64_t flat) const {
    if (!by_position_) return flat;
    const std::int64_t pixels = shape_[1] * shape_[2];
    return flat % pixels * shape_[0] + flat / pixels;
  }
  bool row_major() const { return !by_position_ || shape_[0] == 1 || shape_[1] * shape_[2] == 1; }

 private:
  Shape shape_;
  bool by_position_;
};

}  // namespace

class Builder {
 public:
  Builder(Plan& plan, Weights weights, std::int64_t steps, bool compact)
      : plan_(plan), program_(plan.program), learn_(weights != Weights::frozen), fuse_(weights == Weights::per_seed),
        compact_(compact && fuse_), steps_(steps) {
    const std::size_t n = program_.values.size();
    producer_.assign(n, -1);
    uses_.assign(n, 0);
    act_.assign(n, -1);
    grad_.assign(n, -1);
    same_as_.resize(n);
    for (std::size_t v = 0; v < n; ++v) same_as_[v] = static_cast<int>(v);
  }

  void build() {
    read();
    place_parameters();
    place_values();
    plan_.layer_of.resize(plan_.nodes.size(), program_.layers.size());
    for (std::size_t l = 0; l < program_.layers.size(); ++l) {
      add_nodes(program_.layers[l]);
      plan_.layer_of.resize(plan_.nodes.size(), l);
    }
    const Value& out = program_.values[program_.output];
    plan_.latent_act = act_[program_.latent];
    plan_.latent_grad = grad_[program_.latent];
    plan_.latent_size = program_.values[program_.latent].size();
    const Storage latent = storage(program_.latent);
    if (!latent.row_major()) plan_.latent_place = reorder(program_.values[program_.latent], latent);
    plan_.output_act = act_[program_.output];
    plan_.output_grad = grad_[program_.output];
    plan_.output_size = out.size();
  }

 private:
  const Value& value(int v) const { return program_.values[v]; }
  bool stored(int v) const { return value(v).kind == Kind::parameter || value(v).kind == Kind::constant; }
  int source(int v) const { return same_as_[v]; }
  Storage storage(int v) const { return Storage(value(v).shape, value(v).batched()); }

  // Who makes and who uses what; reshapes that only rename are resolved.
  void read() {
    for (std::size_t l = 0; l < program_.layers.size(); ++l) {
      const Layer& layer = program_.layers[l];
      require(producer_[layer.output] < 0 && !stored(layer.output) && layer.output != program_.latent,
              "a value of the program is made twice");
      for (int v : layer.inputs) {
        require(v < 0 || stored(v) || v == program_.latent || producer_[v] >= 0,
                "a layer of the program comes before its input");
      }
      producer_[layer.output] = static_cast<int>(l);
      if (layer.op == Op::reshape) {
        const int x = layer.inputs[0];
        require(value(x).size() == value(layer.output).size(), "a reshape changes the number of elements");
        if (!stored(x) && storage(x).row_major() && storage(layer.output).row_major()) {
          same_as_[layer.output] = source(x);
          continue;
        }
      }
      for (std::size_t i = 0; i < layer.inputs.size(); ++i) {
        const int v = layer.inputs[i];
        if (v < 0) continue;
        if (stored(v)) {
          parameter_uses_[v] += 1;
          if (!is_map(layer.op) && layer.op != Op::batch_norm) operands_[v] = true;
          if (is_map(layer.op)) require(i > 0, "a layer's input does not depend on the latent");
        } else {
          uses_[source(v)] += 1;
          require(!((is_map(layer.op) || layer.op == Op::batch_norm) && i > 0), "a weight is computed by other layers");
        }
      }
    }
    require(producer_[program_.output] >= 0, "nothing makes the program's output");
    uses_[source(program_.output)] += 1;  // by the loss
  }

  void place_parameters() {
    int count = 0;
    for (const Value& v : program_.values) count = std::max(count, v.kind == Kind::parameter ? v.index + 1 : 0);
    plan_.parameters.resize(count);
    layouts_.resize(program_.layers.size());
    enum Kept { moments, packed, change };  // what a pair keeps of a parameter beside its value
    std::map<int, Kept> kept;
    for (std::size_t l = 0; l < program_.layers.size(); ++l) {
      const Layer& layer = program_.layers[l];
      if (!is_map(layer.op)) continue;
      const int w = layer.inputs[1];
      require(w >= 0 && stored(w), "a layer has no weights");
      const MapSpec spec = MapSpec::of(layer, program_.values);
      const bool alone = value(w).kind == Kind::parameter && parameter_uses_[w] == 1;
      bool rank1 = fuse_ && alone && spec.input_positions == 1 && spec.groups == 1 && steps_ <= kMostHistory;
      if (rank1) {
        const MapLayout tried(spec, true, 1);
        rank1 = tried.in_order && input_is_row_major(layer);
      }
      auto layout = std::make_unique<MapLayout>(spec, rank1, plan_.batch);
      require(layout->spec.weights() == value(w).size(), "a layer's weights do not fit");
      if (!rank1) plan_.scratch_size = std::max(plan_.scratch_size, map_scratch_size(*layout));
      if (alone) {
        plan_.parameters[value(w).index].packing = layout.get();
        if (rank1 || compact_) kept[w] = rank1 ? change : packed;
      }
      layouts_[l] = std::move(layout);
    }
    for (const Kept kind : {moments, packed, change}) {
      for (std::size_t v = 0; v < program_.values.size(); ++v) {
        const auto found = kept.find(static_cast<int>(v));
        if (value(v).kind != Kind::parameter || (found == kept.end() ? moments : found->second) != kind) continue;
        Parameter& p = plan_.parameters[value(v).index];
        p.size = p.packing ? p.packing->packed_size() : value(v).size();
        p.offset = take(plan_.theta_size, p.size);
        if (learn_ && !(fuse_ && p.packing)) p.gradient = take(plan_.gradient_size, p.size);
      }
      if (kind == moments) plan_.second_size = plan_.theta_size;
      if (kind == packed) plan_.state_size = plan_.theta_size;
    }
  }

  // Channels of a map's input lie one after another at each position.
  bool input_is_row_major(const Layer& layer) const {
    const Value& x = value(layer.inputs[0]);
    return layer.op != Op::linear || Storage(x.shape, x.batched()).row_major();
  }

  std::int64_t take(std::int64_t& region, std::int64_t floats) {
    const std::int64_t at = region;
    region += aligned(floats);
    return at;
  }

  std::int64_t take_gradient(const Shape& shape) { return take(plan_.grad_size, product(shape)); }

  void place_values() {
    place(program_.latent);
    for (std::size_t v = 0; v < program_.values.size(); ++v) {
      if (operands_.count(static_cast<int>(v))) place(static_cast<int>(v));
    }
    for (const Layer& layer : program_.layers) {
      const int y = layer.output, x = layer.inputs[0];
      if (source(y) != y) {
        act_[y] = act_[source(y)];
        grad_[y] = grad_[source(y)];
        continue;
      }
      const bool elementwise = is_activation(layer.op) || layer.op == Op::batch_norm;
      const int from = source(x);
      if (elementwise && from != program_.latent && !stored(from) && uses_[from] == 1) {
        require(value(x).size() == value(y).size(), "an elementwise layer changes the number of elements");
        grad_[y] = grad_[from];
        const int maker = producer_[from];
        if (by_output(layer) && !is_activation(program_.layers[maker].op)) act_[y] = act_[from];
      }
      if (act_[y] < 0) act_[y] = take(plan_.act_size, value(y).size());
      if (grad_[y] < 0) grad_[y] = take_gradient(value(y).shape);
      if (uses_[y] > 1) plan_.zeros_.push_back({grad_[y], value(y).size()});
      if (layer.op == Op::relu) gated_[y] = true;
    }
    if (uses_[program_.latent] > 1) plan_.zeros_.push_back({grad_[program_.latent], value(program_.latent).size()});
    for (const auto& [v, unused] : operands_) {
      if (parameter_uses_[v] > 1) plan_.zeros_.push_back({grad_[v], value(v).size()});
    }
  }

  void place(int v) {
    act_[v] = take(plan_.act_size, value(v).size());
    grad_[v] = take_gradient(value(v).shape);
    if (operands_.count(v)) {
      const Value& operand = value(v);
      const bool fixed = operand.kind == Kind::constant;
      OperandPlaces at{};
      at.size = operand.size();
      at.fixed = fixed;
      at.from = fixed ? constant(v) : plan_.parameters[operand.index].offset;
      at.sums = sums(v);
      at.y = act_[v];
      at.dy = grad_[v];
      plan_.nodes.push_back(make_operand(at));
    }
  }

  std::int64_t constant(int v) {
    const std::int64_t at = take(plan_.fixed_size, value(v).size());
    plan_.fixed_.push_back({at, value(v).index, nullptr, -1.0});
    return at;
  }

  // A bias, or a batch norm's weight or bias: its place, and its gradient.
  void vector_parameter(int v, std::int64_t& at, bool& fixed, SampleSums& gradient) {
    at = -1;
    fixed = v >= 0 && value(v).kind == Kind::constant;
    gradient = sums(v);
    if (v >= 0) at = fixed ? constant(v) : plan_.parameters[value(v).index].offset;
  }

  // The gradient of a parameter that is used as it is; not wanted of a constant, or of none.
  SampleSums sums(int v) {
    SampleSums result;
    if (v < 0 || value(v).kind != Kind::parameter || !learn_) return result;
    const Parameter& p = plan_.parameters[value(v).index];
    result.size = value(v).size();
    result.stride = aligned(result.size);
    result.parts = plan_.batch;
    result.at = take(plan_.prepared_size, result.stride * result.parts);
    result.gradient = p.gradient;
    return result;
  }

  bool adds(int v) const { return stored(v) ? parameter_uses_.at(v) > 1 : uses_[source(v)] > 1; }
  std::int64_t gradient_of(int v) const { return value(v).kind == Kind::constant ? -1 : grad_[v]; }

  void add_nodes(const Layer& layer) {
    const int x = layer.inputs[0], y = layer.output;
    if (source(y) != y) {
      if (gated_.count(source(y))) gated_[y] = true;
      return;
    }
    if (is_map(layer.op)) return add_map(layer);
    if (layer.op == Op::batch_norm) return add_norm(layer);
    if (is_activation(layer.op)) {
      require(value(x).size() == value(y).size(), "an elementwise layer changes the number of elements");
      const std::int64_t from = layer.op == Op::leaky_relu && act_[x] == act_[y] ? act_[y] : act_[x];
      plan_.nodes.push_back(make_activation(layer.op, layer.real, from, act_[y], gradient_of(x), grad_[y],
                                            adds(x), value(y).size()));
      return;
    }
    if (layer.op == Op::add || layer.op == Op::mul || layer.op == Op::div) return add_binary(layer);
    add_gather(layer, x, y);
    if (gated_.count(source(x))) gated_[y] = true;
  }

  std::size_t layer_index(const Layer& layer) const { return static_cast<std::size_t>(&layer - program_.layers.data()); }

  void add_map(const Layer& layer) {
    const int x = layer.inputs[0], w = layer.inputs[1], b = layer.inputs[2], y = layer.output;
    const MapLayout* layout = layouts_[layer_index(layer)].get();
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
      plan_.nodes.push_back(make_gather(reorder(value(x), in), value(x).size(), at.x, x_row, at.dx, dx_row, at.add_dx));
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
      at.natural = p.offset;
      at.natural_gradient = p.gradient;
      at.weights = take(plan_.prepared_size, layout->packed_size());
      at.gradient = learn_ ? take(plan_.prepared_size, layout->packed_size()) : -1;
    }
    at.packed = compact_ && at.source == MapPlaces::Source::state;
    vector_parameter(b, at.bias, at.bias_fixed, at.bias_sums);
    if (layout->rank1) {
      at.history = take(plan_.history_size, rank1_history_size(*layout, steps_));
      at.moves_latent = source(x) == program_.latent && uses_[program_.latent] == 1 && x_row < 0 && y_row < 0;
      at.packed = compact_ && at.moves_latent;
      at.change = take(plan_.change_size, rank1_change_size(*layout, at.packed));
      plan_.moves_latent = plan_.moves_latent || at.moves_latent;
    }
    plan_.nodes.push_back(layout->rank1 ? make_rank1_node(layout, at) : make_map_node(layout, at));
    if (y_row >= 0) {
      std::vector<int> index(static_cast<std::size_t>(value(y).size()));
      for (std::int64_t i = 0; i < value(y).size(); ++i) index[static_cast<std::size_t>(out(i))] = static_cast<int>(i);
      plan_.nodes.push_back(make_gather(index, value(y).size(), y_row, act_[y], dy_row, grad_[y], false));
    }
  }

  // Row-major order from the order an element is stored in.
  static std::vector<int> reorder(const Value& v, const Storage& stored_as) {
    std::vector<int> index(static_cast<std::size_t>(v.size()));
    for (std::size_t i = 0; i < index.size(); ++i) index[i] = static_cast<int>(stored_as(static_cast<std::int64_t>(i)));
    return index;
  }

  void add_norm(const Layer& layer) {
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

  void add_binary(const Layer& layer) {
    const int a = layer.inputs[0], b = layer.inputs[1], y = layer.output;
    require(b >= 0, "an operand is missing");
    BinaryPlaces at{};
    at.op = layer.op;
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

  void scratch_for_sums(std::int64_t numbers, std::int64_t n) {
    if (gathers_many(numbers, n)) plan_.scratch_size = std::max(plan_.scratch_size, 2 * n);
  }

  // For each element of y as stored, that of the operand v which it meets; empty where it is the same.
  std::vector<int> broadcast(int v, int y) const {
    const Shape& to = value(y).shape;
    Shape from = value(v).shape;
    if (value(y).batched() && !value(v).batched() && from.size() == to.size() + 1) {
      require(from[0] == 1, "an operand's batch dimension is not one");
      from.erase(from.begin());
    }
    require(from.size() <= to.size(), "an operand has too many dimensions");
    from.insert(from.begin(), to.size() - from.size(), 1);
    const Storage source_of(value(v).shape, value(v).batched()), target(to, value(y).batched());
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

  void add_gather(const Layer& layer, int x, int y) {
    const Shape &from = value(x).shape, &to = value(y).shape;
    const Storage in = storage(x), out = storage(y);
    const std::int64_t n = value(y).size();
    std::vector<int> index(static_cast<std::size_t>(n));
    const auto set = [&](std::int64_t target, std::int64_t flat) {
      require(flat >= 0 && flat < value(x).size(), "a layer's shapes do not fit");
      index[static_cast<std::size_t>(out(target))] = static_cast<int>(in(flat));
    };
    if (layer.op == Op::reshape) {
      for (std::int64_t i = 0; i < n; ++i) set(i, i);
    } else if (layer.op == Op::permute) {
      require(layer.whole.size() == to.size() && from.size() == to.size(), "a permutation does not fit");
      Shape steps(from.size(), 1);
      for (std::size_t d = from.size(); d-- > 1;) steps[d - 1] = steps[d] * from[d];
      for (std::size_t d = 0; d < to.size(); ++d) {
        require(layer.whole[d] >= 0 && layer.whole[d] < static_cast<std::int64_t>(from.size()) && from[layer.whole[d]] == to[d],
                "a permutation does not fit");
      }
      for (std::int64_t i = 0; i < n; ++i) {
        std::int64_t rest = i, flat = 0;
        for (std::size_t d = to.size(); d-- > 0;) {
          flat += rest % to[d] * steps[layer.whole[d]];
          rest /= to[d];
        }
        set(i, flat);
      }
    } else {
      require(from.size() == 3 && to.size() == 3, "a layer's shapes do not fit");
      const bool shuffle = layer.op == Op::pixel_shuffle;
      const std::int64_t high = layer.whole[0], wide = shuffle ? layer.whole[0] : layer.whole[1];
      require(high > 0 && wide > 0 && to[1] == from[1] * high && to[2] == from[2] * wide &&
                  from[0] == (shuffle ? to[0] * high * wide : to[0]),
              "a layer's shapes do not fit");
      std::int64_t i = 0;
      for (std::int64_t c = 0; c < to[0]; ++c) {
        for (std::int64_t h = 0; h < to[1]; ++h) {
          for (std::int64_t w = 0; w < to[2]; ++w, ++i) {
            const std::int64_t channel = shuffle ? (c * high + h % high) * wide + w % wide : c;
            set(i, (channel * from[1] + h / high) * from[2] + w / wide);
          }
        }
      }
    }
    scratch_for_sums(n, value(x).size());
    plan_.nodes.push_back(make_gather(std::move(index), value(x).size(), act_[x], act_[y], gradient_of(x), grad_[y], adds(x)));
  }

  Plan& plan_;
  const Program& program_;
  const bool learn_, fuse_, compact_;
  const std::int64_t steps_;
  std::vector<int> producer_, uses_, same_as_;
  std::map<int, int> parameter_uses_;
  std::map<int, bool> operands_, gated_;
  std::vector<std::int64_t> act_, grad_;

 public:
  std::vector<std::unique_ptr<MapLayout>> layouts_;
};

namespace {
constexpr int kBatch = 16;
}

Plan::Plan(const Program& given, Weights weights, std::int64_t steps, bool compact)
    : program(given), batch(weights == Weights::per_seed ? 1 : kBatch) {
  Builder builder(*this, weights, steps, compact);
  builder.build();
  for (auto& layout : builder.layouts_) {
    if (layout) layouts_.push_back(std::move(layout));
  }
}

}  // namespace adgan
