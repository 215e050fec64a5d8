"""Work in place is run where PyTorch can differentiate it, and named where not."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.support.engines import WEIGHTS
from tests.support.layers import randomise
from tests.support.made import assert_right, engines, made, search, starts_of

pytestmark = pytest.mark.usefixtures("one_thread")


IN_PLACE = {
    "relu first": lambda: [nn.ReLU(inplace=True), nn.Linear(6, 48)],
    "leaky relu first": lambda: [nn.LeakyReLU(0.2, inplace=True), nn.Linear(6, 48)],
    "elu after a layer": lambda: [nn.Linear(6, 48), nn.ELU(inplace=True)],
}


@pytest.mark.parametrize("weights", WEIGHTS)
@engines
@pytest.mark.parametrize("kind", list(IN_PLACE))
def test_work_in_place_that_pytorch_can_differentiate(kind, engine, weights):
    gen = randomise(nn.Sequential(*IN_PLACE[kind](), nn.Unflatten(1, (3, 4, 4))), 0)
    starts = starts_of(6)
    before = starts.clone()
    assert_right(gen, engine, weights=weights, starts=starts)
    assert torch.equal(starts, before)


@engines
def test_a_latent_written_into_by_a_function(engine):
    assert_right(made(lambda s, z: s.l(z.mul_(2).add_(1))), engine)


@engines
def test_work_in_place_that_spoils_a_gradient_is_named_by_layer(engine):
    gen = nn.Sequential(nn.Linear(6, 48), nn.Sigmoid(), nn.ReLU(inplace=True), nn.Unflatten(1, (3, 4, 4)))
    with pytest.raises(ValueError, match=r"Sequential cannot be differentiated: layer '2' \(ReLU\).*inplace=False"):
        search(gen, engine)


@engines
def test_work_in_place_by_a_function_is_named_by_what_it_spoils(engine):
    gen = made(lambda s, z: torch.sigmoid(s.l(z)).relu_())
    with pytest.raises(ValueError, match="Made cannot be differentiated: the output of Sigmoid is changed in place"):
        search(gen, engine)
