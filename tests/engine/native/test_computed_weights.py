"""Weights that are computed from parameters: once for each owner, and differentiated back to the parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import adgan_fast
from adgan_fast.engine.native.encode import unknown
from adgan_fast.generator.rules import lower
from tests.support.engines import WEIGHTS
from tests.support.layers import randomise
from tests.support.made import assert_right

norms = nn.utils.parametrizations


class Normed(nn.Module):
    """Spectral and weight norm of every kind of map, new and old; a scaled weight; one used as weight and operand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = norms.spectral_norm(nn.Linear(6, 8 * 16))
        self.conv = norms.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.up = norms.spectral_norm(nn.ConvTranspose2d(8, 4, 4, 2, 1))
        self.out = nn.utils.spectral_norm(nn.Conv2d(4, 3, 3, padding=1))
        self.weight, self.bias = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(z)).view(-1, 8, 4, 4)
        scaled = self.weight * 0.3
        x = F.linear(x.permute(0, 2, 3, 1), scaled, self.bias * 0.5).permute(0, 3, 1, 2)
        x = x * torch.tanh(scaled).sum(0).view(1, 8, 1, 1)
        return torch.tanh(self.out(F.leaky_relu(self.up(F.relu(self.conv(x))), 0.2)))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.usefixtures("one_thread")
def test_computed_weights_agree_with_the_reference(weights):
    module = randomise(Normed(), 1).eval()
    assert unknown(lower(module, (6,))) is None
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert_right(module, "native", images, weights=weights)


@pytest.mark.usefixtures("one_thread")
def test_bits_do_not_depend_on_neighbours_or_threads():
    module = randomise(Normed(), 1).eval()
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    whole = adgan_fast.search(module, images, engine="native", n_seed=3).losses
    alone = adgan_fast.search(module, images[1:2], engine="native", n_seed=3).losses
    torch.set_num_threads(2)
    shared = adgan_fast.search(module, images, engine="native", n_seed=3).losses
    assert torch.equal(whole[1:2], alone) and torch.equal(whole, shared)
