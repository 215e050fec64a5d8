"""Settings and images that cannot be trained with are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from adgan_fast import SearchConfig
from adgan_fast.training import (
    WGANConfig,
    train,
)
from tests.support.wgan import SMALL, assert_same

pytestmark = pytest.mark.usefixtures("sigint_heard", "one_thread")


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
        (SearchConfig(), r"config must be one of WGANConfig.*, got a SearchConfig"),
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
