// The Laplacian pyramid loss of adgan_fast/losses.py.
#pragma once

#include <cstdint>

namespace adgan {

// Floats of scratch that `laplacian` needs for an image.
std::int64_t laplacian_scratch(int height, int width);

// Σ_j 4^j ‖L_j(y - target)‖₁ and its gradient; all [H][W][C].
float laplacian(const float* y, const float* target, float* g, int channels, int height, int width, float* scratch);

}  // namespace adgan
