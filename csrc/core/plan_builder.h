// From a program to a plan: which nodes, and where each of their numbers lies.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "core/nodes/map_node.h"
#include "core/plan.h"

namespace adgan {

// The order in which the elements of a value are stored: position by position where it is (C, H, W), else row-major.
class Storage {
 public:
  explicit Storage(const Value& value)
      : shape_(value.shape), by_position_(value.batched() && value.shape.size() == 3) {}
  // Where the element is stored that has `flat` as its place in row-major order.
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

class Builder {
 public:
  Builder(ExecutionPlan& plan, Weights weights, std::int64_t steps, bool compact);
  void build();

 private:
  const Value& value(int v) const { return program_.values[v]; }
  bool stored(int v) const { return value(v).kind == Kind::parameter || value(v).kind == Kind::constant; }
  int source(int v) const { return same_as_[v]; }
  Storage storage(int v) const { return Storage(value(v)); }
  bool input_is_row_major(const Layer& layer) const;

  // plan_builder.cpp: who makes and who uses what; memory.
  void read();
  void place_parameters();
  void place_values();
  void place(int v);
  static std::int64_t take(std::int64_t& region, std::int64_t floats);
  std::int64_t take_gradient(const Shape& shape) { return take(plan_.grad_size, product(shape)); }
  std::int64_t constant(int v);
  void vector_parameter(int v, std::int64_t& at, bool& fixed, SampleSums& gradient);
  SampleSums sums(int v);

  // plan_nodes.cpp: the nodes of each layer.
  void add_nodes(const Layer& layer, const MapLayout* layout);
  void add_map(const Layer& layer, const MapLayout* layout);
  void find_map_weights(int w, const MapLayout* layout, MapPlaces& at);
  void add_norm(const Layer& layer);
  void add_batch_norm(const Layer& layer);
  void add_activation(const Layer& layer);
  void add_arithmetic(const Layer& layer);
  void add_gather(const Layer& layer);
  bool adds(int v) const { return stored(v) ? parameter_uses_.at(v) > 1 : uses_[source(v)] > 1; }
  std::int64_t gradient_of(int v) const { return value(v).kind == Kind::constant ? -1 : grad_[v]; }
  void scratch_for_sums(std::int64_t numbers, std::int64_t n);
  std::vector<int> broadcast(int v, int y) const;
  static std::vector<int> row_major_from(const Value& v);

  ExecutionPlan& plan_;
  const Program& program_;
  const bool learn_, fuse_, compact_;  // fuse_: a layer's backward pass updates its weights
  const std::int64_t steps_;
  std::vector<int> producer_, uses_, same_as_;
  std::map<int, int> parameter_uses_;
  std::set<int> operands_;  // parameters and constants that layers take as they take values
  std::set<int> gated_;     // values that are zero only where their gradient does not matter (behind a ReLU)
  std::vector<std::int64_t> act_, grad_;
  std::vector<std::unique_ptr<MapLayout>> layouts_;  // by layer
};

}  // namespace adgan
