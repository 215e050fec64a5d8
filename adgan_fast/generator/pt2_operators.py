"""The operators that a saved program may use, and the checks in it that are passed over."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

# Functional operators of deterministic image generators, before and after decomposition; `relu_` is allowed because
# `relu` is. No random draws (a score is a function of the latent alone), no strings that name files, no raw storages.
_NAMES = """
    linear addmm mm bmm matmul baddbmm mv dot vdot outer einsum t numpy_T mT
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
    batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training native_batch_norm
    _native_batch_norm_legit_functional instance_norm group_norm native_group_norm layer_norm native_layer_norm
    rms_norm _fused_rms_norm linalg_vector_norm norm _weight_norm _weight_norm_interface
    dropout feature_dropout alpha_dropout native_dropout
    relu relu6 leaky_relu prelu _prelu_kernel rrelu elu selu celu gelu silu mish glu sigmoid log_sigmoid
    log_sigmoid_forward hardsigmoid hardswish hardtanh tanh softplus softshrink hardshrink threshold softmax _softmax
    log_softmax _log_softmax
    add sub rsub mul div true_divide floor_divide remainder fmod pow square sqrt rsqrt reciprocal neg abs sign sin cos
    tan asin acos atan atan2 sinh cosh asinh acosh atanh exp exp2 expm1 log log2 log10 log1p erf erfc floor ceil round
    trunc frac clamp clamp_min clamp_max clip lerp addcmul addcdiv maximum minimum where masked_fill nan_to_num eq ne
    lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not isnan isinf isfinite
    mean sum prod var std var_mean amax amin max min any all cumsum logsumexp argmax argmin
    view _unsafe_view view_as reshape reshape_as flatten unflatten permute transpose movedim moveaxis swapaxes squeeze
    unsqueeze expand expand_as broadcast_to repeat repeat_interleave tile cat concat stack chunk split
    split_with_sizes narrow slice select unbind diagonal flip roll rot90 contiguous clone alias detach lift_fresh
    lift_fresh_copy to _to_copy type_as copy fill zero index index_put index_select gather slice_scatter
    select_scatter embedding one_hot eye diag diag_embed tril triu
    pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d _pad_circular
    pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa
    avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d max_pool2d max_pool2d_with_indices im2col col2im
    grid_sampler grid_sampler_2d affine_grid_generator scaled_dot_product_attention
    zeros ones full arange linspace meshgrid scalar_tensor zeros_like ones_like full_like new_zeros new_ones new_full
    sym_size sym_numel sym_stride
"""
ALLOWED = frozenset(_NAMES.split())
# Run-time checks of what export assumed. They compute nothing, and they pin the dtype and device of the export.
CHECKS = frozenset(
    [
        "_assert_async",
        "_assert_scalar",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    ]
)
GRAD_MODE = "torch.ops.higher_order.wrap_with_set_grad_enabled"
"""A call of a graph of its own: what stood under torch.no_grad."""
# Arithmetic on sizes. No `pow` and no shifts: a file could ask them for numbers without end.
_ARITHMETIC = ["add", "sub", "mul", "floordiv", "truediv", "mod", "neg"]
_COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge", "and_", "or_"]
_SYMBOLIC = ["sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite"]
SIZE_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "math.trunc": math.trunc,
    **{f"_operator.{name}": getattr(operator, name) for name in _ARITHMETIC + _COMPARISONS},
    **{f"torch.{name}": getattr(torch, name) for name in _SYMBOLIC},
}
