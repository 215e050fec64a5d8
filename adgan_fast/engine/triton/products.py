"""The layer "matmul" by its Triton kernel, under autograd."""

from __future__ import annotations

from typing import Any

import torch

from ...generator.program import Layer, Program
from ...kernels.products import product


def multiplied(program: Program, layer: Layer, a: torch.Tensor, b: torch.Tensor, *, precision: str) -> torch.Tensor:
    """a (G, B, …, n, k) or (G, …, n, k) times b alike, (…, k, m); G of either may be 1.

    precision: of the config. What is made of weights alone is small, and computed in float32 whatever it permits.
    """
    if not program.values[layer.output].batched:
        precision = "float32"
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (x.expand(*lead, *x.shape[-2:]) for x in (a, b))  # whose backward sums; that of Product knows no 1
    return Product.apply(a, b, precision)


class Product(torch.autograd.Function):
    """Matrices (…, m, k) and (…, k, n), the other dimensions alike."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, precision: str) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        ctx.precision = precision
        return product(a, b, precision)

    @staticmethod
    def backward(ctx: Any, gc: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        a, b = ctx.saved_tensors
        need_a, need_b, _ = ctx.needs_input_grad
        ga = product(gc, b.mT, ctx.precision) if need_a else None
        return ga, product(a.mT, gc, ctx.precision) if need_b else None, None
