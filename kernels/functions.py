"""Functions of float32 numbers in the registers of a kernel, where Triton's own have too few digits."""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["exp", "tanh"]


@triton.jit
def exp(x):
    """e^x within a few roundings: the GPU's own is off by more the larger x is. 0 or inf beyond ±104; NaN stays NaN."""
    x = tl.where(x > 104.0, 104.0, tl.where(x < -104.0, -104.0, x))
    whole = tl.floor(x * 1.44269504089 + 0.5)
    rest = (x - whole * 0.693359375) + whole * 2.12194440e-4  # ln 2 in two parts: the first has few bits
    half = tl.floor(whole * 0.5)  # 2^whole in two factors, of which none is out of range
    return tl.exp(rest) * tl.exp2(half) * tl.exp2(whole - half)


@triton.jit
def tanh(x):
    """tanh within a few roundings: Cephes' polynomial near zero, where 1 − 2 / (e^2x + 1) would cancel."""
    z = x * x
    near = (((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z
    near = (near - 3.33332819422e-1) * z * x + x
    magnitude = tl.abs(x)
    far = 1.0 - 2.0 / (exp(2.0 * magnitude) + 1.0)  # e^2x = inf gives 1
    return tl.where(magnitude < 0.625, near, tl.where(x < 0, -far, far))
