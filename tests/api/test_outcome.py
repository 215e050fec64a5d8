"""What became of each image: its status, and a warning that says where NaN or Inf began and what to try."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import SearchResult, Status
from adgan_fast.core import plan
from adgan_fast.outcome import first_lost
from tests.support import made
from tests.support.engines import on_cpu

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGES = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
NEAR, FAR = 0.5, 1000.0


class Brittle(nn.Module):
    """The latent as an image; NaN where it is beyond 18."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.latent_dim = 4

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.gain * z.reshape(-1, 1, 2, 2)
        square = (x * 1e18) * (x * 1e18)
        return x + (square - square)


def search(images: torch.Tensor = IMAGES, **settings: Any) -> SearchResult:
    return adgan_fast.search(Brittle(), images, **{"steps": 1, "verify": False, **settings})


def said(call: Callable[[], object]) -> str:
    """The warning of lost scores."""
    with pytest.warns(RuntimeWarning) as caught:
        call()
    (one,) = (w for w in caught if "scores are NaN or Inf" in str(w.message))
    return str(one.message)


def names(found: SearchResult) -> list[str]:
    return [Status(int(number)).name for number in found.status]


def test_the_status_of_each_image():
    images = torch.cat([made.IMAGES, made.IMAGES[:1]])
    images[1, 0, 0, 0] = float("nan")
    gen = made.made(lambda s, z: s.l(z))
    with pytest.warns(RuntimeWarning, match="1 of 3 images hold NaN"):
        found = made.search(gen, images=images)
    assert found.status.dtype == torch.int8
    assert names(found) == ["ok", "not_finite", "ok"]
    with pytest.warns(RuntimeWarning, match="2 of 3 scores are NaN or Inf"):
        found = made.search(gen, images=images, lr_z=1e38, lr_weights=1e30)
    assert names(found) == ["diverged", "not_finite", "diverged"]


@on_cpu
def test_an_initial_loss_that_is_lost_is_told_with_image_and_start(engine, monkeypatch):
    monkeypatch.setattr(plan, "BLOCK_IMAGES", 2)
    starts = torch.full((5, 3, 4), NEAR)
    starts[3, 1], starts[4] = FAR, FAR
    found: list[SearchResult] = []
    message = said(lambda: found.append(search(engine=engine, starts=starts)))
    assert message.startswith(
        "2 of 5 scores are NaN or Inf. The first is that of image 3, start 1: its initial loss is already. No step is "
        "made before it: search generator Brittle and the loss for a log"
    )
    assert "lr_z" not in message and "SearchResult.status" in message
    assert names(found[0]) == ["ok", "ok", "ok", "diverged", "diverged"]


@on_cpu
def test_a_search_that_diverges_is_told_with_the_rates_to_lower(engine):
    images = IMAGES.clone()
    images[0, 0, 0, 0] = float("inf")  # which is no divergence, and not the first of them
    found: list[SearchResult] = []
    starts = torch.full((2, 4), NEAR)
    message = said(lambda: found.append(search(images, engine=engine, starts=starts, lr_z=FAR, lr_weights=3e-5)))
    assert "4 of 5 scores are NaN or Inf. The first is that of image 1, start 0: its final loss is, its" in message
    assert "try lr_z below 1000 and lr_weights below 3e-05, or fewer steps" in message
    assert names(found[0]) == ["not_finite", *["diverged"] * 4]


def test_finite_losses_whose_mean_is_not_are_told_apart():
    def huge(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return (reconstruction - image).square().flatten(1).sum(1) + 3e38

    found: list[SearchResult] = []
    message = said(lambda: found.append(search(engine="eager", n_seed=3, loss=huge)))
    assert bool(found[0].losses.isfinite().all()) and names(found[0]) == ["diverged"] * 5
    assert (
        "image 0, the mean of whose losses is beyond the dtype, though each is finite. Scale the loss down" in message
    )


def test_the_warning_points_at_the_callers_line():
    for call in (adgan_fast.score, adgan_fast.search):
        with pytest.warns(RuntimeWarning, match="scores are NaN") as caught:
            call(Brittle(), IMAGES, starts=torch.full((1, 4), FAR), steps=0, engine="eager", verify=False)
        assert [w.filename for w in caught if "scores are NaN" in str(w.message)] == [__file__]


def test_a_search_that_goes_well_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = search(starts=torch.full((2, 4), NEAR), lr_z=0.1)
        empty = search(IMAGES[:0], n_seed=2)
    assert names(found) == ["ok"] * 5 and found.status.dtype == torch.int8
    assert names(empty) == [] and empty.status.dtype == torch.int8


def test_the_first_start_that_is_lost_counts_at_its_final_loss():
    nan, inf = float("nan"), float("inf")
    initial = torch.tensor([[1.0, 1.0, 1.0], [inf, 1.0, nan], [1.0, inf, 1.0], [1.0, nan, 1.0]])
    final = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, nan], [1.0, 1.0, inf], [1.0, nan, inf]])
    assert first_lost(initial, final).tolist() == [[3, 0], [2, 1], [2, 0], [1, 1]]
