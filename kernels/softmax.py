"""Softmax of rows, in one launch.

    y = e^(x − max) / Σ e^(x − max)

over each row of n numbers, float32. Backward, from gy = ∂loss/∂y:

    gx = y · (gy − Σ gy · y)

A program has as many short rows as fill it, or one; a row longer than a block is read in several passes, and comes from
the cache. All sums are in a fixed order, which only n decides: the same bits at every launch, and for a row whatever
the others are. As in PyTorch −inf becomes 0, and a row with NaN or +inf, or of −inf alone, becomes NaN.
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
from .functions import exp
from .launch import launch
from .sums import kahan_add

__all__ = ["cases", "softmax", "softmax_grad"]

_LARGEST = 4096  # numbers of a row in hand at a time
_FILLED = 1024  # numbers of short rows in hand


@triton.jit
def _read(x, row, rows, place, n, other):
    """(ROWS, BLOCK) of rows (rows, n); `other` where there are none."""
    mask = (row < rows)[:, None] & (place < n)[None, :]
    return tl.load(x + (row * n)[:, None] + place[None, :], mask=mask, other=other)


@triton.jit
def _write(y, row, rows, place, n, values):
    mask = (row < rows)[:, None] & (place < n)[None, :]
    tl.store(y + (row * n)[:, None] + place[None, :], values, mask=mask)


@triton.jit
def softmax_kernel(x, y, rows, n, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Program i handles ROWS rows from row i · ROWS on."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    nothing: tl.constexpr = float("-inf")  # adds e^−inf = 0
    most = tl.full((ROWS, BLOCK), nothing, tl.float32)
    for first in range(0, n, BLOCK):
        most = tl.maximum(most, _read(x, row, rows, first + tl.arange(0, BLOCK), n, nothing))
    largest = tl.max(most, axis=1)[:, None]  # whether NaN counts or not: it makes the sum NaN
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    lost = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, n, BLOCK):
        values = _read(x, row, rows, first + tl.arange(0, BLOCK), n, nothing)
        total, lost = kahan_add(total, lost, exp(values - largest))
    share = (1.0 / tl.sum(total, axis=1))[:, None]
    for first in range(0, n, BLOCK):
        place = first + tl.arange(0, BLOCK)
        values = _read(x, row, rows, place, n, nothing)
        _write(y, row, rows, place, n, exp(values - largest) * share)


@triton.jit
def softmax_grad_kernel(gy, y, gx, rows, n, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """As `softmax_kernel`."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    lost = tl.zeros((ROWS, BLOCK), tl.float32)
    for first in range(0, n, BLOCK):
        place = first + tl.arange(0, BLOCK)
        gradient = _read(gy, row, rows, place, n, 0.0)
        total, lost = kahan_add(total, lost, gradient * _read(y, row, rows, place, n, 0.0))
    mean = tl.sum(total, axis=1)[:, None]
    for first in range(0, n, BLOCK):
        place = first + tl.arange(0, BLOCK)
        gradient = _read(gy, row, rows, place, n, 0.0)
        _write(gx, row, rows, place, n, _read(y, row, rows, place, n, 0.0) * (gradient - mean))


def softmax(x: torch.Tensor) -> torch.Tensor:
    """y (R, n) of rows x (R, n), float32.

    Raises:
        ValueError: x is not (R, n), float32 and contiguous.
    """
    _check("x", x)
    y = torch.empty_like(x)
    _launch(softmax_kernel, x, y)
    return y


def softmax_grad(gy: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """gx (R, n), of gy (R, n) and what :func:`softmax` gave.

    Raises:
        ValueError: tensors that do not fit together.
    """
    _check("gy", gy)
    _check("y", y)
    if gy.shape != y.shape:
        raise ValueError(f"gy {tuple(gy.shape)} and y {tuple(y.shape)} do not fit")
    gx = torch.empty_like(gy)
    _launch(softmax_grad_kernel, gy, y, gx)
    return gx


def _check(name: str, rows: torch.Tensor) -> None:
    if rows.dim() != 2 or rows.dtype != torch.float32 or not rows.is_contiguous():
        raise ValueError(f"{name} must be (R, n), float32 and contiguous, got {tuple(rows.shape)} {rows.dtype}")


def _launch(kernel: Any, *tensors: torch.Tensor) -> None:
    rows, n = tensors[0].shape
    if n:
        tile = _tile(n)
        blocks = triton.cdiv(rows, tile["ROWS"])
        launch(tensors[0].device, kernel, blocks, *tensors, rows, n, **tile, **_options(tile))


def _tile(n: int) -> dict[str, int]:
    block = min(_LARGEST, max(16, triton.next_power_of_2(n)))
    return {"ROWS": max(1, _FILLED // block), "BLOCK": block}


def _options(tile: dict[str, int]) -> dict[str, Any]:
    return {"num_warps": tile["ROWS"] * tile["BLOCK"] // 256, "enable_fp_fusion": True}


def cases() -> Iterator[Case]:
    """Many short rows, rows that fill a block, and one of several blocks; in whole vectors of 16 bytes."""
    for n in (16, 64, 256, 1024, 2048, _LARGEST):
        tile = _tile(n)
        bytes_in_hand = 4 * tile["ROWS"] * tile["BLOCK"]
        for kernel, name, tensors, reads in (
            (softmax_kernel, "softmax", ("x", "y"), 3),
            (softmax_grad_kernel, "softmax backward", ("gy", "y", "gx"), 4),
        ):
            yield Case(
                name=f"{name}, {tile['ROWS']} × {tile['BLOCK']}",
                kernel=kernel,
                signature={**dict.fromkeys(tensors, "*fp32"), "rows": "i32", "n": "i32"},
                constexprs=tile,
                aligned=(*tensors, "n"),
                options=_options(tile),
                wide_load_bytes=reads * bytes_in_hand,
                wide_store_bytes=bytes_in_hand,
            )
