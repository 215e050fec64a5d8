"""WGAN training and its files: reproducible, resumable, safe against crashes and divergence, and it learns."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from adgan_fast import SearchConfig
from adgan_fast.models import DCGANCritic, DCGANGenerator
from adgan_fast.training import (
    CheckpointError,
    TrainingDiverged,
    TrainResult,
    WGANConfig,
    checkpoint,
    load_generator,
    save_generator,
    train,
    wgan,
)

pytestmark = pytest.mark.usefixtures("sigint_heard")

SMALL = WGANConfig(latent=4, width=2, steps=5, batch_size=8, n_critic=2, lr=1e-3, checkpoint_every=2, sample_every=0)
PENALTY = dataclasses.replace(SMALL, objective="gp", norm="layer")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)


def assert_same(first: TrainResult, second: TrainResult) -> None:
    for name in ("generator", "critic"):
        ours, theirs = getattr(first, name).state_dict(), getattr(second, name).state_dict()
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), f"{name} {key}"
    for key, values in first.history.items():
        assert np.array_equal(values, second.history[key]), key


# Reproducibility


@pytest.mark.parametrize("config", [SMALL, PENALTY], ids=["clip", "gp"])
def test_a_seed_decides_every_bit_and_the_global_random_state_is_left_alone(
    images: np.ndarray, config: WGANConfig
) -> None:
    first = train(images, config)
    states = torch.random.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # type: ignore[index]
    second = train(images, config)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tobytes() == states[1]  # type: ignore[index]
    assert random.getstate() == states[2]
    torch.manual_seed(99)
    np.random.seed(99)
    assert_same(first, second)
    assert_same(first, train(images, config))
    other = train(images, dataclasses.replace(config, seed=1))
    assert not torch.equal(next(first.generator.parameters()), next(other.generator.parameters()))


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def rounded_products() -> Iterator[None]:
    torch.backends.fp32_precision = "tf32"
    try:
        yield
    finally:
        torch.backends.fp32_precision = "none"


AMBIENT = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": default_dtype,
    "default device": default_device,
    "device as context": lambda: torch.device("meta"),
    "TF32": rounded_products,
}


def ambient() -> tuple[object, ...]:
    """What the modes of AMBIENT change."""
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    return *modes, torch.get_default_dtype(), torch.get_default_device(), torch.backends.fp32_precision


@pytest.mark.parametrize("mode", AMBIENT)
def test_what_the_caller_has_set_in_torch_does_not_matter_and_stays(
    images: np.ndarray, tmp_path: Path, mode: str
) -> None:
    config = dataclasses.replace(SMALL, sample_every=5, sample_count=4)
    expected = train(images, config, out=tmp_path / "expected")
    with AMBIENT[mode]():
        before = ambient()
        train(images, dataclasses.replace(config, steps=3), out=tmp_path / "run")
        result = train(images, config, out=tmp_path / "run", resume=True)
        saved = save_generator(result.generator, tmp_path / "saved.safetensors")
        loaded = [load_generator(source) for source in (saved, tmp_path / "run")]
        assert ambient() == before
    assert_same(expected, result)
    for generator in loaded:
        assert not any(value.is_inference() for value in generator.state_dict().values())
        assert all(parameter.requires_grad for parameter in generator.parameters())
        for name, value in expected.generator.state_dict().items():
            torch.testing.assert_close(generator.state_dict()[name], value, rtol=0, atol=0)  # dtype and device, too
    for file in (tmp_path / "expected").glob("*.safetensors"):
        ours, theirs = (load_file(folder / file.name) for folder in (tmp_path / "run", tmp_path / "expected"))
        assert all(torch.equal(value, ours[name]) and value.dtype == ours[name].dtype for name, value in theirs.items())
    picture = "samples-0000005.png"
    assert (tmp_path / "run" / picture).read_bytes() == (tmp_path / "expected" / picture).read_bytes()


def test_images_may_come_as_bytes_or_floats_and_stay_as_they_were(images: np.ndarray) -> None:
    before = images.copy()
    expected = train(images, SMALL)
    floats = torch.from_numpy(images).float() / 127.5 - 1
    assert_same(expected, train(floats, SMALL))
    assert_same(expected, train(floats[:, 0].double().numpy(), SMALL))
    assert_same(expected, train(torch.from_numpy(images[:, 0]), SMALL))
    assert np.array_equal(images, before)


@pytest.mark.parametrize(("count", "batch"), [(20, 8), (5, 8), (8, 8), (3, 10)])
def test_every_epoch_shows_each_image_once_in_an_order_of_its_own(count: int, batch: int) -> None:
    data = torch.arange(count).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous() / 100
    run = wgan._Run(data, dataclasses.replace(SMALL, batch_size=batch))
    batches = [run._batch() for _ in range(4 * count)]
    assert all(part.shape == (batch, 1, 8, 8) for part in batches)
    seen = (torch.cat(batches)[:, 0, 0, 0] * 100).round().int().reshape(-1, count)
    assert torch.equal(seen.sort(1).values, torch.arange(count, dtype=torch.int32).expand(len(seen), -1))
    assert len({tuple(epoch.tolist()) for epoch in seen}) > 1


# Resuming


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
    real = wgan._Run._generator_step

    def interrupted(run: wgan._Run, stream: np.random.Generator) -> torch.Tensor:
        if run.step + 1 == step:
            what()
        return real(run, stream)

    monkeypatch.setattr(wgan._Run, "_generator_step", interrupted)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("step", [1, 3, 4, 5])
@pytest.mark.parametrize("config", [SMALL, PENALTY], ids=["clip", "gp"])
def test_an_interrupt_keeps_the_step_in_work_and_the_run_goes_on_bitwise(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, config: WGANConfig, step: int
) -> None:
    at_step(monkeypatch, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(images, dataclasses.replace(config, checkpoint_every=0), out=tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    assert checkpoint.load_checkpoint(tmp_path)[1]["step"] == step
    (line,) = caplog.messages
    assert f"interrupted at step {step} of 5: the checkpoint of step {step} is in {tmp_path}" in line
    assert "resume=True" in line
    assert_same(train(images, config), train(images, config, out=tmp_path, resume=True))
    assert (tmp_path / wgan.GENERATOR_FILE).exists()


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
    real = wgan._Run.advance
    monkeypatch.setattr(wgan._Run, "advance", lambda run: (next(steps), real(run))[1])
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
    while "/100000" not in (line := child.stderr.read(40)) or " 0/" in line:  # the bar moves: steps are being taken
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


# Objectives


def test_weight_clipping_holds_for_every_critic_weight(images: np.ndarray) -> None:
    clipped = train(images, dataclasses.replace(SMALL, clip=0.005))
    assert max(p.abs().max().item() for p in clipped.critic.parameters()) <= 0.005
    free = train(images, PENALTY)
    assert max(p.abs().max().item() for p in free.critic.parameters()) > 0.5


def test_gradient_penalty_of_a_linear_critic_is_the_one_computed_by_hand() -> None:
    slope = torch.tensor([3.0, 4.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    images = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert wgan._penalty(lambda x: (x * slope).sum((1, 2, 3)), images).item() == pytest.approx((5.0 - 1.0) ** 2)
    # Each image by itself, |2 x| for d = |x|^2: not the norm over the batch.
    expected = ((2 * images.flatten(1)).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(wgan._penalty(lambda x: x.square().sum((1, 2, 3)), images).detach(), expected)


def test_history_is_of_the_wasserstein_objective(images: np.ndarray) -> None:
    clipped, penalised = train(images, SMALL).history, train(images, PENALTY).history
    assert all(values.shape == (5,) for values in clipped.values())
    np.testing.assert_array_equal(clipped["critic_loss"], -clipped["wasserstein"])
    assert (penalised["critic_loss"] > -penalised["wasserstein"]).all()


def test_critic_boost_follows_the_authors_schedule(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[int, int] = {}

    def counted(run: wgan._Run, stream: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        counts[run.step] = counts.get(run.step, 0) + 1
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(wgan._Run, "_critic_step", counted)
    monkeypatch.setattr(wgan._Run, "_generator_step", lambda run, stream: torch.zeros(()))
    train(images, dataclasses.replace(SMALL, steps=502, critic_boost=True, batch_size=1))
    boosted = {step for step, count in counts.items() if count == 100}
    assert boosted == {*range(25), 500}
    assert {count for step, count in counts.items() if step not in boosted} == {SMALL.n_critic}


@pytest.mark.parametrize(
    "config",
    [
        WGANConfig(latent=8, width=8, steps=150, batch_size=32, lr=1e-3),
        WGANConfig(latent=8, width=8, steps=100, batch_size=32, lr=2e-3, n_critic=3, objective="gp", norm="none"),
    ],
    ids=["clip", "gp"],
)
def test_training_brings_the_generated_distribution_to_the_datas(config: WGANConfig) -> None:
    rng = np.random.default_rng(1)
    pattern = np.where(np.arange(8) < 4, 0.6, -0.6)[None, None, None, :]
    brightness = rng.normal(0.0, 0.15, (256, 1, 1, 1))
    data = np.clip(pattern + brightness + np.zeros((1, 1, 8, 1)), -1, 1).astype(np.float32)

    def distances(generator: torch.nn.Module) -> tuple[float, float]:
        with torch.no_grad():
            made = generator(torch.randn(256, 8, generator=torch.Generator().manual_seed(2))).numpy()
        means = float(np.abs(made.mean(0) - data.mean(0)).mean())
        return means, abs(float(made.mean((1, 2, 3)).std() - data.mean((1, 2, 3)).std()))

    untrained = distances(train(data, dataclasses.replace(config, steps=0)).generator)
    trained = distances(train(data, config).generator)
    # Over three seeds the trained ones reached 0.02 to 0.09 and 0.02 to 0.06.
    assert trained[0] < 0.15 < 0.5 < untrained[0]
    assert trained[1] < 0.08 < 0.12 < untrained[1]


# Divergence


def poison(monkeypatch: pytest.MonkeyPatch, step: int, what: str) -> None:
    real = wgan._Run._generator_step

    def poisoned(run: wgan._Run, stream: np.random.Generator) -> torch.Tensor:
        loss = real(run, stream)
        if run.step + 1 == step:
            with torch.no_grad():
                next(run.generator.parameters())[0, 0, 0, 0] = float("nan")
            if what == "loss":
                return loss * float("inf")
        return loss

    monkeypatch.setattr(wgan._Run, "_generator_step", poisoned)


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
    assert not (tmp_path / wgan.GENERATOR_FILE).exists()


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


# Files


class Crash(BaseException):
    """Not an Exception, so that nothing but cleaning up may catch it."""


@pytest.mark.parametrize(("function", "at"), [*itertools.product(["replace"], [1, 2]), ("fsync", 1), ("fsync", 3)])
def test_a_crash_while_saving_leaves_the_previous_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, at: int
) -> None:
    old, new = {"weights": torch.arange(6.0)}, {"weights": -torch.arange(6.0)}
    checkpoint.save_checkpoint(tmp_path, old, {"step": 1})
    calls, real = itertools.count(1), getattr(os, function)

    def crashing(*arguments: Any, **keywords: Any) -> Any:
        if next(calls) == at:
            raise Crash
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, function, crashing)
    with pytest.raises(Crash):
        checkpoint.save_checkpoint(tmp_path, new, {"step": 2})
    monkeypatch.undo()
    tensors, meta = checkpoint.load_checkpoint(tmp_path)
    assert meta == {"step": 1}
    assert torch.equal(tensors["weights"], old["weights"])
    (tmp_path / ".checkpoint.json.1.tmp").write_text("{")  # what a power cut leaves, when nothing can clean up
    checkpoint.save_checkpoint(tmp_path, new, {"step": 3})
    tensors, meta = checkpoint.load_checkpoint(tmp_path)
    assert meta == {"step": 3}
    assert torch.equal(tensors["weights"], new["weights"])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_of_the_same_tensors_can_be_saved_again(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save_checkpoint(tmp_path, {"a": torch.ones(2)}, {"step": step})
    assert checkpoint.load_checkpoint(tmp_path)[1] == {"step": 2}


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint here"):
        checkpoint.load_checkpoint(tmp_path)
    index = checkpoint.save_checkpoint(tmp_path, {"a": torch.ones(2)}, {"step": 1})
    text = index.read_text()
    (tensors,) = tmp_path.glob("*.safetensors")
    for changed, message in [
        (text[:-20], "not JSON"),
        (text.replace("adgan_fast", "other"), "not a checkpoint of"),
        (text.replace('"version": 1', '"version": 2'), "format version 2, this release reads version 1"),
        (text.replace('"sha256"', '"md5"'), "sha256"),
    ]:
        index.write_text(changed)
        with pytest.raises(CheckpointError, match=message):
            checkpoint.load_checkpoint(tmp_path)
    index.write_text(text)
    data = tensors.read_bytes()
    tensors.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoint.load_checkpoint(tmp_path)
    tensors.unlink()
    with pytest.raises(FileNotFoundError, match=tensors.name):
        checkpoint.load_checkpoint(tmp_path)


def test_a_checkpoint_does_not_read_outside_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    index = checkpoint.save_checkpoint(inside, {"a": torch.ones(2)}, {})
    (tensors,) = inside.glob("*.safetensors")
    tensors.rename(tmp_path / tensors.name)
    index.write_text(index.read_text().replace(tensors.name, f"../{tensors.name}"))
    with pytest.raises(FileNotFoundError):
        checkpoint.load_checkpoint(inside)


def test_a_generator_survives_its_file(images: np.ndarray, tmp_path: Path) -> None:
    result = train(images, SMALL, out=tmp_path / "run")
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    expected = result.generator(z)
    path = save_generator(result.generator, tmp_path / "mine.safetensors")
    for source in (path, tmp_path / "run" / wgan.GENERATOR_FILE, tmp_path / "run", tmp_path / "run/checkpoint.json"):
        loaded = load_generator(source)
        assert isinstance(loaded, DCGANGenerator)
        assert not loaded.training
        assert loaded.config == result.generator.config
        assert torch.equal(loaded(z), expected), source


def test_only_sound_generators_of_this_package_are_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Linear has no config"):
        save_generator(torch.nn.Linear(2, 2), tmp_path / "g")
    generator = DCGANGenerator(8, 1, 4, 2)
    with torch.no_grad():
        next(generator.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"layers\.0\.weight holds NaN"):
        save_generator(generator, tmp_path / "g")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_generators_are_named_and_run_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError, match="file"):
        load_generator(path)
    for content in (b"", b"garbage" * 99, pickle.dumps(Payload())):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=str(path)):
            load_generator(path)
    torch.save(DCGANGenerator(8, 1, 4, 2), path)  # a zip archive, as a .pt2 is
    with pytest.raises(CheckpointError, match=r"file: .* A \.pt2 program .* give its path to adgan_fast\.score"):
        load_generator(path)
    assert not (tmp_path / "executed").exists()
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="not a generator of adgan_fast"):
        load_generator(path)
    good = DCGANGenerator(8, 1, 4, 2)
    for header, message in [
        ({"version": "9"}, "format version '9'"),
        ({"architecture": "{"}, "not JSON"),
        ({"architecture": "[]"}, "holds no architecture"),
        ({"architecture": json.dumps({**good.config, "kind": "Other"})}, "kind must be one of"),
        ({"architecture": json.dumps({**good.config, "width": 3})}, "does not fit DCGANGenerator"),
        ({"architecture": json.dumps(DCGANCritic(8, 1, 2).config)}, "does not fit DCGANCritic"),
    ]:
        sound = {"format": "adgan_fast", "version": "1", "architecture": json.dumps(good.config)}
        save_file(good.state_dict(), path, {**sound, **header})
        with pytest.raises(CheckpointError, match=message):
            load_generator(path)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sample_pictures_are_drawn_when_due_and_change_nothing(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, channels, 8, 8), dtype=np.uint8)
    config = dataclasses.replace(SMALL, sample_every=2, sample_count=6)
    assert_same(train(images, SMALL), train(images, config, out=tmp_path))
    pictures = sorted(tmp_path.glob("samples-*.png"))
    assert [path.name for path in pictures] == ["samples-0000002.png", "samples-0000004.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.mode == ("RGB" if channels == 3 else "L")
        assert picture.size == ((3 * 9 + 1) * 8, (2 * 9 + 1) * 8)


def test_progress_is_shown_on_stderr_only_when_asked(images: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    train(images, SMALL)
    assert capfd.readouterr() == ("", "")
    train(images, SMALL, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "train: 100%" in err
    assert "5/5" in err


# Bad input


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent", 0),
        ("width", 2.0),
        ("steps", -1),
        ("batch_size", True),
        ("n_critic", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("objective", "gan"),
        ("norm", "instance"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("clip", -1.0),
        ("gp_weight", float("inf")),
        ("betas", (0.5,)),
        ("betas", (0.5, 1.0)),
        ("device", "toaster"),
        ("checkpoint_every", -1),
        ("sample_every", 0.5),
        ("sample_count", 0),
        ("steps", np.float64(3.0)),
        ("seed", np.int64(-1)),
        ("lr", "fast"),
        ("lr", np.float32("inf")),
        ("clip", 10**400),
        ("betas", (0.5, "high")),
        ("betas", (True, 0.5)),
        ("critic_boost", "no"),
    ],
)
def test_a_bad_setting_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        WGANConfig(**{name: value})  # type: ignore[arg-type]


def test_numpys_numbers_are_numbers(images: np.ndarray, tmp_path: Path) -> None:
    numbers = {"clip": np.float64(0.01), "gp_weight": np.float32(10), "betas": (np.float32(0), np.float64(0.9))}
    wholes = {name: np.int64(getattr(SMALL, name)) for name in ("latent", "width", "steps", "batch_size", "n_critic")}
    wholes |= {"seed": np.uint64(0), "checkpoint_every": np.int32(2), "sample_every": np.uint8(0)}
    config = WGANConfig(lr=np.float64(1e-3), critic_boost=np.bool_(False), **numbers, **wholes)  # type: ignore[arg-type]
    assert config == SMALL
    assert {type(value) for value in dataclasses.astuple(config)} <= {int, float, str, bool, tuple, type(None)}
    assert_same(train(images, SMALL), train(images, config, out=tmp_path))
    assert WGANConfig(lr=np.float32(0.5)).lr == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"steps": 5}, r"got a dict: WGANConfig\(\*\*config\)"),
        ({}, r"got a dict: WGANConfig\(\*\*config\)"),
        (SearchConfig(), "config must be a WGANConfig, got a SearchConfig"),
    ],
    ids=["dict", "empty dict", "SearchConfig"],
)
def test_a_config_of_another_kind_is_named(images: np.ndarray, config: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        train(images, config)  # type: ignore[arg-type]


def test_defaults_follow_the_objective() -> None:
    clip, penalty = WGANConfig(), WGANConfig(objective="gp")
    assert (clip.latent, clip.lr, clip.n_critic, clip.clip, clip.norm) == (256, 5e-5, 5, 0.01, "batch")
    assert (penalty.lr, penalty.betas, penalty.gp_weight, penalty.norm) == (1e-4, (0.0, 0.9), 10.0, "layer")
    with pytest.raises(ValueError, match="norm='batch' does not go with objective='gp'"):
        WGANConfig(objective="gp", norm="batch")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 1, 9, 9), np.uint8), "8, 16, 28, 32, 64"),
        (np.zeros((4, 1, 8, 16), np.uint8), r"\(4, 1, 8, 16\)"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\)"),
        (np.zeros((0, 1, 8, 8), np.uint8), "at least one image"),
        (np.full((4, 8, 8), 255.0), r"\[-1, 1\]"),
        (np.full((4, 8, 8), np.nan), "NaN"),
        (np.zeros((4, 8, 8), np.int64), "int64"),
    ],
)
def test_images_that_cannot_be_trained_on_are_described(bad: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        train(bad, SMALL, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
