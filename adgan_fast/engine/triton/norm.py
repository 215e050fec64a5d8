"""The layer "standardize" by its Triton kernel, under autograd."""

from __future__ import annotations

from typing import Any

import torch

from ...generator.program import Layer, Program
from ...kernels.standardize import standardize, standardize_grad
from ..rearrange import dims_of


def standardized(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """x (G, B, *shape) or (G, *shape), standardized over the layer's dims of one sample."""
    dims = [*dims_of(program, layer, *layer.attrs["dims"])]
    order = [dim for dim in range(x.dim()) if dim not in dims] + dims
    moved = x.permute(order)
    sizes = moved.shape[x.dim() - len(dims) :]
    rows = _Standardize.apply(moved.reshape(-1, sizes.numel()).contiguous(), layer.attrs["eps"])
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
