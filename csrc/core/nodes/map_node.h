// Linear layers and convolutions as nodes: the calls of their kernels.
#pragma once

#include <memory>

#include "core/nodes/map_layout.h"

namespace adgan {

// Where a map node finds what it needs.
struct MapPlaces {
  std::int64_t x, y, dx, dy;  // values and gradients; dx -1: not wanted
  bool add_dx;
  bool gated;  // x is zero only where its gradient does not matter (behind a ReLU)
  enum class Source { state, prepared, fixed } source;
  std::int64_t weights;   // in the source
  std::int64_t gradient;  // in Run::gradient (state), or in Run::prepared (prepared); -1: updated in place
  bool computed = false;  // prepared weights are from Run::prepared, else from the state
  std::int64_t unpacked = 0,
               unpacked_gradient = 0;  // of prepared weights: where they are from, where the gradient goes
  std::int64_t bias = -1;
  bool bias_fixed = false;
  SampleSums bias_sums;                    // its gradient
  bool compact = false;                    // the moments, or a rank-1 layer's change, in 16 bits
  std::int64_t history = -1, change = -1;  // of a rank-1 layer
  bool moves_latent = false;

  bool dense() const { return !gated; }  // nothing of x is passed over

  const float* bias_of(const Run& run) const {  // or null
    return bias < 0 ? nullptr : (bias_fixed ? run.fixed : run.state.old) + bias;
  }
};

std::int64_t map_scratch_size(const MapLayout& layout, const MapPlaces& places);  // floats in Run::scratch

std::unique_ptr<Node> make_map_node(const MapLayout* layout, const MapPlaces& places);

}  // namespace adgan
