"""What each value of SearchConfig.precision means for the kernels: dtypes of what is stored, and modes of products.

The one table of it. Arithmetic outside matrix products is float32 in every row, and so are activations in and out.

The modes of a product: "ieee" (float32), "tf32x3" (three TF32 products, close to float32), "tf32" (both operands
rounded to nearest first: the hardware alone truncates), "bf16" (operands rounded to bfloat16). All sum in float32.

A change is about 1e-2 of its weight, hardly more than a bfloat16 of the weight can show, so a map's kernels never add
the two (a convolution of few outputs, ../products.py, has W whole): y = x·θ₀ + x·Δ, each product in a mode of its own.
Rms error of the improvement, emulated in plain PyTorch with these roundings put in (not run by the kernels; DCGAN with
random weights and calibrated batch norm, one image, 8 pairs, lr_z = 0.01 so that the weights' share of the improvement
is large), for 32×32 of width 64 and 64×64 of width 16:

    x·θ₀ in TF32 and x·Δ in bfloat16, apart             2.5e-4    1.7e-4      what "bf16" does
    both in bfloat16, apart                             3.8e-4    5.4e-4
    W = θ₀ + Δ in one product, TF32                     3.6e-4    2.8e-4
    W in one product, bfloat16                          4.9e-4    9.5e-4
    all in TF32, W in one, no 16-bit state, rounded     2.5e-4    3.0e-4
    the same, truncated as the hardware does            5.4e-4    7.1e-4

The first four have the 16-bit state of "bf16", and W in bfloat16 for gradients of inputs, where the kernels have θ₀ in
TF32. With lr_z = 0.25 flipped signs of Adam's first step count for more than all this: 1.7e-3 to 3e-3 (8 pairs, width
64), 2.7e-3 to 7.1e-3 (16 pairs, width 16, where float32 itself has 1.4e-3). The contract allows 2e-2 for 16 bits.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch

from .private import AdamConstants

__all__ = ["MAP_PRECISIONS", "Backend", "MapPrecision", "delta_scale", "round_to_tf32"]

Backend = Literal["cuda", "hip", "interpreter"]


@dataclasses.dataclass(frozen=True)
class MapPrecision:
    """What a map computes and stores in for one precision of SearchConfig.

    Attributes:
        name: as in SearchConfig.precision.
        delta: dtype of Δ in memory, which holds `delta_scale` times its value.
        moments: dtype of m and v in memory, in the stored form.
        history: dtype of x and gy in memory, from which gradients are made.
        shared: mode of the products of θ₀, and of those of ../products.py.
        change: mode of the products of Δ.
        gradient: mode of the products that make a weight's gradient.
        rounded: whether root and division of a vector map's update are correctly rounded: memory hides what they take.
            Else, and in every other map, they are within 2 ulp.
    """

    name: str
    delta: torch.dtype
    moments: torch.dtype
    history: torch.dtype
    shared: str
    change: str
    gradient: str
    rounded: bool

    @staticmethod
    def of(name: str, backend: Backend = "interpreter") -> MapPrecision:
        """The row of `name` with the modes that `backend` has.

        On AMD "ieee" stands in for TF32. The interpreter multiplies in float32 whatever the mode, and has no product of
        bfloat16: "bf16 in float32" rounds the operands as "bf16" does.
        """
        if name not in MAP_PRECISIONS:
            raise ValueError(f"unknown precision {name!r}; the known ones are {', '.join(MAP_PRECISIONS)}")
        row = MAP_PRECISIONS[name]
        modes = {"cuda": {}, "hip": _ON_HIP, "interpreter": _INTERPRETED}[backend]
        shared, change, gradient = (modes.get(mode, mode) for mode in (row.shared, row.change, row.gradient))
        return dataclasses.replace(row, shared=shared, change=change, gradient=gradient)


_ON_HIP = {"tf32x3": "ieee", "tf32": "ieee"}
_INTERPRETED = {"tf32x3": "ieee", "bf16": "bf16 in float32"}

_float32, _bfloat16 = torch.float32, torch.bfloat16
MAP_PRECISIONS = {
    "float32": MapPrecision("float32", _float32, _float32, _float32, "tf32x3", "tf32x3", "tf32x3", True),
    "tf32": MapPrecision("tf32", _float32, _float32, _float32, "tf32", "tf32", "tf32", False),
    "bf16": MapPrecision("bf16", torch.float16, _bfloat16, _bfloat16, "tf32", "bf16", "bf16", False),
}


def delta_scale(precision: MapPrecision, adam: AdamConstants, steps: int) -> float:
    """The power of two by which Δ is multiplied in memory: 1 for float32.

    float16 has its relative rounding of 2⁻¹¹ from 6e-5 to 65504 only, and a change is about 1e-4. No change can exceed
    `AdamConstants.largest_change`, so the scale that brings that bound into [2¹⁴, 2¹⁵) overflows for no gradients, and
    leaves 28 binary orders of magnitude below it at full precision.
    """
    if precision.delta != torch.float16:
        return 1.0
    largest = adam.largest_change(max(steps, 1))
    if not 0.0 < largest < math.inf:
        return 1.0
    return 2.0 ** (14 - math.floor(math.log2(largest)))


def round_to_tf32(x: torch.Tensor) -> torch.Tensor:
    """float32 to the nearest TF32 (10 bits of fraction; halves away from zero), as float32; NaN stays NaN."""
    bits = x.contiguous().view(torch.int32)
    return torch.where(x == x, ((bits + 0x1000) & -0x2000).view(torch.float32), x)
