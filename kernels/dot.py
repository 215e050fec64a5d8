"""The product of two tiles in the registers of a kernel, in each mode that maps/precision.py names."""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["multiply", "operand"]


@triton.jit
def _round_tf32(x):
    """float32 to the nearest TF32 (10 bits of fraction; halves away from zero), as float32; NaN stays NaN."""
    bits = x.to(tl.int32, bitcast=True)
    rounded = ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return tl.where(x == x, rounded, x)


@triton.jit
def _split_tf32(x):
    """float32 as the sum of a TF32 and a rest, of which matrix units take the first 11 bits."""
    high = (x.to(tl.float32).to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def multiply(left, right, total, MODE: tl.constexpr):
    """total + left · right, float32; MODE as in maps/precision.py: for "tf32" float32 operands are rounded already.

    "tf32x3" takes an operand apart into two TF32 numbers, as Triton's own does, which also looks for NaN in every sum:
    here an infinite operand makes NaN. Each part's sum begins anew, since matrix units truncate theirs.
    """
    if MODE == "bf16":
        return tl.dot(left.to(tl.bfloat16), right.to(tl.bfloat16), total)
    elif MODE == "bf16 in float32":
        return tl.dot(
            left.to(tl.bfloat16).to(tl.float32), right.to(tl.bfloat16).to(tl.float32), total, input_precision="ieee"
        )
    elif MODE == "tf32x3":
        left_high, left_low = _split_tf32(left)
        right_high, right_low = _split_tf32(right)
        part = tl.dot(left_low, right_high, input_precision="tf32")
        part = tl.dot(left_high, right_low, part, input_precision="tf32")
        return tl.dot(left_high, right_high, part, input_precision="tf32") + total
    else:
        return tl.dot(left.to(tl.float32), right.to(tl.float32), total, input_precision=MODE)


@triton.jit
def operand(tile, MODE: tl.constexpr):
    """A float32 operand of `multiply`, rounded if MODE wants that."""
    if MODE == "tf32":
        return _round_tf32(tile)
    else:
        return tile
