// From a program to a plan: which nodes, and where each of their numbers lies.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "core/nodes/arithmetic_node.h"
#include "core/nodes/map_node.h"
#include "core/plan.h"
#include "core/storage.h"

namespace adgan {

class Builder {
 public:
  Builder(ExecutionPlan& plan, Weights weights, std::int64_t steps, bool compact);
  void build();

 private:
  const Value& value(int v) const { return program_.values[v]; }
  // What a layer takes that makes values of the scope in hand, and does not come from a layer of that scope.
  bool stored(int v) const {
    return value(v).kind == Kind::parameter || value(v).kind == Kind::constant ||
           (value(v).kind == Kind::weight && !of_owner_);
  }
  std::vector<std::unique_ptr<Node>>& nodes() { return of_owner_ ? plan_.owner_nodes : plan_.nodes; }
  int source(int v) const { return same_as_[v]; }
  Storage rows_of(int v) const { return Storage(value(v).size(), 1); }
  Storage storage(int v) const { return Storage(value(v).size(), pixels_[v]); }
  bool input_is_row_major(const Layer& layer) const;
  static bool keeps_places(Op op);
  static bool is_weight(const Layer& layer, std::size_t input);

  // plan_storage.cpp: how each value is stored.
  void choose_storage();

  // plan_builder.cpp: who makes and who uses what; memory.
  void find_gradients();
  void read();
  void place_parameters();
  bool made_by_owner(const Layer& layer) const { return !value(layer.output).batched(); }
  void add_owner_nodes();
  void place_values();
  void place(int v);
  static std::int64_t take(std::int64_t& region, std::int64_t floats);
  std::int64_t take_act(std::int64_t floats) { return take(of_owner_ ? owner_act_size_ : plan_.act_size, floats); }
  std::int64_t take_grad(std::int64_t floats) { return take(of_owner_ ? owner_grad_size_ : plan_.grad_size, floats); }
  std::int64_t constant(int v);
  void vector_parameter(int v, std::int64_t& at, bool& fixed, SampleSums& gradient);
  SampleSums sums(int v);

  // plan_nodes.cpp: maps, and what goes element by element.
  void add_nodes(std::size_t l);  // of the layer l
  void add_nodes_of(const Layer& layer, const MapLayout* layout);
  void add_map(const Layer& layer, const MapLayout* layout);
  void find_map_weights(int w, const MapLayout* layout, MapPlaces& at);
  void add_norm(const Layer& layer);
  void add_batch_norm(const Layer& layer);
  void add_prelu(const Layer& layer);
  std::pair<int, int> around_channels(int x) const;
  void add_activation(const Layer& layer);

  // plan_arithmetic.cpp: operands that broadcast.
  void add_arithmetic(const Layer& layer);
  bool find_steps(int v, int y, std::int64_t& inner, OperandSteps& steps) const;
  std::vector<int> broadcast(int v, int y) const;

  // plan_gathers.cpp: what moves elements.
  void add_gather(const Layer& layer);
  void add_join(const Layer& layer);
  void add_cat(const Layer& layer);
  std::vector<int> row_major_from(int v) const;

  // plan_reductions.cpp: sums, and products that are no maps.
  void add_reduction(const Layer& layer);
  void add_product(const Layer& layer);
  void add_matmul(const Layer& layer);
  void add_banded(const Layer& layer);
  void add_resample(const Layer& layer);

  bool adds(int v) const { return stored(v) ? parameter_uses_.at(v) > 1 : uses_[source(v)] > 1; }
  std::int64_t gradient_of(int v) const { return value(v).kind == Kind::constant ? -1 : grad_[v]; }
  void need_scratch(std::int64_t floats) { plan_.scratch_size = std::max(plan_.scratch_size, floats); }
  void scratch_for_sums(std::int64_t numbers, std::int64_t n);

  // A value where a node reads or writes it; a copy, where the node wants it stored otherwise than it is.
  struct Place {
    std::int64_t act, grad;
    bool add;
    bool copy;
  };
  Place taken_as(int v, const Storage& wanted);
  Place made_as(int v, const Storage& wanted);
  void put(int v, const Storage& made, const Place& place);  // once the node is there that makes it

  ExecutionPlan& plan_;
  const Program& program_;
  const bool learn_, fuse_, compact_;  // fuse_: a layer's backward pass updates its weights
  const std::int64_t steps_;
  std::vector<int> producer_, uses_, same_as_;
  std::map<int, int> parameter_uses_;
  std::vector<bool> passed_;                       // by layer: whether a gradient passes it
  std::map<int, bool> operands_, owner_operands_;  // stored ones that layers of a scope take as they take values, and
                                                   // whether one of these layers passes a gradient
  std::set<int> gated_;  // values that are zero only where their gradient does not matter (behind a ReLU)
  // Two scopes: weights that are computed from parameters, once for an owner; and what a sample makes. A value of the
  // first is stored for the second. act_ and grad_ are places in the scope in hand, owner_act_ and owner_grad_ in the
  // first.
  bool of_owner_ = false;
  std::int64_t owner_act_size_ = 0, owner_grad_size_ = 0;
  std::vector<std::int64_t> act_, grad_, owner_act_, owner_grad_, pixels_;
  std::vector<std::unique_ptr<MapLayout>> layouts_;  // by layer
};

}  // namespace adgan
