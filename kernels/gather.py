"""Sums of a pair's numbers by a table that all pairs share: y[o] = bias + Σ_t x[table[t, o]].

With one term this takes the numbers of x apart, with several it puts them together: so the columns of a convolution are
folded into an image, and the gradient of an image is unfolded into columns. The terms are added in the table's order:
the same bits at every launch, and for a pair whatever the others are.
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
from .launch import check_device, launch

__all__ = ["case_of", "cases", "gather_sum"]

_BLOCK = 1024  # numbers of y that a program makes
_UNROLLED = 16  # most terms that are written out, so that their loads are on their way together
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


@triton.jit
def _add_term(total, x, table, place, inside):
    """total + x[table[place]]; -1 there adds nothing."""
    source = tl.load(table + place, mask=inside, other=-1)
    return total + tl.load(x + source, mask=source >= 0, other=0.0)


@triton.jit
def gather_sum_kernel(
    x, table, bias, y, inputs, outputs, terms, of_one_bias,
    TERMS: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program makes BLOCK numbers of a pair's y. TERMS: those that are written out, or 0 for a loop over `terms`."""
    blocks = tl.cdiv(outputs, BLOCK)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = place < outputs
    x += pair * inputs
    if BIAS:
        total = tl.load(bias + pair * (outputs // of_one_bias) + place // of_one_bias, mask=inside, other=0.0)
    else:
        total = tl.zeros((BLOCK,), tl.float32)
    if TERMS == 0:
        for term in range(terms):
            total = _add_term(total, x, table + term * outputs, place, inside)
    else:
        for term in tl.static_range(TERMS):
            total = _add_term(total, x, table + term * outputs, place, inside)
    tl.store(y + pair * outputs + place, total, mask=inside)


def gather_sum(x: torch.Tensor, table: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """y (G, O) float32, contiguous, for G pairs.

    Args:
        x: (G, I) float32, contiguous.
        table: (T, O) int32, contiguous; indices of x's numbers, -1 for a zero. Others are not looked for.
        bias: (G, N) float32, contiguous: each of its N numbers is of O / N numbers of y in a row. None for zero.

    Raises:
        ValueError: tensors that do not fit together.
        RuntimeError: a device that this process cannot run Triton on; more than a grid or 32-bit offsets can count.
    """
    _check(x, table, bias)
    check_device(gather_sum_kernel, x.device)
    (pairs, inputs), (terms, outputs) = x.shape, table.shape
    if max(inputs, table.numel()) >= 2**31:
        raise RuntimeError(f"{inputs} numbers by a table of {table.numel()}: more than 32 bits count")
    y = x.new_empty(pairs, outputs)
    of_one_bias = 1 if bias is None else max(1, outputs // bias.shape[1])
    launch(
        x.device, gather_sum_kernel, pairs * triton.cdiv(outputs, _BLOCK),
        x, table, x if bias is None else bias, y, inputs, outputs, terms, of_one_bias,
        TERMS=terms if terms <= _UNROLLED else 0, BIAS=bias is not None, BLOCK=_BLOCK, **_OPTIONS,
    )  # fmt: skip
    return y


def _check(x: torch.Tensor, table: torch.Tensor, bias: torch.Tensor | None) -> None:
    pairs, outputs = len(x), table.shape[-1]
    for name, tensor, dtype in (("x", x, torch.float32), ("table", table, torch.int32), ("bias", bias, torch.float32)):
        if tensor is None:
            continue
        alike = tensor.dim() == 2 and tensor.dtype == dtype and tensor.device == x.device and tensor.is_contiguous()
        if not alike:
            raise ValueError(
                f"{name} must have two dimensions, {dtype}, contiguous and on {x.device}, "
                f"got {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
            )
    if bias is not None and (len(bias) != pairs or bias.shape[1] == 0 or outputs % bias.shape[1]):
        raise ValueError(f"a bias {tuple(bias.shape)} does not fit {outputs} numbers of each of {pairs} pairs")


def cases() -> Iterator[Case]:
    """Taken apart (one term); put together by the four taps of a stride of 2, the nine of a stride of 1, or more.

    All sizes in whole vectors of 16 bytes.
    """
    for terms in (1, 4, 9, _UNROLLED + 1):
        for bias in (False, True) if terms > 1 else (False,):
            yield case_of(terms, bias)


def case_of(terms: int, bias: bool) -> Case:
    """What `gather_sum` launches for a table of that many terms, with a bias of several numbers or without."""
    unrolled = terms if terms <= _UNROLLED else 0
    constants: dict[str, Any] = {"TERMS": unrolled, "BIAS": bias, "BLOCK": _BLOCK}
    constants |= {} if bias else {"of_one_bias": 1}  # Triton compiles for a number that is 1 by itself
    constants |= {"terms": 1} if terms == 1 else {}
    types = {"x": "*fp32", "table": "*i32", "bias": "*fp32", "y": "*fp32"}
    types |= dict.fromkeys(("inputs", "outputs", "terms", "of_one_bias"), "i32")
    return Case(
        name=f"gather, {unrolled or 'any number of'} term{'' if terms == 1 else 's'}{', bias' if bias else ''}",
        kernel=gather_sum_kernel,
        signature={name: kind for name, kind in types.items() if name not in constants},
        constexprs=constants,
        aligned=("x", "table", "bias", "y", "inputs", "outputs", *(("of_one_bias",) if bias else ())),
        options=_OPTIONS,
        wide_load_bytes=4 * _BLOCK * max(unrolled, 1),
        wide_store_bytes=4 * _BLOCK,
    )
