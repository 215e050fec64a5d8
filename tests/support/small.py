"""A small case, quick settings, and what an engine's tests share."""

from __future__ import annotations

import pytest
from torch import nn

import adgan_fast
from tests.support.families import FAMILIES
from tests.support.layers import randomise

ENGINES = [e.name for e in adgan_fast.engines() if e.available and e.name != "triton"]  # these run on a CPU
CASE = FAMILIES["DCGAN of 8"]
FAST = {"n_seed": 2, "steps": 1}
engines = pytest.mark.parametrize("engine", ENGINES)


def small(*layers: nn.Module) -> nn.Module:
    return randomise(nn.Sequential(nn.Linear(3, 8), *layers, nn.Unflatten(1, (2, 2, 2))), 0)
