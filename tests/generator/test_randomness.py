"""A generator whose image is not its latent's alone is refused: random numbers, or what it has kept."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import adgan_fast
from tests.support.layers import randomise
from tests.support.made import Made, assert_right, made, search

pytestmark = pytest.mark.usefixtures("one_thread")


class RandomClass(Made):
    def __init__(self, draw):
        super().__init__(lambda s, z: s.l(z + s.e(draw(z))), e=nn.Embedding(2, 6))


DRAWS = {
    "torch": lambda z: torch.randint(0, 2, (len(z),)),
    "python": lambda z: torch.tensor([random.randrange(2)] * len(z)),
    "numpy": lambda z: torch.as_tensor(np.random.randint(0, 2, len(z))),
}


@pytest.mark.parametrize("kind", list(DRAWS))
@pytest.mark.parametrize("seed", range(6))
def test_a_draw_is_seen_even_where_it_makes_no_difference_at_first(kind, seed):
    gen = randomise(RandomClass(DRAWS[kind]), 0)
    adgan_fast.core.random_state.seed(seed)
    before = adgan_fast.core.random_state.state(torch.device("cpu"))
    for engine in ("auto", "reference"):
        with pytest.raises(ValueError, match="is random: it draws random numbers in forward"):
            search(gen, engine)
    assert adgan_fast.core.random_state.state(torch.device("cpu")) == before


def reseeded(s, z):
    torch.manual_seed(3)
    return s.l(z) + torch.randn(48)


def test_noise_of_a_fixed_seed_is_no_randomness():
    gen = made(reseeded)
    found = search(gen, "reference")
    assert found.scores.isfinite().all()
    torch.testing.assert_close(search(gen).scores, found.scores)


class FromFirst(Made):
    """What it keeps of the first latent it meets, where no version counter and no state_dict tells."""

    def __init__(self, keep):
        super().__init__(lambda s, z: s.l(z + s.kept(z)))
        self.loc, self.cache, self.keep = nn.Parameter(torch.zeros(1, 6)), None, keep

    def kept(self, z):
        if self.cache is None:
            self.cache = self.keep(self, z)
        return self.loc + self.cache


def keeps_by_data(s, z):
    s.loc.data.copy_(-z.detach()[:1])
    return 0


KEEPS = {"data": keeps_by_data, "a number": lambda s, z: float(z.std()), "a tensor": lambda s, z: z.detach()[:1]}


@pytest.mark.parametrize("keep", list(KEEPS))
def test_what_is_kept_of_the_first_latent_is_refused(keep):
    with pytest.raises(ValueError, match="at its first forward pass"):
        search(randomise(FromFirst(KEEPS[keep]), 0))


def test_a_counter_that_nothing_depends_on_is_allowed():
    def counting(s, z):
        s.calls += 1
        return s.l(z)

    assert_right(made(counting, calls=nn.Buffer(torch.zeros(()))), "auto")
