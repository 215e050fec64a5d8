"""What is chosen for a map: the form of its moments (general.py), by a cost model, and the tiles of its kernels.

Tiles are those of kernels/configs/<gpu>.json, where that file is there and has them; else a default.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .geometry import Geometry
from .precision import Backend, MapPrecision
from .private import Form

__all__ = [
    "CACHE_RATE",
    "FUSED_ROWS",
    "KERNELS",
    "LONGEST_HISTORY",
    "VECTOR_KERNELS",
    "Tiles",
    "block",
    "chosen_tiles",
    "class_size",
    "config_file",
    "default_tiles",
    "form_of",
    "geometry_key",
    "rebuilds",
]

KERNELS = ("change", "update", "product", "shared")
"""Of general.py."""
VECTOR_KERNELS = ("vector forward",)
"""Of vector.py, as far as their tiles are chosen."""

FUSED_ROWS = 64
"""Most positions of a class for which the update is done inside the product, whose sums are in registers."""

LONGEST_HISTORY = 8
"""Most steps that are rebuilt: the kernel is written out for each."""


def class_size(geometry: Geometry) -> int:
    """Positions of the largest class."""
    return max(part.target.numel() for part in geometry.classes)


def block(most: int, size: int) -> int:
    """A power of two, 16 at least (what matrix units take) and no more than holds `size`."""
    return max(16, min(most, 1 << (size - 1).bit_length()))


# -- form ----------------------------------------------------------------------------------------------------------

_MEMORY = 4.3e12  # bytes/s of device memory: an H200's 4.8, less what copies do not reach; not measured
CACHE_RATE = 5.5e12  # bytes/s from the second-level cache: a guess from its clock and width
_MULTIPLY_ADDS = {"float32": 1.7e13, "tf32": 5e13, "bf16": 1e14}  # a quarter of an H200's matrix units: small tiles


def rebuilds(geometry: Geometry, steps: int, precision: str) -> bool:
    """Whether to rebuild m and v from the history rather than store them: fewer seconds for each weight over k updates.

    Stored, m and v are each read and written k - 1 times. Rebuilt, update t makes t - 1 gradients more: for each weight
    a multiply-add a row of the class, and that row of x for every block of outputs. The rates are an H200's; the choice
    has not been checked on one. Histories above LONGEST_HISTORY are never rebuilt, nor classes of more than FUSED_ROWS.
    """
    row, size = MapPrecision.of(precision), class_size(geometry)
    if steps > LONGEST_HISTORY or size > FUSED_ROWS:
        return False
    stored = 4 * (steps - 1) * row.moments.itemsize / _MEMORY
    of_a_row = 1 / _MULTIPLY_ADDS[precision] + row.history.itemsize / 64 / CACHE_RATE
    return steps * (steps - 1) / 2 * block(FUSED_ROWS, size) * of_a_row <= stored


def form_of(geometry: Geometry, steps: int, precision: str, form: Form | None) -> Form:
    """`form`, or the cost model's where it is None; raises ValueError for one that these steps cannot have."""
    if form not in ("rebuild", "stored", None):
        raise ValueError(f"form must be 'rebuild', 'stored' or None, got {form!r}")
    if form == "rebuild" and steps > LONGEST_HISTORY:
        raise ValueError(f"form 'rebuild' is for {LONGEST_HISTORY} steps at most, got {steps}")
    return form or ("rebuild" if rebuilds(geometry, steps, precision) else "stored")


# -- tiles ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How a kernel's work is cut; it changes no precision.

    Attributes:
        rows: positions of a block (change: not used, a program takes all). Vector forward: rows of Δ in hand; as many
            more are on their way.
        inner: channels that are summed over in one turn (change, update: input channels of a tile of weights; vector
            forward: not used).
        outer: channels of the result (vector forward: slots, a multiple of 16).
        warps, stages: of the launch (vector forward has no use for stages).
    """

    rows: int
    inner: int
    outer: int
    warps: int
    stages: int


def default_tiles(kernel: str, precision: str, backend: Backend, rows: int) -> Tiles:
    """Tiles that spill on no target; `kernel` of KERNELS or VECTOR_KERNELS, `rows` of the largest class.

    Chosen by the instructions of their compiled code (python -m bench.gpu.count), not by times on a GPU.
    """
    if kernel in VECTOR_KERNELS:
        # One warp: x comes as scalars, and nothing is exchanged before the last sum. Its threads take 16 bytes of Δ
        # each. (AMD's 64 take 8.)
        return Tiles(2, 1, 512 // MapPrecision.of(precision).delta.itemsize, 1, 1)
    if backend == "hip":
        return Tiles(64, 32, 32 if kernel == "change" else 64, 4, 2)
    if kernel == "change" and rows > 32:
        return Tiles(64, 16 if precision == "float32" else 32, 32, 4, 2)
    return _ON_CUDA[kernel, precision]


_ON_CUDA = {
    ("change", "float32"): Tiles(64, 32, 64, 4, 2),
    ("change", "tf32"): Tiles(64, 32, 64, 8, 2),
    ("change", "bf16"): Tiles(64, 32, 64, 4, 3),
    ("update", "float32"): Tiles(32, 32, 64, 8, 2),
    ("update", "tf32"): Tiles(32, 32, 64, 8, 2),
    ("update", "bf16"): Tiles(64, 64, 64, 8, 2),
    ("product", "float32"): Tiles(64, 32, 64, 4, 2),
    ("product", "tf32"): Tiles(64, 32, 64, 4, 3),
    ("product", "bf16"): Tiles(64, 64, 64, 4, 3),
    ("shared", "float32"): Tiles(64, 32, 128, 4, 2),
    ("shared", "tf32"): Tiles(128, 32, 64, 8, 2),
    ("shared", "bf16"): Tiles(128, 32, 64, 8, 2),
}


def geometry_key(geometry: Geometry) -> str:
    """Names a geometry in kernels/configs/<gpu>.json."""
    taps = "+".join(str(len(part.taps)) for part in geometry.classes)
    channels = f"groups{geometry.groups} k{geometry.inputs} n{geometry.outputs}"
    return f"{channels} in{geometry.in_positions} rows{class_size(geometry)} taps{taps}"


def chosen_tiles(
    geometry: Geometry, precision: str, backend: Backend, device: torch.device, kernels: Sequence[str] = KERNELS
) -> dict[str, Tiles]:
    """By kernel: those of the GPU's file under "<kernel> <precision> <geometry_key>", else the default."""
    found = {}
    config = _config(torch.cuda.get_device_name(device)) if device.type == "cuda" else {}
    for kernel in kernels:
        chosen = config.get(f"{kernel} {precision} {geometry_key(geometry)}")
        default = default_tiles(kernel, precision, backend, class_size(geometry))
        found[kernel] = default if chosen is None else Tiles(**chosen)
    return found


def config_file(gpu: str) -> Path:
    """Where the tiles of a GPU are, or would be; `gpu` as torch.cuda.get_device_name has it."""
    return Path(__file__).parents[1] / "configs" / (re.sub(r"\W+", "-", gpu.lower()).strip("-") + ".json")


@functools.cache
def _config(gpu: str) -> Mapping[str, Any]:
    path = config_file(gpu)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
