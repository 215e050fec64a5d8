"""Rows standardized, in one launch: what group, instance and layer norm are made of.

    y = (x − mean) · inverse,    inverse = 1 / √(variance + eps)

with the mean and the variance (of the population) of each row of n numbers, float32. Backward, from gy = ∂loss/∂y:

    gx = inverse · (gy − mean(gy) − y · mean(gy · y))

One program has a row; a row longer than a block is read three times, and comes from the cache. The variance is that of
what is left without the mean, and all sums are in a fixed order: the same bits at every launch.
"""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from .case import Case
from .launch import launch
from .sums import kahan_add

__all__ = ["cases", "standardize", "standardize_grad"]

_LARGEST = 4096  # numbers of a row in hand at a time


@triton.jit
def standardize_kernel(x, y, inverse, n, eps, BLOCK: tl.constexpr):
    """Program r handles row r."""
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float32)
    lost = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n, BLOCK):
        places = first + tl.arange(0, BLOCK)
        total, lost = kahan_add(total, lost, tl.load(x + row * n + places, mask=places < n, other=0.0))
    mean = tl.sum(total, axis=0) / n
    total = tl.zeros((BLOCK,), tl.float32)
    lost = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n, BLOCK):
        places = first + tl.arange(0, BLOCK)
        centred = tl.load(x + row * n + places, mask=places < n, other=0.0) - mean
        total, lost = kahan_add(total, lost, tl.where(places < n, centred * centred, 0.0))
    width = 1.0 / tl.sqrt(tl.sum(total, axis=0) / n + eps)
    tl.store(inverse + row, width)
    for first in range(0, n, BLOCK):
        places = first + tl.arange(0, BLOCK)
        centred = tl.load(x + row * n + places, mask=places < n, other=0.0) - mean
        tl.store(y + row * n + places, centred * width, mask=places < n)


@triton.jit
def standardize_grad_kernel(gy, y, inverse, gx, n, BLOCK: tl.constexpr):
    """Program r handles row r."""
    row = tl.program_id(0).to(tl.int64)
    plain = tl.zeros((BLOCK,), tl.float32)
    along = tl.zeros((BLOCK,), tl.float32)
    lost_plain = tl.zeros((BLOCK,), tl.float32)
    lost_along = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, n, BLOCK):
        places = first + tl.arange(0, BLOCK)
        gradient = tl.load(gy + row * n + places, mask=places < n, other=0.0)
        plain, lost_plain = kahan_add(plain, lost_plain, gradient)
        value = tl.load(y + row * n + places, mask=places < n, other=0.0)
        along, lost_along = kahan_add(along, lost_along, gradient * value)
    mean = tl.sum(plain, axis=0) / n
    slope = tl.sum(along, axis=0) / n
    width = tl.load(inverse + row)
    for first in range(0, n, BLOCK):
        places = first + tl.arange(0, BLOCK)
        gradient = tl.load(gy + row * n + places, mask=places < n, other=0.0)
        value = tl.load(y + row * n + places, mask=places < n, other=0.0)
        tl.store(gx + row * n + places, width * (gradient - mean - value * slope), mask=places < n)


def standardize(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(y, inverse) of rows x: (R, n) and (R,), float32.

    Raises:
        ValueError: x is not (R, n), float32 and contiguous, or has rows of no numbers.
    """
    _check("x", x)
    rows, n = x.shape
    y, inverse = torch.empty_like(x), x.new_empty(rows)
    launch(x.device, standardize_kernel, rows, x, y, inverse, n, eps, **_options(n))
    return y, inverse


def standardize_grad(gy: torch.Tensor, y: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """gx (R, n), of gy (R, n) and what :func:`standardize` gave.

    Raises:
        ValueError: tensors that do not fit together.
    """
    _check("gy", gy)
    _check("y", y)
    if gy.shape != y.shape or inverse.shape != y.shape[:1]:
        raise ValueError(f"gy {tuple(gy.shape)}, y {tuple(y.shape)} and inverse {tuple(inverse.shape)} do not fit")
    gx = torch.empty_like(gy)
    launch(gy.device, standardize_grad_kernel, len(gy), gy, y, inverse, gx, gy.shape[1], **_options(gy.shape[1]))
    return gx


def _check(name: str, rows: torch.Tensor) -> None:
    if rows.dim() != 2 or rows.dtype != torch.float32 or not rows.is_contiguous() or not rows.shape[1]:
        raise ValueError(f"{name} must be (R, n), float32 and contiguous, got {tuple(rows.shape)} {rows.dtype}")


def _options(n: int) -> dict[str, Any]:
    block = min(_LARGEST, max(256, triton.next_power_of_2(n)))
    return {"BLOCK": block, "num_warps": max(1, block // 512), "enable_fp_fusion": True}


def cases() -> Iterator[Case]:
    """A short row, one that fills a block, and one of several blocks; in whole vectors of 16 bytes."""
    for n in (256, 1024, _LARGEST):
        options = _options(n)
        block = options.pop("BLOCK")
        for kernel, name, tensors, wide in (
            (standardize_kernel, "standardize", ("x", "y", "inverse"), 3),
            (standardize_grad_kernel, "standardize backward", ("gy", "y", "inverse", "gx"), 4),
        ):
            yield Case(
                name=f"{name}, blocks of {block}",
                kernel=kernel,
                signature={**dict.fromkeys(tensors, "*fp32"), "n": "i32"}
                | ({"eps": "fp32"} if kernel is standardize_kernel else {}),
                constexprs={"BLOCK": block},
                aligned=(*tensors, "n"),
                options=options,
                wide_load_bytes=wide * 4 * block,
                wide_store_bytes=4 * block,
            )
