"""Convolutions."""

from __future__ import annotations

from typing import Any

from .. import algebra
from ..walk import Lowering
from .table import pair, rule


@rule("aten.conv2d.default")
def _conv2d(at: Lowering, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> int:
    return _convolve(at, "conv2d", x, weight, bias, stride, padding, dilation, groups)


@rule("aten.conv2d.padding")
def _conv2d_padding(
    at: Lowering, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> int:
    if padding == "valid":
        sizes = (0, 0)
    else:
        kernel = at.values[at.value(weight)].shape[2:]
        total = [d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True)]
        if any(size % 2 for size in total):
            raise at.refuse("conv2d with padding='same' and an even kernel pads one side more")
        sizes = (total[0] // 2, total[1] // 2)
    return _convolve(at, "conv2d", x, weight, bias, stride, sizes, dilation, groups)


@rule("aten.conv_transpose2d.input")
def _conv_transpose2d(
    at: Lowering, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any,
    dilation: Any,
) -> int:  # fmt: skip
    return _convolve(
        at, "conv_transpose2d", x, weight, bias, stride, padding, dilation, groups, output_padding=pair(output_padding)
    )


@rule("aten.convolution.default")
def _convolution(
    at: Lowering, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: Any,
) -> int:  # fmt: skip
    if len(at.wholes[at.value(weight)]) != 4:
        raise at.refuse("only two-dimensional convolutions are known to the fast engines")
    if transposed:
        return _conv_transpose2d(at, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _convolve(at, "conv2d", x, weight, bias, stride, padding, dilation, groups)


def _convolve(
    at: Lowering, op: str, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any,
    **more: Any,
) -> int:  # fmt: skip
    value = algebra.batched(at, at.value(x))
    kernel, added = at.unbatched(at.value(weight)), at.unbatched(at.optional(bias))
    assert kernel is not None
    if len(at.wholes[value]) != 4:
        raise at.refuse(f"{op} of an input without a batch dimension")
    count, groups, shape = at.wholes[value][0], int(groups), at.shape()
    if not algebra.offset(at, value):  # several images of one sample: each a group, all by the same weights
        value = algebra.reshaped(at, value, (1, -1, *at.wholes[value][2:]))
        kernel = algebra.taken(at, kernel, 0, list(range(at.wholes[kernel][0])) * count)
        added = None if added is None else algebra.taken(at, added, 0, list(range(at.wholes[added][0])) * count)
    of_layer = added is None or at.values[added].kind in ("parameter", "constant")  # else it is computed
    inputs, whole = (value, kernel, added if of_layer else None), (1, count * shape[1], *shape[2:])
    sizes = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation)}
    made = at.emit(op, inputs, whole, **sizes, groups=groups * count, **more)
    if added is not None and not of_layer:
        made = algebra.combined(at, "add", made, algebra.reshaped(at, added, (1, whole[1], 1, 1)))
    return algebra.reshaped(at, made, shape)
