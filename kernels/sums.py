"""Sums of many float32 numbers, in the registers of a kernel."""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

import triton
import triton.language as tl  # noqa: F401 (the interpreter asks for it)

__all__ = ["kahan_add"]


@triton.jit
def kahan_add(total, lost, term):
    """total + term, and what rounding takes from it: the next `lost` (Kahan 1965). Both begin at zero."""
    term -= lost
    added = total + term
    return added, (added - total) - term
