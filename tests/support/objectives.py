"""A short training of every objective, on tiny images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from adgan_fast.models import DCGANGenerator
from adgan_fast.training import (
    BiGANConfig,
    DCAEConfig,
    GANConfig,
    GMMNConfig,
    InverseConfig,
    SVDDConfig,
    TrainConfig,
    TrainResult,
    VAEConfig,
)
from adgan_fast.training.gmmn import median_distance, squared_mmd
from tests.support.wgan import PENALTY, SMALL

_SHORT: dict[str, Any] = dict(latent=4, width=2, steps=5, batch_size=8, lr=1e-3, checkpoint_every=2, sample_every=0)

SHORT: dict[str, TrainConfig] = {
    "wgan": SMALL,
    "wgan-gp": PENALTY,
    "gan": GANConfig(**_SHORT),
    "gan-averaged": GANConfig(**_SHORT, average=0.6),
    "gan-saturating": GANConfig(**_SHORT, objective="saturating"),
    "lsgan": GANConfig(**_SHORT, objective="least_squares"),
    "vae": VAEConfig(**_SHORT),
    "vae-fixed": VAEConfig(**_SHORT, scale=0.3),
    "dcae": DCAEConfig(**_SHORT),
    "gmmn": GMMNConfig(**_SHORT),
    "svdd": SVDDConfig(**_SHORT),
    "svdd-pretrained": SVDDConfig(**_SHORT, pretrain_steps=3),
    "bigan": BiGANConfig(**_SHORT),
    "inverse": InverseConfig(**_SHORT),
}


def given(config: TrainConfig, images: np.ndarray) -> Any:
    """What `train` takes first: images, or the generator to be inverted."""
    if isinstance(config, InverseConfig):
        return DCGANGenerator(images.shape[-1], images.shape[1], config.latent, 3, generator=seeded(7))
    return images


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_alike(first: TrainResult, second: TrainResult) -> None:
    """Every number of every network and of the history, to the last bit."""
    assert first.step == second.step
    assert first.models.keys() == second.models.keys()
    for name, model in first.models.items():
        theirs = second.models[name].state_dict()
        assert model.state_dict().keys() == theirs.keys()
        for key, value in model.state_dict().items():
            assert torch.equal(value, theirs[key]), f"{name} {key}"
    assert first.history.keys() == second.history.keys()
    for key, values in first.history.items():
        assert np.array_equal(values, second.history[key]), key


def discrepancy(generator: torch.nn.Module, latent: int, images: np.ndarray) -> float:
    """MMD² between 200 samples and the images, by kernels half, once and twice as wide as the images lie apart."""
    with torch.no_grad():
        made = generator(torch.randn(200, latent, generator=seeded(5))).flatten(1)
    data = torch.from_numpy(images).flatten(1)
    unit = median_distance(data)
    return float(squared_mmd(data, made, [unit / 2, unit, 2 * unit]))
