// Sums, products, quotients and the larger of two values that broadcast.
#pragma once

#include <memory>

#include "core/layers.h"
#include "core/nodes/node.h"

namespace adgan {

// An operand among the numbers of y, seen as [outer][inner]: how far its numbers lie apart, 0 where one is repeated.
struct OperandSteps {
  std::int64_t outer, inner;
};

struct ArithmeticPlaces {
  ArithmeticOp op;
  float number;  // the layer's real one
  std::int64_t outer, inner;
  OperandSteps a_steps, b_steps;
  std::int64_t a, b, y, da, db, dy;  // da, db -1: not wanted
  bool add_da, add_db;
};
std::unique_ptr<Node> make_arithmetic(const ArithmeticPlaces&);

}  // namespace adgan
