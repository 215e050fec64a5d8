"""Deep SVDD: no number that could shift a code, a centre away from zero, and codes that are drawn to it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from adgan_fast.training import SVDDConfig, train
from adgan_fast.training.svdd import SVDD

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SVDDConfig(latent=4, width=4, batch_size=20, steps=30, lr=1e-3)


def test_the_encoder_has_convolutions_alone(images: np.ndarray) -> None:
    encoder = train(images, dataclasses.replace(CONFIG, steps=0)).encoder
    assert {name.rpartition(".")[2] for name, _ in encoder.named_parameters()} == {"weight"}
    assert all(parameter.dim() == 4 for parameter in encoder.parameters())


def test_the_centre_is_the_mean_code_of_a_first_pass_moved_away_from_zero(images: np.ndarray) -> None:
    run = SVDD(images, CONFIG)
    with torch.no_grad():
        mean = SVDD(images, CONFIG).encoder(run.some(20)).mean(0)
    centre = run.centre.centre
    near = mean.abs() < 0.1
    assert near.any()
    assert torch.equal(centre[near].abs(), torch.full((int(near.sum()),), 0.1))
    assert torch.equal(centre[~near], mean[~near])
    assert (centre.sign() == torch.where(mean < 0, -1, 1)).all()
    assert (centre.abs() >= 0.1).all()


def test_the_centre_stays_and_the_codes_are_drawn_to_it(images: np.ndarray) -> None:
    before, after = (train(images, dataclasses.replace(CONFIG, steps=steps)) for steps in (1, 30))
    assert torch.equal(before.centre.centre, after.centre.centre)
    distances = after.history["distance"]
    assert distances[-1] < 0.2 * distances[0]
    codes = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]) + after.centre.centre
    torch.testing.assert_close(after.centre(codes), torch.tensor([1.0, 0.0]))


def test_after_a_pretraining_the_centre_is_set_anew(images: np.ndarray) -> None:
    config = dataclasses.replace(CONFIG, width=32, pretrain_steps=10)  # so wide that coordinates are not near zero
    pretrained, first = (train(images, dataclasses.replace(config, steps=steps)) for steps in (10, 11))
    assert set(first.models) == {"encoder", "centre", "decoder"}
    assert not torch.equal(pretrained.centre.centre, first.centre.centre)
    history = train(images, config).history["distance"]
    assert history[9] > 2 * history[10]  # sums over 64 pixels, then distances of codes
    assert history[29] < history[10]
