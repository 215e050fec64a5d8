"""Recorded steps: on a CUDA device for real; elsewhere a stand-in replays what the step was recorded from."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from adgan_fast.training import SVDDConfig, TrainConfig, recorded, train
from adgan_fast.training.checkpoint import load_checkpoint
from adgan_fast.training.objectives import trainer_of
from tests.support.objectives import SHORT, assert_alike, given
from tests.support.wgan import SMALL

STEPS = recorded.LAUNCHED + 4
ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device, where alone is recorded")


class Stream:
    def __init__(self, device: object = None) -> None: ...
    def wait_stream(self, other: object) -> None: ...


class Replayed:
    """A recording that does its work again, on the buffers that were filled meanwhile."""

    def __init__(self, work: Callable[[], recorded.Losses], feeds: recorded.Feeds) -> None:
        self._work, self._feeds = work, feeds

    def replay(self) -> recorded.Losses:
        with self._feeds.buffers():
            return self._work()


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)


@contextlib.contextmanager
def steps_of(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[recorded.RecordedSteps]:
    monkeypatch.setattr(recorded, "capture", lambda work, stream: Replayed(work, trainer.feeds))
    yield recorded.RecordedSteps(trainer._take, trainer.feeds)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize("name", [name for name, config in SHORT.items() if name != "svdd-pretrained"])
def test_replayed_steps_draw_what_launched_ones_draw(
    name: str, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(SHORT[name], steps=STEPS)
    launched, replayed = (trainer_of(config)(given(config, images), config) for _ in range(2))
    with steps_of(replayed, monkeypatch) as steps:
        replayed._take = steps
        for _ in range(STEPS):
            assert launched.advance() == replayed.advance()
    assert steps._recording is not None
    for model in launched.models:
        mine, theirs = launched.models[model].state_dict(), replayed.models[model].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in mine.items())


@pytest.mark.usefixtures("no_device")
def test_a_step_that_cannot_be_recorded_is_launched_and_the_reason_is_logged(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(SMALL, steps=STEPS)
    launched, other = (trainer_of(config)(images, config) for _ in range(2))

    def fails(work: Callable[[], object], stream: object) -> None:
        """In the generator's pass, when the critic's weights record no gradient; a recording moves no weight."""
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.RMSprop, "step", lambda *_: None)
            patch.setattr(other.generator, "forward", refuses)
            with pytest.raises(ZeroDivisionError):
                work()
        raise RuntimeError("TypeError: on purpose")

    def refuses(z: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise ZeroDivisionError
        return torch.zeros(len(z), 1, 8, 8)

    monkeypatch.setattr(recorded, "capture", fails)
    other._take = recorded.RecordedSteps(other._take, other.feeds)
    with caplog.at_level(logging.WARNING, "adgan_fast"):
        assert [launched.advance() for _ in range(STEPS)] == [other.advance() for _ in range(STEPS)]
    assert [record.message for record in caplog.records] == [
        "training goes on without a CUDA graph: TypeError: on purpose"
    ]


@pytest.mark.parametrize(
    ("config", "alike"),
    [
        (SMALL, True),
        (dataclasses.replace(SMALL, critic_boost=True), False),
        (SVDDConfig(latent=4, width=2), True),
        (SVDDConfig(latent=4, width=2, pretrain_steps=3), False),
    ],
)
def test_steps_whose_work_changes_are_not_recorded(config: TrainConfig, alike: bool, images: np.ndarray) -> None:
    assert trainer_of(config)(images, config).alike is alike


@ON_CUDA
@pytest.mark.parametrize("name", SHORT)
def test_on_cuda_recorded_steps_give_the_bits_of_launched_ones(
    name: str, images: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(SHORT[name], device="cuda", steps=STEPS)
    with caplog.at_level(logging.WARNING, "adgan_fast"):
        found = train(given(config, images), config)
    assert not caplog.records
    assert_alike(found, train(given(config, images), dataclasses.replace(config, graphs=False)))


@ON_CUDA
def test_on_cuda_a_resumed_run_has_the_bits_of_an_undisturbed_one(images: np.ndarray, tmp_path: Any) -> None:
    config = dataclasses.replace(SHORT["wgan-gp"], device="cuda", steps=2 * STEPS)
    train(images, dataclasses.replace(config, steps=STEPS), out=tmp_path / "parts")
    train(images, config, out=tmp_path / "parts", resume=True)
    train(images, config, out=tmp_path / "whole")
    ours, theirs = (load_checkpoint(tmp_path / part)[0] for part in ("parts", "whole"))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
