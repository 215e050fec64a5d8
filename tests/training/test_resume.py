"""An interrupted training goes on to the last bit as if it had not been interrupted."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adgan_fast.training import (
    CheckpointError,
    WGANConfig,
    checkpoint,
    loop,
    train,
    wgan,
)
from tests.support.wgan import PENALTY, SMALL, assert_same

pytestmark = pytest.mark.usefixtures("sigint_heard", "one_thread")


@pytest.mark.parametrize("config", [SMALL, PENALTY], ids=["clip", "gp"])
@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_resumed_run_equals_an_uninterrupted_one_bitwise(
    images: np.ndarray, tmp_path: Path, config: WGANConfig, after: int
) -> None:
    whole = train(images, config, out=tmp_path / "whole")
    train(images, dataclasses.replace(config, steps=after), out=tmp_path / "parts")
    resumed = train(images, config, out=tmp_path / "parts", resume=True)
    assert resumed.step == 5
    assert_same(whole, resumed)
    ours, theirs = (checkpoint.load_checkpoint(tmp_path / name)[0] for name in ("parts", "whole"))
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("critic_optimizer/") for name in ours)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, what: Callable[[], None]) -> None:
    """Calls `what` within a generator step, when the critic has moved already and the generator has not."""
    real = wgan.WGAN._generator_step

    def interrupted(run: wgan.WGAN, stream: np.random.Generator) -> torch.Tensor:
        if run.step + 1 == step:
            what()
        return real(run, stream)

    monkeypatch.setattr(wgan.WGAN, "_generator_step", interrupted)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def end() -> None:
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("step", "ask"), [(1, interrupt), (3, end), (4, interrupt), (5, end)])
@pytest.mark.parametrize("config", [SMALL, PENALTY], ids=["clip", "gp"])
def test_an_interrupt_keeps_the_step_in_work_and_the_run_goes_on_bitwise(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, config: WGANConfig, step: int, ask
) -> None:
    at_step(monkeypatch, step, ask)
    with pytest.raises(KeyboardInterrupt):
        train(images, dataclasses.replace(config, checkpoint_every=0), out=tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.undo()
    assert checkpoint.load_checkpoint(tmp_path)[1]["step"] == step
    (line,) = caplog.messages
    assert f"interrupted at step {step} of 5: the checkpoint of step {step} is in {tmp_path}" in line
    assert "resume=True" in line
    assert_same(train(images, config), train(images, config, out=tmp_path, resume=True))
    assert (tmp_path / loop.GENERATOR_FILE).exists()


def raise_interrupt() -> None:
    raise KeyboardInterrupt  # of a handler that is not Python's own


@pytest.mark.parametrize("twice", [True, False], ids=["a second SIGINT", "an exception"])
def test_an_interrupt_that_does_not_wait_leaves_the_checkpoint_before_it(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, twice: bool
) -> None:
    at_step(monkeypatch, 4, (lambda: (interrupt(), interrupt())) if twice else raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(images, SMALL, out=tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    assert checkpoint.load_checkpoint(tmp_path)[1]["step"] == 2
    assert f"interrupted at step 3 of 5: the checkpoint of step 2 is in {tmp_path}" in caplog.text
    assert_same(train(images, SMALL), train(images, SMALL, out=tmp_path, resume=True))


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])  # of the calls that write, after the checkpoint of step 0
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_amid_a_write_leaves_a_whole_checkpoint(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, at: int, times: int
) -> None:
    calls, real = itertools.count(1), getattr(os, function)
    first = {"replace": 2, "fsync": 4}[function]

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == first + at:
            for _ in range(times):
                interrupt()
        return real(*arguments)

    monkeypatch.setattr(os, function, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(images, SMALL, out=tmp_path)
    monkeypatch.undo()
    assert checkpoint.load_checkpoint(tmp_path)[1]["step"] in range(6)
    assert not list(tmp_path.glob(".*"))
    assert_same(train(images, SMALL), train(images, SMALL, out=tmp_path, resume=True))


def test_an_interrupt_is_not_held_back_where_nothing_is_kept(images: np.ndarray, monkeypatch) -> None:
    at_step(monkeypatch, 2, interrupt)
    steps = itertools.count()
    real = wgan.WGAN.advance
    monkeypatch.setattr(wgan.WGAN, "advance", lambda run: (next(steps), real(run))[1])
    with pytest.raises(KeyboardInterrupt):
        train(images, SMALL)
    assert next(steps) == 2


def test_a_handler_of_the_programs_own_is_left_in_place(images: np.ndarray, tmp_path: Path, monkeypatch) -> None:
    seen: list[int] = []
    at_step(monkeypatch, 2, interrupt)
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        assert train(images, SMALL, out=tmp_path).step == 5
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def test_training_outside_of_the_main_thread_goes_on(images: np.ndarray, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        torch.set_num_threads(1)
        assert pool.submit(train, images, SMALL, out=tmp_path).result().step == 5


TRAIN = """
import sys, numpy, torch
from adgan_fast.training import WGANConfig, train
torch.set_num_threads(1)
images = numpy.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=numpy.uint8)
config = WGANConfig(latent=4, width=2, steps=100_000, batch_size=8, n_critic=2, sample_every=0)
train(images, config, out=sys.argv[1], progress=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_an_interrupt_from_outside_ends_a_real_run_with_a_checkpoint(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", TRAIN, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    while "of 100000 steps" not in (line := child.stderr.readline()):  # said with the first step
        assert line, "ended too soon"
    child.send_signal(signal.SIGINT)
    rest = child.stderr.read()
    assert child.wait() == -signal.SIGINT
    step = checkpoint.load_checkpoint(tmp_path)[1]["step"]
    assert f"the checkpoint of step {step} is in {tmp_path}" in rest
    assert "KeyboardInterrupt" in rest


def test_resume_without_a_checkpoint_starts_anew(images: np.ndarray, tmp_path: Path) -> None:
    assert_same(train(images, SMALL), train(images, SMALL, out=tmp_path / "new", resume=True))
    with pytest.raises(ValueError, match="resume=True needs out="):
        train(images, SMALL, resume=True)


def test_a_run_is_never_overwritten_unasked(images: np.ndarray, tmp_path: Path) -> None:
    train(images, SMALL, out=tmp_path)
    with pytest.raises(FileExistsError, match="resume=True"):
        train(images, SMALL, out=tmp_path)


def test_resume_refuses_other_settings_and_other_images(images: np.ndarray, tmp_path: Path) -> None:
    train(images, SMALL, out=tmp_path)
    with pytest.raises(CheckpointError, match=r"other settings: lr 0\.001 there, 0\.1 here, seed 0 there, 3 here"):
        train(images, dataclasses.replace(SMALL, lr=0.1, seed=3), out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="other images"):
        train(255 - images, SMALL, out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="already at step 5, beyond steps=4"):
        train(images, dataclasses.replace(SMALL, steps=4), out=tmp_path, resume=True)
