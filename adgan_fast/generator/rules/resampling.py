"""Images made larger or smaller: upsampling, pooling, pixel shuffle."""

from __future__ import annotations

import math
from typing import Any

import torch

from .. import algebra
from ..walk import Lowering
from .table import pair, rule


def _image(at: Lowering, x: Any) -> int:
    """An image (1, C, H, W)."""
    value = algebra.batched(at, at.value(x))
    if len(at.wholes[value]) != 4 or not algebra.offset(at, value):
        raise at.refuse(f"{at.node.target} of a tensor of shape {at.wholes[value]}")
    return value


@rule(
    "aten.upsample_nearest2d.vec", "aten.upsample_nearest2d.default", "aten._upsample_nearest_exact2d.vec",
    "aten._upsample_nearest_exact2d.default",
)  # fmt: skip
def _nearest(at: Lowering, x: Any) -> int:
    """Each pixel repeated, where the op in hand does so; else the pixels that it chooses.

    By a factor of 3.4 two pixels become six as well, but four of these are the first: PyTorch finds the source of a
    pixel by the factor that was given, except where (on a CPU) the size stays or doubles.
    """
    value = _image(at, x)
    (height, width), whole = at.wholes[value][2:], at.shape()
    device = at.node.meta["val"].device
    pixels = torch.arange(height * width, dtype=torch.float64, device=device).view(1, 1, height, width)
    chosen = at.node.target(pixels, *at.arguments()[1:])[0, 0].long()  # type: ignore[operator]
    rows, columns = (chosen[:, 0] // width).tolist(), (chosen[0] % width).tolist()
    factor = (whole[2] // height, whole[3] // width)
    if rows == _repeated(height, factor[0]) and columns == _repeated(width, factor[1]):
        return at.emit("upsample_nearest", (value,), scale=factor)
    return algebra.taken(at, algebra.taken(at, value, 2, rows), 3, columns)


def _repeated(size: int, factor: int) -> list[int]:
    return [i for i in range(size) for _ in range(factor)]


@rule("aten.pixel_shuffle.default")
def _pixel_shuffle(at: Lowering, x: Any, factor: Any) -> int:
    value = _image(at, x)
    return at.emit("pixel_shuffle", (value,), factor=int(factor))


@rule(
    "aten.upsample_bilinear2d.vec", "aten.upsample_bilinear2d.default", "aten._upsample_bilinear2d_aa.vec",
    "aten._upsample_bilinear2d_aa.default", "aten.upsample_bicubic2d.vec", "aten.upsample_bicubic2d.default",
    "aten._upsample_bicubic2d_aa.vec", "aten._upsample_bicubic2d_aa.default", "aten.avg_pool2d.default",
    "aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default",
)  # fmt: skip
def _resample(at: Lowering, x: Any) -> int:
    value = _image(at, x)
    rows, columns = _separated(at, *at.wholes[value][2:])
    return at.emit("resample", (value, at.constant(rows), at.constant(columns)))


@rule("aten.max_pool2d.default")
def _max_pool(at: Lowering, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: Any) -> int:
    """The largest of the pixels at each place of the kernel, row by row, among pads of −∞; the first of those alike.

    Rounded up (ceil_mode), a last window may end beyond the pads.
    """
    value, sizes = _image(at, x), pair(kernel)
    steps, apart, before = pair(stride or kernel), pair(dilation), pair(padding)
    reach = [(size - 1) * step + 1 for size, step in zip(at.shape()[2:], steps, strict=True)]  # of a place's pixels
    whole = [a + (size - 1) * b for a, b, size in zip(reach, apart, sizes, strict=True)]
    after = [a - b - size for a, b, size in zip(whole, before, at.wholes[value][2:], strict=True)]
    value = algebra.padded(at, value, (0, 0, *before), (0, 0, *after), -math.inf)
    largest = None
    for i in range(0, sizes[0] * apart[0], apart[0]):
        rows = algebra.taken(at, value, 2, range(i, i + reach[0], steps[0]))
        for j in range(0, sizes[1] * apart[1], apart[1]):
            pixels = algebra.taken(at, rows, 3, range(j, j + reach[1], steps[1]))
            largest = pixels if largest is None else algebra.larger(at, largest, pixels, tie=1.0)
    assert largest is not None
    return largest


@rule("aten.max_pool2d_with_indices.default")
def _max_pool_with_indices(
    at: Lowering, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: Any
) -> list[int]:
    return [_max_pool(at, x, kernel, stride, padding, dilation, ceil)]


def _separated(at: Lowering, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrices (H', H) and (W', W) of the op in hand, which maps x to rows · x · columnsᵀ: asked of the op."""

    def of(images: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = at.node.target(images.unsqueeze(1), *at.arguments()[1:])  # type: ignore[operator]
        return made[:, 0]

    ones = of(torch.ones(1, height, width, dtype=torch.float64))[0]
    row, column = divmod(int(ones.abs().argmax()), ones.shape[1])
    each_row = torch.eye(height, dtype=torch.float64)[:, :, None].expand(height, height, width)
    each_column = torch.eye(width, dtype=torch.float64)[:, None, :].expand(width, height, width)
    rows, columns = of(each_row)[:, :, column].T / ones[row, column], of(each_column)[:, row].T
    random = torch.Generator().manual_seed(0)
    tried = torch.rand(1, height, width, dtype=torch.float64, generator=random)
    up = torch.rand(1, *ones.shape, dtype=torch.float64, generator=random)
    made, gradient = torch.autograd.functional.vjp(of, tried, up)
    if not torch.allclose(rows @ tried[0] @ columns.T, made[0], rtol=1e-9, atol=1e-9):
        raise at.refuse(f"{at.node.target} does not treat rows and columns apart")
    if not torch.allclose(rows.T @ up[0] @ columns, gradient[0], rtol=1e-9, atol=1e-9):  # antialiased to one column
        raise at.refuse(f"PyTorch's own gradient of {at.node.target} is not that of what it makes here")
    return rows.contiguous(), columns.contiguous()
