// PReLU: x > 0 ? x : slope · x, the slope learned by channel, or one for all.
#pragma once

#include <memory>

#include "core/nodes/node.h"

namespace adgan {

struct PreluPlaces {
  std::int64_t x, y, dx, dy;  // dx -1: not wanted
  bool add_dx;
  std::int64_t slope;
  bool slope_fixed;
  SampleSums slope_sums;  // its gradient
  int channels;
  int outer, inner;  // the value is [outer][channel][inner]
};
std::unique_ptr<Node> make_prelu(const PreluPlaces&);

}  // namespace adgan
