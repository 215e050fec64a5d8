// Nodes that move elements.
#pragma once

#include <memory>
#include <vector>

#include "core/nodes/node.h"

namespace adgan {

// y[i] = x[source[i]], or `elsewhere` where the source is -1.
struct GatherPlaces {
  std::vector<int> source;
  std::int64_t input_size;
  float elsewhere;
  std::int64_t x, y, dx, dy;  // dx -1: not wanted
  bool add_dx;
};
std::unique_ptr<Node> make_gather(GatherPlaces);

// y[target[i]] = x[i], beside what others put into y.
struct PlacementPlaces {
  std::vector<int> target;
  std::int64_t x, y, dx, dy;
  bool add_dx;
};
std::unique_ptr<Node> make_placement(PlacementPlaces);

}  // namespace adgan
