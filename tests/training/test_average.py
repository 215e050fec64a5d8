"""The running mean of a generator's weights, held to the sum that it stands for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from adgan_fast.training import (
    DCAEConfig,
    SVDDConfig,
    TrainConfig,
    VAEConfig,
    load_generator,
    load_models,
    train,
)  # fmt: skip
from adgan_fast.training.average import RunningMean
from adgan_fast.training.wgan import WGAN
from tests.support.wgan import SMALL

STEPS, DECAY = 6, 0.7


def test_a_mean_is_plain_at_first_and_then_forgets_by_its_decay() -> None:
    network = torch.nn.BatchNorm1d(1)
    mean, values = RunningMean(network, 0.75), [3.0, 5.0, -1.0, 2.0, 10.0]
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(2 * value)
            network.num_batches_tracked.fill_(step)
        mean.take(torch.tensor(mean.weight(step)))
    expected = 0.75 * np.mean(values[:4]) + 0.25 * values[4]  # 1/4 each until 1 / step is less than 1 - decay
    assert mean.model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert mean.model.running_mean.item() == pytest.approx(2 * expected, rel=1e-6)
    assert mean.model.num_batches_tracked.item() == len(values)


def test_the_generator_that_comes_out_is_the_mean_and_the_training_is_another_s(images: np.ndarray, tmp_path) -> None:
    plain = dataclasses.replace(SMALL, steps=STEPS)
    run = WGAN(images, plain)
    kept: list[dict[str, torch.Tensor]] = []
    for _ in range(STEPS):
        run.advance()
        kept.append({key: value.clone().double() for key, value in run.generator.state_dict().items()})
    found = train(images, dataclasses.replace(plain, average=DECAY), out=tmp_path)
    wanted = kept[0]
    for step, now in enumerate(kept[1:], 2):
        share = max(1 - DECAY, 1 / step)
        wanted = {key: (1 - share) * wanted[key] + share * value for key, value in now.items()}
    for key, value in found.generator.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), wanted[key], rtol=1e-5, atol=1e-7)
        assert torch.equal(found.generator_now.state_dict()[key].double(), kept[-1][key]), key
    for stored in (load_generator(tmp_path), load_models(tmp_path)["generator"]):
        assert all(torch.equal(value, stored.state_dict()[key]) for key, value in found.generator.state_dict().items())


@pytest.mark.parametrize("value", [-0.1, 1.0, "0.9", float("nan"), None])
def test_what_is_no_decay_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match="average must be a number from 0 to below 1"):
        TrainConfig(average=value)


@pytest.mark.parametrize("config", [VAEConfig(average=0.5), SVDDConfig(average=0.5), DCAEConfig(average=0.5)])
def test_a_mean_of_what_is_no_generator_of_its_own_is_refused(config: TrainConfig, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="average is of a generator that is trained with a critic or alone"):
        train(images, config)
