"""The engines of this machine, and settings that tests turn through."""

from __future__ import annotations

import pytest

import adgan_fast
from adgan_fast import ops
from adgan_fast.config import WEIGHTS

__all__ = ["FAST", "NEEDS_EXTENSION", "ON_CPU", "WEIGHTS", "on_cpu"]

ON_CPU = [e.name for e in adgan_fast.engines() if e.available and e.name != "triton"]
FAST = [name for name in ON_CPU if name != "reference"]
"""They are all exact, and held to the float32 bound."""

on_cpu = pytest.mark.parametrize("engine", ON_CPU)

_WHY_NOT = ops.load_extension()
NEEDS_EXTENSION = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))
