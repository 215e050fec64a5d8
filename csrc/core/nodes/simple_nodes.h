// Nodes without packed weights: operands, norms by constants, activations.
#pragma once

#include <memory>
#include <vector>

#include "core/layers.h"
#include "core/modes.h"
#include "core/nodes/node.h"

namespace adgan {

// A parameter, a constant or a computed weight as a value like any other: y = parameter.
struct OperandPlaces {
  std::int64_t from, y, dy, size;
  Kind kind;
  SampleSums sums;  // its gradient
};
std::unique_ptr<Node> make_operand(const OperandPlaces&);

struct NormPlaces {
  std::int64_t x, y, dx, dy;  // dx -1: not wanted
  bool add_dx;
  std::int64_t mean, inverse;  // fixed
  std::int64_t weight, bias;   // -1 where absent
  bool weight_fixed, bias_fixed;
  SampleSums weight_sums, bias_sums;  // their gradients
  std::int64_t prepared;              // 2 · channels
  int channels;
  int outer, inner;  // the value is [outer][channel][inner]
};
std::unique_ptr<Node> make_norm(const NormPlaces&);

std::unique_ptr<Node> make_activation(ActivationOp op, std::vector<double> numbers, std::int64_t x, std::int64_t y,
                                      std::int64_t dx, std::int64_t dy, bool add_dx, std::int64_t size);

}  // namespace adgan
