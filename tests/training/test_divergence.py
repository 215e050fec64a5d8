"""A training that diverges stops, with the last good checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from adgan_fast.training import (
    TrainingDiverged,
    checkpoint,
    load_generator,
    loop,
    train,
    wgan,
)
from tests.support.wgan import PENALTY, SMALL

pytestmark = pytest.mark.usefixtures("sigint_heard", "one_thread")


def poison(monkeypatch: pytest.MonkeyPatch, step: int, what: str) -> None:
    real = wgan.WGAN._generator_step

    def poisoned(run: wgan.WGAN, stream: np.random.Generator) -> torch.Tensor:
        loss = real(run, stream)
        if run.step + 1 == step:
            with torch.no_grad():
                next(run.generator.parameters())[0, 0, 0, 0] = float("nan")
            if what == "loss":
                return loss * float("inf")
        return loss

    monkeypatch.setattr(wgan.WGAN, "_generator_step", poisoned)


@pytest.mark.parametrize(
    ("what", "step", "message"),
    [
        ("loss", 3, r"step 3: generator_loss is -?inf"),  # no checkpoint is due: seen at once
        ("weights alone", 4, r"step 4: generator layers\.0\.weight holds NaN"),  # seen before they are stored
    ],
)
def test_divergence_stops_with_the_last_good_checkpoint(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, step: int, message: str
) -> None:
    poison(monkeypatch, step, what)
    with pytest.raises(TrainingDiverged, match=message) as caught:
        train(images, SMALL, out=tmp_path)
    assert caught.value.step == step
    assert caught.value.checkpoint == tmp_path
    assert str(tmp_path) in str(caught.value)
    tensors, meta = checkpoint.load_checkpoint(tmp_path)
    assert meta["step"] == 2
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert torch.isfinite(load_generator(tmp_path)(torch.zeros(1, 4))).all()
    assert not (tmp_path / loop.GENERATOR_FILE).exists()


def test_divergence_without_a_folder_says_that_nothing_was_kept(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 5, "weights alone")  # in the very last step
    with pytest.raises(TrainingDiverged, match="no checkpoint was kept") as caught:
        train(images, SMALL)
    assert caught.value.checkpoint is None


def test_an_absurd_learning_rate_diverges_instead_of_returning_nan(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged):
        train(images, dataclasses.replace(PENALTY, lr=1e30, steps=10, checkpoint_every=0), out=tmp_path)
    assert torch.isfinite(load_generator(tmp_path)(torch.zeros(1, 4))).all()
