"""Weights that sit in several places of a module are one weight to every engine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import adgan_fast

pytestmark = pytest.mark.usefixtures("one_thread")


class SharedAndTied(nn.Module):
    """A submodule under two names, and another layer's weight tied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = self.a
        self.c = nn.Linear(6, 6)
        self.c.weight = self.a.weight

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.c(torch.relu(self.b(torch.relu(self.a(z)))))).reshape(-1, 1, 2, 3)


@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
@pytest.mark.parametrize("engine", ["grouped", "eager"])
def test_a_submodule_under_two_names_with_a_tied_weight_is_searched_as_the_reference_does(engine, weights):
    torch.manual_seed(0)
    gen, images = SharedAndTied().double(), torch.rand(3, 1, 2, 3) * 2 - 1
    found, want = (
        adgan_fast.search(gen, images, engine=name, n_seed=3, weights=weights, lr_weights=1e-2)
        for name in (engine, "reference")
    )
    torch.testing.assert_close(found.losses, want.losses, rtol=1e-9, atol=0)
    assert (want.initial_losses - want.losses).abs().min() > 1e-3


def test_eager_leaves_its_copy_of_a_module_whole():
    """Twice the same module, twice the same result: nothing of a call stays behind in it."""
    torch.manual_seed(0)
    gen, images = SharedAndTied(), torch.rand(20, 1, 2, 3) * 2 - 1
    found = adgan_fast.score(gen, images, engine="eager", n_seed=3, lr_weights=1e-2)
    alone = [adgan_fast.score(gen, images[i : i + 1], engine="eager", n_seed=3, lr_weights=1e-2) for i in range(20)]
    assert torch.equal(found, torch.cat(alone))
