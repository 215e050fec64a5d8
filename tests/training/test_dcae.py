"""The autoencoder: its loss by hand, and images that it learns to make again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adgan_fast.data import load_digits
from adgan_fast.training import DCAEConfig, TrainResult, train
from adgan_fast.training.dcae import DCAE

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_loss_is_the_sum_of_squares_of_an_image(images: np.ndarray) -> None:
    config = DCAEConfig(latent=4, width=2, batch_size=20)
    run, twin = DCAE(images, config), DCAE(images, config)
    with torch.no_grad():
        real = twin.batch(np.random.default_rng(0))
        made = twin.models["generator"](twin.models["encoder"](real))
    expected = ((made - real) ** 2).sum() / 20
    assert run.advance()["reconstruction"] == pytest.approx(expected.item(), rel=1e-5)


def test_training_makes_the_images_again() -> None:
    zeros = load_digits().of_class(0).images
    config = DCAEConfig(latent=8, width=8, batch_size=32, steps=250)

    def error(result: TrainResult) -> float:
        with torch.no_grad():
            images = torch.from_numpy(zeros)
            return float((result.generator(result.encoder(images)) - images).square().sum((1, 2, 3)).mean())

    # 3.6 over two seeds, 42 untrained; the images' own spread around their mean is 6.2.
    spread = float(np.square(zeros - zeros.mean(0)).sum((1, 2, 3)).mean())
    trained, untrained = (error(train(zeros, dataclasses.replace(config, steps=steps))) for steps in (250, 0))
    assert trained < 0.8 * spread < spread < untrained


def test_a_picture_shows_images_beside_their_reconstructions(images: np.ndarray, tmp_path: Path) -> None:
    config = DCAEConfig(latent=4, width=2, batch_size=8, steps=1, sample_every=1, sample_count=4)
    train(images, config, out=tmp_path)
    with Image.open(tmp_path / "samples-0000001.png") as picture:
        shown = np.asarray(picture)[::8, ::8]
    assert shown.shape == (2 * 9 + 1, 2 * 9 + 1)
    assert np.array_equal(shown[1:9, 1:9], images[0, 0])
    assert np.array_equal(shown[10:18, 1:9], images[-1, 0])
    assert not np.array_equal(shown[1:9, 10:18], images[0, 0])
