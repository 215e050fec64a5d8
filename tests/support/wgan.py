"""Small trainings, and how their results are compared."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from adgan_fast.training import (
    TrainResult,
    WGANConfig,
)

SMALL = WGANConfig(latent=4, width=2, steps=5, batch_size=8, n_critic=2, lr=1e-3, checkpoint_every=2, sample_every=0)
TRAINING = WGANConfig(
    latent=16,
    width=8,
    steps=200,
    batch_size=32,
    objective="gp",
    lr=2e-3,
    n_critic=2,
    checkpoint_every=0,
    sample_every=0,
)
"""Of digits in 8 by 8 pixels: some seconds, after which it makes such digits."""
PENALTY = dataclasses.replace(SMALL, objective="gp", norm="layer")


def assert_same(first: TrainResult, second: TrainResult) -> None:
    for name in ("generator", "critic"):
        ours, theirs = getattr(first, name).state_dict(), getattr(second, name).state_dict()
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), f"{name} {key}"
    for key, values in first.history.items():
        assert np.array_equal(values, second.history[key]), key
