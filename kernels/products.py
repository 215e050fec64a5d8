"""Products matrix by matrix: attention's Q · Kᵀ and A · V, and rows of activations by a pair's own weights.

    c[i] = a[i] · b[i]        ga = gc · bᵀ        gb = aᵀ · gc

for matrices (m, k) and (k, n), float32; backward is two more such products. An operand may lie in memory in any way, a
transposed or repeated one is read as it lies. A program makes one tile of one c[i] and sums over k in blocks of a fixed
order: the same bits at every launch, and for a matrix whatever the others are.
"""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from .case import TARGETS, Case
from .dot import multiply, operand
from .launch import backend_of, launch
from .maps.choices import block
from .maps.precision import Backend, MapPrecision

__all__ = ["case_of", "cases", "product"]


@triton.jit
def matmul_kernel(
    a, b, c, inner, rows, columns, depth,
    a_outer, a_inner, a_row, a_depth, b_outer, b_inner, b_depth, b_column,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    """A program makes ROWS × COLUMNS numbers of the product of one pair of matrices.

    a: (outer, inner, rows, depth) with these strides, b: (outer, inner, depth, columns) alike; c: contiguous.
    """
    program = tl.program_id(0)
    column_blocks = tl.cdiv(columns, COLUMNS)
    row_blocks = tl.cdiv(rows, ROWS)
    column = program % column_blocks * COLUMNS + tl.arange(0, COLUMNS)
    row = program // column_blocks % row_blocks * ROWS + tl.arange(0, ROWS)
    matrix = program // (column_blocks * row_blocks)
    this_outer, this_inner = (matrix // inner).to(tl.int64), (matrix % inner).to(tl.int64)
    a += this_outer * a_outer + this_inner * a_inner
    b += this_outer * b_outer + this_inner * b_inner
    c += matrix.to(tl.int64) * rows * columns
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, depth, DEPTH):
        place = first + tl.arange(0, DEPTH)
        left_mask = (row < rows)[:, None] & (place < depth)[None, :]
        left = tl.load(a + row[:, None] * a_row + place[None, :] * a_depth, mask=left_mask, other=0.0)
        right_mask = (place < depth)[:, None] & (column < columns)[None, :]
        right = tl.load(b + place[:, None] * b_depth + column[None, :] * b_column, mask=right_mask, other=0.0)
        total = multiply(operand(left, MODE), operand(right, MODE), total, MODE)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(c + row[:, None] * columns + column[None, :], total, mask=inside)


def product(a: torch.Tensor, b: torch.Tensor, precision: str) -> torch.Tensor:
    """a · b: (…, m, k) and (…, k, n) to (…, m, n), contiguous; float32.

    Args:
        a, b: of any strides; dimensions before the last two broadcast, as torch.matmul has it.
        precision: as SearchConfig has it: three TF32 products for "float32", else one.

    Where the dimensions before the matrices do not come down to two of even strides, operands are copied first.

    Raises:
        ValueError: tensors that do not fit together; an unknown precision.
        RuntimeError: a device that this process cannot run Triton on; more than a grid or 32-bit offsets inside of a
            matrix can count.
    """
    _check(a, b)
    mode = MapPrecision.of(precision, backend_of(matmul_kernel, a.device)).shared
    (rows, depth), columns = a.shape[-2:], b.shape[-1]
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if not (lead.numel() and rows and columns and depth):  # no number, or sums of none
        return a.new_zeros(*lead, rows, columns)
    a, b = a.expand(*lead, rows, depth), b.expand(*lead, depth, columns)
    batches = _batches(a, b)
    if len(batches) > 2:
        a, b = a.contiguous(), b.contiguous()
        batches = _batches(a, b)
    (_, *outer), (inner, *within) = [(1, 0, 0)] * (2 - len(batches)) + batches
    c = a.new_empty(*lead, rows, columns)
    for name, matrix in (("a", a), ("b", b), ("the product", c)):
        _check_span(name, matrix)
    tile = _tile(rows, columns, depth)
    matrices = lead.numel()
    launch(
        a.device, matmul_kernel,
        matrices * triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(columns, tile["COLUMNS"]),
        a, b, c, inner, rows, columns, depth,
        outer[0], within[0], *a.stride()[-2:], outer[1], within[1], *b.stride()[-2:],
        **tile, MODE=mode, **_options(tile),
    )  # fmt: skip
    return c


def _check(a: torch.Tensor, b: torch.Tensor) -> None:
    fits = a.dim() >= 2 <= b.dim() and a.shape[-1] == b.shape[-2]
    if not fits or a.dtype != torch.float32 or b.dtype != torch.float32 or a.device != b.device:
        raise ValueError(
            f"a and b must be (…, m, k) and (…, k, n), float32 and on one device, "
            f"got {tuple(a.shape)} {a.dtype} on {a.device} and {tuple(b.shape)} {b.dtype} on {b.device}"
        )


def _batches(a: torch.Tensor, b: torch.Tensor) -> list[tuple[int, int, int]]:
    """The dimensions before the matrices as few as can be: size, stride of a, stride of b."""
    found: list[tuple[int, int, int]] = []
    for size, of_a, of_b in zip(a.shape[:-2], a.stride(), b.stride(), strict=False):
        if found and found[-1][1:] == (size * of_a, size * of_b):
            found[-1] = (found[-1][0] * size, of_a, of_b)
        elif size != 1:
            found.append((size, of_a, of_b))
    return found


def _check_span(name: str, matrix: torch.Tensor) -> None:
    span = sum((size - 1) * stride for size, stride in zip(matrix.shape[-2:], matrix.stride()[-2:], strict=True))
    if span >= 2**31:
        raise RuntimeError(f"{name} spans {span} numbers in memory, more than 32 bits count")


# -- specialisations -----------------------------------------------------------------------------------------------


def _tile(rows: int, columns: int, depth: int) -> dict[str, int]:
    """Not tuned, but for what fits into registers."""
    return {"ROWS": block(64, rows), "COLUMNS": block(64, columns), "DEPTH": block(32, depth)}


def _options(tile: dict[str, int]) -> dict[str, Any]:
    """Not tuned. One turn of 16 needs no loads ahead, and four warps make no part of a product twice, as eight do."""
    short = tile["DEPTH"] == 16
    warps = min(4 if short else 8, tile["ROWS"] * tile["COLUMNS"] // 256)
    return {"num_warps": warps, "num_stages": 1 if short else 2, "enable_fp_fusion": True}


_ROW_MAJOR = {"a_depth": 1, "b_column": 1}
_ORDERS = {"a · b": _ROW_MAJOR, "a · bᵀ": {"a_depth": 1, "b_depth": 1}, "aᵀ · b": {"a_row": 1, "b_column": 1}}
"""How operands lie: the strides that are 1, for which Triton compiles by themselves."""


def cases() -> Iterator[Case]:
    """Every mode and order of the operands in large tiles, and small ones; all sizes in whole vectors of 16 bytes."""
    for backend in ("cuda", "hip"):
        for precision in ("float32", "tf32") if backend == "cuda" else ("float32",):  # all others multiply as "tf32"
            for order in _ORDERS:
                for sizes in ((64, 64, 32), (64, 64, 16), (64, 16, 32), (16, 64, 32), (16, 16, 32)):
                    yield case_of(precision, backend, order, *sizes)


def case_of(precision: str, backend: Backend, order: str, rows: int, columns: int, depth: int) -> Case:
    """What `product` launches for matrices (rows, depth) and (depth, columns); `order` of _ORDERS."""
    ones, tile = _ORDERS[order], _tile(rows, columns, depth)
    tensors, numbers = ("a", "b", "c"), [p.name for p in matmul_kernel.params if not p.is_constexpr][3:]
    counted = [name for name in numbers if name not in ones]
    large = tile["ROWS"] == tile["COLUMNS"] == 64
    return Case(
        name=f"product {precision}{' (hip)' if backend == 'hip' else ''}, {order}, "
        f"{tile['ROWS']} × {tile['COLUMNS']} × {tile['DEPTH']}",
        kernel=matmul_kernel,
        signature={**dict.fromkeys(tensors, "*fp32"), **dict.fromkeys(counted, "i32")},
        constexprs={**ones, **tile, "MODE": MapPrecision.of(precision, backend).shared},
        aligned=(*tensors, *(name for name in counted if name != "inner")),
        options=_options(tile),
        wide_load_bytes=4 * tile["DEPTH"] * (tile["ROWS"] + tile["COLUMNS"]) if large else 0,
        wide_store_bytes=4 * tile["ROWS"] * tile["COLUMNS"] if large else 0,
        tensor_core=True,
        targets=tuple(name for name, target in TARGETS.items() if target.backend == backend),
    )
