"""Generators of six latent numbers and images of 3 x 4 x 4, from a function; and the rule of agreement held to them."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import adgan_fast
from adgan_fast import SearchResult
from adgan_fast.testing import violations
from tests.support.engines import FAST
from tests.support.layers import randomise

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
engines = pytest.mark.parametrize("engine", [*FAST, "auto"])


class Made(nn.Module):
    """A linear layer `l`, other modules, and a forward that is a function of the module and z, to (B, 48)."""

    def __init__(self, function, **more):
        super().__init__()
        self.l = nn.Linear(6, 48)
        self.function = function
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, z):
        return self.function(self, z).view(-1, 3, 4, 4)


def made(function, **more) -> nn.Module:
    return randomise(Made(function, **more), 0)


def search(gen, engine="auto", images=IMAGES, **settings) -> SearchResult:
    settings = {"n_seed": 3, "latent_shape": (6,), **settings}
    return adgan_fast.search(gen, images, engine=engine, **settings)


def starts_of(*latent: int) -> torch.Tensor:
    return adgan_fast.core.starts.draw(3, None, 3, latent, "normal").float()


def assert_right(gen, engine, images=IMAGES, latent_shape=(6,), latents=True, **settings) -> None:
    """By the rule of agreement, and its latents where rounding moves none."""
    settings = {"starts": starts_of(*latent_shape), "latent_shape": latent_shape, **settings}
    plain = search(gen, "reference", images, **settings)
    double = adgan_fast.generator.working_copy.working_copy(gen, dtype=torch.float64)
    wanted = search(double, "reference", images.double(), **{**settings, "starts": settings["starts"].double()})
    found = search(gen, engine, images, **settings)
    assert not violations(found, wanted, plain=plain)
    if latents:
        torch.testing.assert_close(found.latents.double(), wanted.latents, rtol=1e-3, atol=1e-3)
