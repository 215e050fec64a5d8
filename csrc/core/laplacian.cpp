#include "core/laplacian.h"

#include <algorithm>
#include <cmath>

namespace adgan {

namespace {

constexpr int kCoarsest = 4;
constexpr float kBinomial[5] = {1.0f / 16, 4.0f / 16, 6.0f / 16, 4.0f / 16, 1.0f / 16};

struct Plane {
  int height, width;
  std::int64_t size() const { return static_cast<std::int64_t>(height) * width; }
  Plane half() const { return {(height + 1) / 2, (width + 1) / 2}; }
};

// One direction of the blur, edges repeated: `n` numbers `step` apart, or its adjoint.
void blur_line(const float* in, float* out, int n, int step) {
  for (int i = 0; i < n; ++i) {
    float total = 0;
    for (int k = 0; k < 5; ++k) total += kBinomial[k] * in[std::clamp(i + k - 2, 0, n - 1) * step];
    out[i * step] = total;
  }
}

void blur_line_adjoint(const float* in, float* out, int n, int step) {
  for (int i = 0; i < n; ++i) out[i * step] = 0;
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < 5; ++k) out[std::clamp(i + k - 2, 0, n - 1) * step] += kBinomial[k] * in[i * step];
  }
}

template <typename Line>
void both_ways(const float* in, float* out, float* between, Plane plane, Line line) {
  for (int y = 0; y < plane.height; ++y) line(in + y * plane.width, between + y * plane.width, plane.width, 1);
  for (int x = 0; x < plane.width; ++x) line(between + x, out + x, plane.height, plane.width);
}

// One channel: returns the loss, replaces `level` by the gradient. `free` is scratch.
double pyramid(float* level, Plane plane, float weight, float* free) {
  const std::int64_t n = plane.size();
  const auto sign = [](float x) { return static_cast<float>((x > 0) - (x < 0)); };
  double total = 0;
  if (std::min(plane.height, plane.width) < 2 * kCoarsest) {
    for (std::int64_t i = 0; i < n; ++i) {
      total += std::fabs(level[i]);
      level[i] = weight * sign(level[i]);
    }
    return weight * total;
  }
  const Plane half = plane.half();
  float *a = free, *b = a + n, *coarse = b + n;
  free = coarse + half.size();
  both_ways(level, a, b, plane, blur_line);
  for (int y = 0; y < half.height; ++y) {
    for (int x = 0; x < half.width; ++x) coarse[y * half.width + x] = a[2 * y * plane.width + 2 * x];
  }
  for (int y = 0; y < plane.height; ++y) {
    for (int x = 0; x < plane.width; ++x) a[y * plane.width + x] = coarse[y / 2 * half.width + x / 2];
  }
  both_ways(a, a, b, plane, blur_line);
  for (std::int64_t i = 0; i < n; ++i) {
    const float detail = level[i] - a[i];
    total += std::fabs(detail);
    level[i] = weight * sign(detail);
  }
  total *= weight;
  total += pyramid(coarse, half, 4 * weight, free);  // coarse is now its gradient from the levels below
  // level holds s = ∂/∂detail. detail = level - blur(repeat(coarse)), coarse = half(blur(level)).
  for (int x = 0; x < plane.width; ++x) blur_line_adjoint(level + x, b + x, plane.height, plane.width);
  for (int y = 0; y < plane.height; ++y) blur_line_adjoint(b + y * plane.width, a + y * plane.width, plane.width, 1);
  for (int y = 0; y < plane.height; ++y) {
    for (int x = 0; x < plane.width; ++x) coarse[y / 2 * half.width + x / 2] -= a[y * plane.width + x];
  }
  std::fill(a, a + n, 0.0f);
  for (int y = 0; y < half.height; ++y) {
    for (int x = 0; x < half.width; ++x) a[2 * y * plane.width + 2 * x] = coarse[y * half.width + x];
  }
  for (int x = 0; x < plane.width; ++x) blur_line_adjoint(a + x, b + x, plane.height, plane.width);
  for (int y = 0; y < plane.height; ++y) blur_line_adjoint(b + y * plane.width, a + y * plane.width, plane.width, 1);
  for (std::int64_t i = 0; i < n; ++i) level[i] += a[i];
  return total;
}

}  // namespace

std::int64_t laplacian_scratch(int height, int width) {
  return 6 * static_cast<std::int64_t>(height + 1) * (width + 1) + 64;
}

float laplacian(const float* y, const float* target, float* g, int channels, int height, int width, float* scratch) {
  const Plane plane{height, width};
  double total = 0;
  for (int c = 0; c < channels; ++c) {
    for (std::int64_t i = 0; i < plane.size(); ++i) scratch[i] = y[i * channels + c] - target[i * channels + c];
    total += pyramid(scratch, plane, 1.0f, scratch + plane.size());
    for (std::int64_t i = 0; i < plane.size(); ++i) g[i * channels + c] = scratch[i];
  }
  return static_cast<float>(total);
}

}  // namespace adgan
