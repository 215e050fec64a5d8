"""The layers "standardize" and "softmax" by their Triton kernels, which work on rows, under autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...generator.program import Layer, Program
from ...kernels.softmax import softmax, softmax_grad
from ...kernels.standardize import standardize, standardize_grad
from ..rearrange import dims_of


def standardized(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """x (G, B, *shape) or (G, *shape), standardized over the layer's dims of one sample."""
    dims = dims_of(program, layer, *layer.attrs["dims"])
    return _over_rows(x, dims, lambda rows: _Standardize.apply(rows, layer.attrs["eps"]))


def softmaxed(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """The softmax of x (G, B, *shape) or (G, *shape), over the layer's dim of one sample."""
    return _over_rows(x, dims_of(program, layer, layer.attrs["dim"]), _Softmax.apply)


def _over_rows(
    x: torch.Tensor, dims: tuple[int, ...], function: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """What `function` makes of rows (R, n) of the numbers along dims, put back where those of x are."""
    order = [dim for dim in range(x.dim()) if dim not in dims] + list(dims)
    moved = x.permute(order)
    n = moved.shape[x.dim() - len(dims) :].numel()
    rows = function(moved.reshape(x.numel() // n if n else 0, n).contiguous())
    back = sorted(range(x.dim()), key=order.__getitem__)
    return rows.reshape(moved.shape).permute(back)


class _Standardize(torch.autograd.Function):
    """Rows (R, n)."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, eps: float) -> torch.Tensor:
        y, inverse = standardize(rows, eps)
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, gy: torch.Tensor) -> tuple[torch.Tensor, None]:
        y, inverse = ctx.saved_tensors
        return standardize_grad(gy.contiguous(), y, inverse), None


class _Softmax(torch.autograd.Function):
    """Rows (R, n)."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        y = softmax(rows)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return softmax_grad(gy.contiguous(), y)
