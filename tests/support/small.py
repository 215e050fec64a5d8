"""A small case, quick settings, and what an engine's tests share."""

from __future__ import annotations

from torch import nn

from tests.support.families import FAMILIES
from tests.support.layers import randomise

CASE = FAMILIES["DCGAN of 8"]
FAST = {"n_seed": 2, "steps": 1}


def small(*layers: nn.Module) -> nn.Module:
    return randomise(nn.Sequential(nn.Linear(3, 8), *layers, nn.Unflatten(1, (2, 2, 2))), 0)
