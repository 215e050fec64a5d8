// Products of matrices that are both values.
#pragma once

#include <memory>

#include "core/nodes/node.h"

namespace adgan {

// y = a b, so many times: (n × m) of (n × k) and (k × m).
struct MatmulPlaces {
  std::int64_t count, n, k, m;
  std::int64_t a, b, y, da, db, dy;  // da, db -1: not wanted
  bool add_da, add_db;
};
std::int64_t matmul_scratch_size(const MatmulPlaces&);
std::unique_ptr<Node> make_matmul(const MatmulPlaces&);

}  // namespace adgan
