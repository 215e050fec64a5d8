// A first layer as a node whose weights' gradient is an outer product (rank 1): of a pair's weights only Δ = w - θ₀ is
// kept, for the outputs that ever had a gradient, and the moments are rebuilt from what all steps so far have seen.
#pragma once

#include <memory>

#include "core/nodes/map_node.h"

namespace adgan {

// Floats in Run::history and Run::change.
std::int64_t rank1_history_size(const MapLayout& layout, std::int64_t steps);
std::int64_t rank1_change_size(const MapLayout& layout, bool compact);

std::unique_ptr<Node> make_rank1_node(const MapLayout* layout, const MapPlaces& places);

}  // namespace adgan
