"""Normalisations: by running statistics, or by those of the sample itself."""

from __future__ import annotations

import math
from typing import Any

import torch

from .. import algebra
from ..walk import Lowering
from .table import rule


@rule("aten.batch_norm.default")
def _batch_norm(
    at: Lowering, x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: Any, eps: float
) -> int:
    if training or mean is None or var is None:  # those of the batch, which is one image
        return _own_statistics(at, at.value(x), weight, bias, 1, eps, over_batch=True)
    return _normalize(at, at.value(x), weight, bias, mean, var, eps)


@rule("aten._native_batch_norm_legit_no_training.default")
def _native_batch_norm(
    at: Lowering, x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: Any, eps: float
) -> list[int]:
    return [_normalize(at, at.value(x), weight, bias, mean, var, eps)]


@rule("aten._native_batch_norm_legit_functional.default", "aten._native_batch_norm_legit.default")
def _native_batch_norm_training(
    at: Lowering, x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: Any, eps: float
) -> list[int]:
    return [_batch_norm(at, x, weight, bias, mean, var, training, momentum, eps)]


@rule("aten._native_batch_norm_legit.no_stats")
def _native_batch_norm_own(
    at: Lowering, x: Any, weight: Any, bias: Any, training: bool, momentum: Any, eps: float
) -> list[int]:
    return [_batch_norm(at, x, weight, bias, None, None, True, momentum, eps)]


@rule("aten.instance_norm.default")
def _instance_norm(
    at: Lowering, x: Any, weight: Any, bias: Any, mean: Any, var: Any, own: bool, momentum: Any, eps: float
) -> int:
    if not own:
        return _normalize(at, at.value(x), weight, bias, mean, var, eps)
    return _own_statistics(at, at.value(x), weight, bias, 1, eps)


def _normalize(at: Lowering, x: int, weight: Any, bias: Any, mean: Any, var: Any, eps: float) -> int:
    """By constant statistics of each channel, the second dimension."""
    statistics = (at.value(mean), at.value(var))
    if any(at.values[i].kind != "constant" for i in statistics):
        raise at.refuse("batch norm whose running statistics are not buffers")
    x = algebra.batched(at, x)
    affine = (at.optional(weight), at.optional(bias))
    if not algebra.offset(at, x) or any(i is not None and at.values[i].batched for i in affine):
        raise at.refuse(f"{at.node.target} of more than one sample, or by a weight that depends on the latent")
    return at.emit("batch_norm", (x, *affine, *statistics), at.wholes[x], eps=float(eps))


def _own_statistics(
    at: Lowering, x: int, weight: Any, bias: Any, per_group: int, eps: float, over_batch: bool = False
) -> int:
    """(N, C, ...) by the statistics of each sample and each `per_group` channels, then channel by channel w · x + b."""
    whole = at.wholes[x]
    samples, channels, places = whole[0], whole[1], whole[2:]
    if over_batch and samples != 1:
        raise at.refuse(f"{at.node.target} over the batch dimension mixes the images of a batch")
    if per_group * math.prod(places) == 1:
        raise at.refuse(f"{at.node.target} by the statistics of one number")
    groups = (samples, channels // per_group, per_group, *places)
    if per_group == 1:
        x = algebra.standardized(at, x, range(2, len(whole)), eps)
    else:
        x = algebra.standardized(at, algebra.reshaped(at, x, groups), range(2, len(groups)), eps)
    return _affine(at, algebra.reshaped(at, x, whole), weight, bias, (channels, *[1] * len(places)))


def _affine(at: Lowering, x: int, weight: Any, bias: Any, shape: tuple[int, ...]) -> int:
    """weight · x + bias, where there are such, both in a shape that broadcasts."""
    if weight is not None:
        x = algebra.combined(at, "mul", x, algebra.reshaped(at, at.value(weight), shape))
    if bias is not None:
        x = algebra.combined(at, "add", x, algebra.reshaped(at, at.value(bias), shape))
    return x


@rule("aten.group_norm.default")
def _group_norm(at: Lowering, x: Any, groups: int, weight: Any, bias: Any, eps: float) -> int:
    value = at.value(x)
    return _own_statistics(at, value, weight, bias, at.wholes[value][1] // int(groups), eps)


@rule("aten.native_group_norm.default")
def _native_group_norm(
    at: Lowering, x: Any, weight: Any, bias: Any, n: int, c: int, places: int, groups: int, eps: float
) -> list[int]:
    return [_group_norm(at, x, groups, weight, bias, eps)]


@rule("aten.layer_norm.default")
def _layer_norm(at: Lowering, x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> int:
    value, sizes = at.value(x), tuple(int(size) for size in shape)
    rank = len(at.wholes[value])
    made = algebra.standardized(at, value, range(rank - len(sizes), rank), eps)
    return _affine(at, made, weight, bias, sizes)


@rule("aten.native_layer_norm.default")
def _native_layer_norm(at: Lowering, x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> list[int]:
    return [_layer_norm(at, x, shape, weight, bias, eps)]


@rule("aten.rms_norm.default")
def _rms_norm(at: Lowering, x: Any, shape: Any, weight: Any, eps: Any) -> int:
    """x / √(mean of x² + eps)."""
    value, rank = at.value(x), len(at.wholes[at.value(x)])
    sizes = tuple(int(size) for size in shape)
    eps = torch.finfo(at.dtype).eps if eps is None else float(eps)
    squares = algebra.mean(at, algebra.power(at, value, 2), list(range(rank - len(sizes), rank)), keepdim=True)
    made = algebra.combined(at, "mul", value, algebra.power(at, algebra.scaled(at, squares, 1.0, eps), -0.5))
    return _affine(at, made, weight, None, sizes)


@rule("aten.linalg_vector_norm.default")
def _vector_norm(at: Lowering, x: Any, order: Any, dims: Any, keepdim: bool) -> int:
    value = at.value(x)
    if at.number(order) != 2:
        raise at.refuse(f"the vector norm of order {order} is not known to the fast engines")
    return algebra.root(at, algebra.summed(at, algebra.power(at, value, 2), dims, bool(keepdim)))


@rule("aten.norm.ScalarOpt_dim", "aten.norm.ScalarOpt_dim_dtype")
def _norm(at: Lowering, x: Any, order: Any, dims: Any, keepdim: bool) -> int:
    return _vector_norm(at, x, 2 if order is None else order, dims, keepdim)


@rule("aten._weight_norm.default")
def _weight_norm(at: Lowering, v: Any, g: Any, dim: int) -> int:
    """g · v / |v|, the norm over all dimensions but one."""
    direction, size = at.value(v), at.value(g)
    rank = len(at.wholes[direction])
    dims = list(range(rank)) if dim == -1 else [i for i in range(rank) if i != dim % rank]
    norm = algebra.root(at, algebra.summed(at, algebra.power(at, direction, 2), dims, keepdim=True))
    return algebra.combined(at, "mul", direction, algebra.combined(at, "div", size, norm))
