// Nodes that sum over some dimensions.
#pragma once

#include <memory>

#include "core/nodes/node.h"

namespace adgan {

// How the elements lie that are taken together: [outer][n][columns], `group` neighbouring columns together with the n
// of each; or, where columns is 0, [outer][n].
struct Reduced {
  std::int64_t outer = 1, n = 1;
  int columns = 0, group = 1;

  std::int64_t block() const { return columns == 0 ? n : n * columns; }  // of one of the outer
};

// (x - mean) / √(variance + eps).
struct StandardizePlaces {
  Reduced reduced;
  double eps;
  std::int64_t x, y, dx, dy;  // dx -1: not wanted; it may be dy
  bool add_dx;
  std::int64_t statistics;  // among the values: means, then 1 / √...
};
std::int64_t statistics_size(const Reduced&);
std::int64_t standardize_scratch_size(const Reduced&);
std::unique_ptr<Node> make_standardize(const StandardizePlaces&);

struct SoftmaxPlaces {
  Reduced reduced;  // group 1
  std::int64_t x, y, dx, dy;
  bool add_dx;
};
std::unique_ptr<Node> make_softmax(const SoftmaxPlaces&);

struct SumPlaces {
  Reduced reduced;
  std::int64_t x, y, dx, dy;
  bool add_dx;
};
std::int64_t sum_scratch_size(const Reduced&);
std::unique_ptr<Node> make_sum(const SumPlaces&);

}  // namespace adgan
