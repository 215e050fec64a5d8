"""Sums over large images and maps, where a plain float32 sum loses digits: flat images are the worst."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adgan_fast.testing import check_engine
from tests.support.engines import NEEDS_EXTENSION
from tests.support.layers import randomise

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    NEEDS_EXTENSION,
]


class OneColour(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.layer, self.size = nn.Linear(4, 3), size

    def forward(self, z):
        return F.interpolate(torch.tanh(self.layer(z)).view(-1, 3, 1, 1), scale_factor=float(self.size))


class Flat(nn.Module):
    """One colour through a convolution, batch norm, biases, and learned numbers for a channel and for all."""

    def __init__(self):
        super().__init__()
        self.layer, self.conv, self.norm = nn.Linear(4, 6), nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.last = nn.ConvTranspose2d(5, 3, 3, padding=1)
        self.gain, self.offset = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, z):
        h = F.interpolate(self.layer(z).view(-1, 6, 1, 1), scale_factor=256.0)
        return torch.tanh(self.last(F.leaky_relu(self.norm(self.conv(h)), 0.2)) * self.gain + self.offset)


def wide() -> nn.Module:
    """A first layer of many outputs, all of whose weights have one sign: the latent's gradient is a long sum."""
    gen = randomise(nn.Sequential(nn.Linear(4, 3 * 128 * 128), nn.Unflatten(1, (3, 128, 128))), 0)
    with torch.no_grad():
        gen[0].weight.abs_()
    return gen


def assert_far_within(gen: nn.Module, size: int, least: float, **settings) -> None:
    """Within `least` of d in rms and 2e-6 of the score: a tenth of what the contract allows, at most."""
    black = -torch.ones(1, 3, size, size)
    found = check_engine(gen, black, engine="native", n_seed=2, latent_shape=(4,), **settings)
    assert found.passed, found
    assert found.errors.rms < least and found.errors.score < 2e-6, found


@pytest.mark.parametrize("loss", ["l2", "l1", "laplacian"])
@pytest.mark.parametrize("size", [256, 512])
def test_the_loss_of_a_large_flat_image(size, loss):
    assert_far_within(randomise(OneColour(size), 0), size, 1e-4, weights="frozen", lr_z=0.01, loss=loss)


@pytest.mark.parametrize("weights", ["per_seed", "per_sample"])
def test_gradients_over_many_positions(weights):
    assert_far_within(randomise(OneColour(256), 0), 256, 1e-4, weights=weights)
    assert_far_within(randomise(Flat(), 0), 256, 1e-4, weights=weights)


@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
def test_gradients_over_many_outputs(weights):
    assert_far_within(wide(), 128, 1e-4, weights=weights)
