"""The layers of a Program, each described once. docs/extending.md says what a new one needs besides a row here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

Size = tuple[int, int]
"""(h, w)"""
Dims = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LayerType:
    """What a layer of some kind takes.

    Attributes:
        inputs: their names, in order.
        optional: those that may be absent.
        weights: those that are a generator's own weights: parameters, or constants, or computed from these alone.
        attrs: attributes by name, with their types: float, int, Size or Dims.
        linear_map: whether it is weight · x + bias, x and weight being its first two inputs.
        does: what its name leaves open.
    """

    inputs: tuple[str, ...]
    optional: frozenset[str]
    weights: frozenset[str]
    attrs: Mapping[str, Any]
    linear_map: bool
    does: str


def layer_type(inputs: str, does: str = "", *, weights: str = "", linear_map: bool = False, **attrs: Any) -> LayerType:
    """A LayerType by its inputs' names, of which those that may be absent end in "?"."""
    names = inputs.split()
    return LayerType(
        tuple(name.rstrip("?") for name in names),
        frozenset(name.rstrip("?") for name in names if name.endswith("?")),
        frozenset(weights.split()),
        MappingProxyType(attrs),
        linear_map,
        does,
    )


LAYERS: Mapping[str, LayerType] = {
    "linear": layer_type(
        "x weight bias?", "on the last dimension of x; weight (out, in)", weights="weight bias", linear_map=True
    ),
    "conv2d": layer_type(
        "x weight bias?", weights="weight bias", linear_map=True,
        stride=Size, padding=Size, dilation=Size, groups=int,
    ),
    "conv_transpose2d": layer_type(
        "x weight bias?", weights="weight bias", linear_map=True,
        stride=Size, padding=Size, dilation=Size, groups=int, output_padding=Size,
    ),
    "batch_norm": layer_type(
        "x weight? bias? mean var", "by running statistics; channels are the first dimension of x",
        weights="weight bias", eps=float,
    ),
    "relu": layer_type("x"),
    "leaky_relu": layer_type("x", slope=float),
    "tanh": layer_type("x"),
    "sigmoid": layer_type("x"),
    "elu": layer_type("x", alpha=float, scale=float, input_scale=float),
    "softplus": layer_type("x", beta=float, threshold=float),
    "silu": layer_type("x"),
    "gelu": layer_type("x", "x · Φ(x)"),
    "gelu_tanh": layer_type("x", "GELU's approximation by tanh"),
    "erf": layer_type("x", "the error function"),
    "hardtanh": layer_type("x", "to [low, high]; no gradient on the bounds", low=float, high=float),
    "clamp": layer_type("x", "to [low, high]; a gradient on the bounds", low=float, high=float),
    "pow": layer_type("x", exponent=float),
    "exp": layer_type("x"),
    "log": layer_type("x"),
    "abs": layer_type("x"),
    "prelu": layer_type("x weight", "one slope, or one for each row of x's first dimension", weights="weight"),
    "sin": layer_type("x"),
    "scale_shift": layer_type("x", "scale · x + shift", scale=float, shift=float),
    "add": layer_type("a b", "a + alpha · b, broadcast", alpha=float),
    "mul": layer_type("a b", "elementwise, broadcast"),
    "div": layer_type("a b", "elementwise, broadcast"),
    "maximum": layer_type("a b", "elementwise, broadcast; of two alike a has `tie` of the gradient", tie=float),
    "matmul": layer_type("a b", "of matrices (…, n, k) and (…, k, m), the other dimensions alike"),
    "standardize": layer_type("x", "mean 0 and variance 1 (of the population) over dims", dims=Dims, eps=float),
    "softmax": layer_type("x", dim=int),
    "sum": layer_type("x", "over dims, to the output's shape, which may keep them as 1", dims=Dims),
    "resample": layer_type("x rows columns", "x (C, H, W) to rows · x · columnsᵀ; rows (H', H), columns (W', W)"),
    "reshape": layer_type("x", "to the output's shape"),
    "expand": layer_type("x", "dimensions of size 1 to the output's; the output has a row for each sample"),
    "take": layer_type("x", "x's slices at index along dim", dim=int, index=Dims),
    "pad": layer_type("x", "so many of value around each dimension", before=Dims, after=Dims, value=float),
    "cat": layer_type("a b", dim=int),
    "permute": layer_type("x", "dims of one sample where x has a row for each", dims=Dims),
    "upsample_nearest": layer_type("x", "each pixel repeated", scale=Size),
    "pixel_shuffle": layer_type("x", factor=int),
    "stop": layer_type("x", "x; no gradient passes"),
}  # fmt: skip
"""By name. Dimensions are of one sample where a value has a row for each sample, else of the whole.

An operand of add, mul, div or maximum that has no row for each sample broadcasts as (1, *shape of a sample) does. The
matrices of `resample` are constants. `matmul` and `cat` take two values with a row for each sample, or two without.
"""

LINEAR_MAPS = tuple(op for op, kind in LAYERS.items() if kind.linear_map)


def check_layer(op: str, inputs: Sequence[int | None], attrs: Mapping[str, Any]) -> None:
    """Raise a ValueError that names what of a layer its row of LAYERS does not allow."""
    kind = LAYERS.get(op)
    if kind is None:
        raise ValueError(f"layer {op!r} has no row in generator/layers.py")
    if len(inputs) != len(kind.inputs):
        raise ValueError(f"layer {op!r} takes {len(kind.inputs)} inputs ({', '.join(kind.inputs)}), got {len(inputs)}")
    for name, value in zip(kind.inputs, inputs, strict=True):
        if value is None and name not in kind.optional:
            raise ValueError(f"layer {op!r} needs its input {name}")
    if attrs.keys() != kind.attrs.keys():
        raise ValueError(f"layer {op!r} has the attributes {sorted(kind.attrs)}, got {sorted(attrs)}")
    for name, value in attrs.items():
        if not _is(value, kind.attrs[name]):
            raise ValueError(f"attribute {name} of layer {op!r} must be of type {kind.attrs[name]}, got {value!r}")


def _is(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return type(value) is kind
    return type(value) is tuple and all(type(size) is int for size in value) and (kind == Dims or len(value) == 2)
