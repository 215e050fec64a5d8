"""Generators, losses and settings that make no sense are named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import adgan_fast
from tests.support.engines import on_cpu
from tests.support.layers import overflowing, randomise
from tests.support.small import CASE, FAST, small

pytestmark = pytest.mark.usefixtures("one_thread")


class Returns(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], object]):
        super().__init__()
        self.layer, self.function = nn.Linear(3, 4), function

    def forward(self, z):
        return self.function(self.layer(z).reshape(-1, 1, 2, 2))


@on_cpu
def test_a_generator_that_returns_nan_now_and_then_does_not_pass_unseen(engine):
    """NaN from a latent far from those that are tried first: the score is NaN, not a number, and a warning says so."""
    module = randomise(Returns(overflowing), 0)
    near, far = torch.full((1, 3), 0.1), torch.tensor([[1000.0, -1000.0, 1000.0]])
    settings = {"engine": engine, "steps": 1}
    alone = adgan_fast.search(module, torch.zeros(2, 1, 2, 2), starts=near, **settings)
    for starts, good in ((torch.cat([far, near]), 1), (torch.cat([near, far, far]), 0)):
        with pytest.warns(RuntimeWarning, match="2 of 2.*Returns"):
            found = adgan_fast.search(module, torch.zeros(2, 1, 2, 2), starts=starts, **settings)
        assert found.scores.isnan().all()
        assert torch.isfinite(found.losses[:, good]).all()
        torch.testing.assert_close(found.reconstructions, alone.reconstructions)  # of the best start that has a loss
    with pytest.warns(RuntimeWarning, match="2 of 2.*Returns"):
        nowhere = adgan_fast.search(module, torch.zeros(2, 1, 2, 2), starts=far, **settings)
    assert nowhere.scores.isnan().all()
    assert nowhere.reconstructions.isnan().all()  # and not what memory happened to hold


@pytest.mark.parametrize("latent_shape", [(4,), (3, 1), (1, 3, 1, 1)])
def test_a_wrong_latent_shape_is_refused_by_name(latent_shape):
    with pytest.raises(ValueError, match="latent") as caught:
        adgan_fast.score(small(nn.ReLU()), torch.zeros(1, 2, 2, 2), latent_shape=latent_shape, **FAST)
    assert ", ".join(map(str, latent_shape)) in str(caught.value)


@pytest.mark.parametrize("gen", [None, 3, lambda z: z, nn.Linear], ids=["None", "3", "a function", "a class"])
def test_what_is_no_generator_is_refused(gen):
    with pytest.raises(TypeError, match="gen"):
        adgan_fast.score(gen, torch.zeros(1, 1, 2, 2))


def test_a_config_of_another_type_and_an_unknown_setting_are_refused():
    with pytest.raises(TypeError, match="config"):
        adgan_fast.score(CASE.module, CASE.images(1), config={"n_seed": 2})
    with pytest.raises(TypeError, match="n_seeds"):
        adgan_fast.score(CASE.module, CASE.images(1), n_seeds=2)


@pytest.mark.parametrize("loss", [lambda r, x: (r - x).square().mean(), lambda r, x: 0.0], ids=["a mean", "a number"])
@on_cpu
def test_a_loss_that_gives_no_number_for_each_row_is_refused(engine, loss):
    with pytest.raises(ValueError, match="loss"):
        adgan_fast.score(CASE.module, CASE.images(3), loss=loss, engine=engine, **FAST)


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises((ValueError, RuntimeError, AssertionError), match=r"(?i)cuda"):
        adgan_fast.score(CASE.module, CASE.images(1), device="cuda", **FAST)
