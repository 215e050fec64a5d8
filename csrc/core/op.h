// Layer kinds of a program, as adgan_fast/engines/native.py numbers them.
#pragma once

namespace adgan {

enum class Op : int {
  linear, conv2d, conv_transpose2d, batch_norm,
  relu, leaky_relu, tanh, sigmoid, elu, softplus, silu, scale_shift,
  add, mul, div,
  reshape, permute, upsample_nearest, pixel_shuffle,
  count
};

}  // namespace adgan
