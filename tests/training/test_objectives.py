"""What every objective promises: the bits of a seed, exact resumption, storage, pictures, divergence, named errors."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from adgan_fast.training import (
    CheckpointError,
    InverseConfig,
    TrainConfig,
    TrainingDiverged,
    WGANConfig,
    checkpoint,
    load_generator,
    load_models,
    loop,
    save_generator,
    train,
)
from adgan_fast.training.objectives import OBJECTIVES
from adgan_fast.training.trainer import Trainer
from tests.support.objectives import SHORT, assert_alike, given

pytestmark = pytest.mark.usefixtures("sigint_heard", "one_thread")
every = pytest.mark.parametrize("name", SHORT)


def test_every_objective_of_the_table_is_tried_here() -> None:
    assert {type(config) for config in SHORT.values()} == set(OBJECTIVES)


@every
def test_a_seed_decides_every_bit_and_the_global_random_state_is_left_alone(images: np.ndarray, name: str) -> None:
    config = SHORT[name]
    first = train(given(config, images), config)
    states = torch.random.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # type: ignore[index]
    torch.manual_seed(99)
    again = train(given(config, images), config)
    torch.random.set_rng_state(states[0])
    assert_alike(first, again)
    train(given(config, images), dataclasses.replace(config, steps=1))
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert np.random.get_state()[1].tobytes() == states[1]  # type: ignore[index]
    assert random.getstate() == states[2]
    other = train(given(config, images), dataclasses.replace(config, seed=1))
    for key, values in first.history.items():
        assert not np.array_equal(values, other.history[key]), key


@every
@pytest.mark.parametrize("after", [0, 2, 3, 4])
def test_a_resumed_run_equals_an_uninterrupted_one_bitwise(
    images: np.ndarray, tmp_path: Path, name: str, after: int
) -> None:
    config = SHORT[name]
    whole = train(given(config, images), config, out=tmp_path / "whole")
    train(given(config, images), dataclasses.replace(config, steps=after), out=tmp_path / "parts")
    resumed = train(given(config, images), config, out=tmp_path / "parts", resume=True)
    assert resumed.step == 5
    assert_alike(whole, resumed)
    ours, theirs = (checkpoint.load_checkpoint(tmp_path / part)[0] for part in ("parts", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert any("_optimizer/" in key for key in ours)


@every
def test_an_interrupt_keeps_the_step_in_work_and_the_run_goes_on_bitwise(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = SHORT[name]
    kind, real = OBJECTIVES[type(config)], OBJECTIVES[type(config)].update  # type: ignore[attr-defined]

    def interrupted(run: Trainer, stream: np.random.Generator) -> object:
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)
        return real(run, stream)

    monkeypatch.setattr(kind, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(given(config, images), config, out=tmp_path)
    monkeypatch.undo()
    assert checkpoint.load_checkpoint(tmp_path)[1]["step"] == 3
    assert_alike(train(given(config, images), config), train(given(config, images), config, out=tmp_path, resume=True))


@every
def test_the_networks_of_a_run_are_attributes_and_lie_in_its_folder(
    images: np.ndarray, tmp_path: Path, name: str
) -> None:
    config = SHORT[name]
    result = train(given(config, images), config, out=tmp_path)
    stored = load_models(tmp_path)
    assert stored.keys() == result.models.keys()
    for key, model in result.models.items():
        assert getattr(result, key) is model
        assert not model.training and not stored[key].training
        assert model.config == stored[key].config
        assert all(torch.equal(value, stored[key].state_dict()[entry]) for entry, value in model.state_dict().items())
    with pytest.raises(AttributeError, match=f"no 'discriminator'.*{', '.join(result.models)}"):
        _ = result.discriminator
    if "generator" in result.models:
        z = torch.randn(3, config.latent, generator=torch.Generator().manual_seed(0))
        mine = save_generator(result.generator, tmp_path / "mine")
        for source in (tmp_path, tmp_path / loop.GENERATOR_FILE, mine):
            assert torch.equal(load_generator(source)(z), result.generator(z))
        assert result.generator(z).abs().max() <= 1
    else:
        assert not (tmp_path / loop.GENERATOR_FILE).exists()
        with pytest.raises(CheckpointError, match=f"no generator in this run, only {', '.join(result.models)}"):
            load_generator(tmp_path)


def test_a_result_can_be_copied_and_pickled(images: np.ndarray) -> None:
    result = train(images, SHORT["vae"])
    assert_alike(result, copy.deepcopy(result))
    assert_alike(result, pickle.loads(pickle.dumps(result)))


@every
def test_pictures_are_drawn_when_due_and_change_nothing(images: np.ndarray, tmp_path: Path, name: str) -> None:
    config = SHORT[name]
    drawn = dataclasses.replace(config, sample_every=2, sample_count=5)
    assert_alike(train(given(config, images), config), train(given(config, images), drawn, out=tmp_path))
    pictures = sorted(path.name for path in tmp_path.glob("samples-*.png"))
    makes = not name.startswith(("svdd", "inverse"))
    assert pictures == (["samples-0000002.png", "samples-0000004.png"] if makes else [])


@every
def test_an_absurd_learning_rate_diverges_instead_of_returning_nan(
    images: np.ndarray, tmp_path: Path, name: str
) -> None:
    config = dataclasses.replace(SHORT[name], lr=1e30, steps=20, checkpoint_every=0)
    if name == "wgan":  # clipping holds the critic: its generator alone can leave the numbers
        config = dataclasses.replace(config, lr=1e38)
    with pytest.raises(TrainingDiverged, match="the last good checkpoint is in"):
        train(given(config, images), config, out=tmp_path)
    for model in load_models(tmp_path).values():
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@every
@pytest.mark.parametrize("channels", [2, 3])
def test_images_of_any_channels_can_be_trained_on(name: str, channels: int) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (9, channels, 16, 16)).astype(np.float32)
    config = dataclasses.replace(SHORT[name], steps=2)
    result = train(given(config, images), config)
    if "generator" in result.models:
        assert result.generator(torch.zeros(2, 4)).shape == (2, channels, 16, 16)
    if "encoder" in result.models:
        assert len(result.encoder(torch.zeros(2, channels, 16, 16))) == 2


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *((kind, "lr", 0.0) for kind in SHORT),
        *((kind, "latent", 0) for kind in SHORT),
        ("gan", "betas", (0.5, 1.0)),
        ("gan", "objective", "hinge"),
        ("vae", "scale", -1.0),
        ("vae", "scale", "learned"),
        ("gmmn", "bandwidths", ()),
        ("gmmn", "bandwidths", (1.0, 0.0)),
        ("gmmn", "bandwidths", 2.0),
        ("svdd", "weight_decay", -1e-6),
        ("svdd", "weight_decay", True),
        ("svdd", "pretrain_steps", 0.5),
        ("dcae", "steps", -1),
        ("bigan", "device", "toaster"),
        ("inverse", "width", 0),
    ],
)
def test_a_bad_setting_is_named(name: str, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SHORT[name], **{field: value})


def test_settings_without_an_objective_are_refused(images: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"config must be one of WGANConfig, GANConfig, .*got a TrainConfig"):
        train(images, TrainConfig())


@pytest.mark.parametrize("name", [name for name in SHORT if name != "inverse"])
def test_images_that_cannot_be_trained_on_are_described(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8, 16, 28, 32, 64"):
        train(np.zeros((4, 1, 9, 9), np.uint8), SHORT[name], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_as_one_of_another_objective(images: np.ndarray, tmp_path: Path) -> None:
    train(images, SHORT["gan"], out=tmp_path)
    with pytest.raises(CheckpointError, match="a checkpoint of 'gan', not of 'vae'"):
        train(images, SHORT["vae"], out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="other settings: objective 'non_saturating' there, 'least_squares' here"):
        train(images, SHORT["lsgan"], out=tmp_path, resume=True)


def test_the_settings_of_every_objective_begin_with_the_papers_latent_or_say_why_not() -> None:
    for kind in OBJECTIVES:
        own = kind().latent == WGANConfig().latent == 256
        assert own or "latent:" in (kind.__doc__ or ""), kind
    assert InverseConfig().steps == WGANConfig().steps
