"""``adgan-fast train``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adgan_fast import training
from adgan_fast.cli.train import OBJECTIVES
from adgan_fast.training import VAEConfig, WGANConfig, load_generator, load_models
from tests.support.pictures import random_bytes, write_picture

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["--steps", "2", "--width", "4", "--latent", "4", "--batch-size", "4", "-q"]


def test_the_weights_are_those_of_the_package(here: Path, told) -> None:
    status, out, err = told("train", "images", "--out", "run", *SMALL)
    assert status == 0 and err == "" and out == "2 steps; run/generator.safetensors\n"
    config = WGANConfig(steps=2, width=4, latent=4, batch_size=4)
    want = training.train(np.load("images.npy"), config).generator.state_dict()
    found = load_generator("run/generator.safetensors").state_dict()
    assert all(torch.equal(found[name], want[name]) for name in want)


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "inverse"])
def test_every_objective_by_its_name(objective: str, here: Path, told) -> None:
    status, out, err = told("train", "images", "--out", "run", "--objective", objective, *SMALL, "--json")
    assert status == 0, err
    assert json.loads(out) == {"step": 2, "out": "run", "objective": objective, "unreadable": 0, "images": 7}
    assert load_models("run")


def test_the_inverse_of_a_generator(here: Path, told) -> None:
    options = ["--steps", "2", "--width", "4", "--latent", "6", "-q"]
    status, out, err = told("train", "g.safetensors", "--out", "run", "--objective", "inverse", *options)
    assert status == 0, err
    assert "encoder" in load_models("run") and out == "2 steps; the networks are in run\n"


def test_a_run_goes_on_with_resume_and_is_not_overwritten(here: Path, told) -> None:
    assert told("train", "images", "--out", "run", *SMALL)[0] == 0
    status, _, err = told("train", "images", "--out", "run", *SMALL)
    assert status == 2 and "run holds a checkpoint: --resume goes on from it" in err
    longer = ["--steps", "4", *SMALL[2:]]
    assert told("train", "images", "--out", "run", *longer, "--resume")[0] == 0
    want = training.train(np.load("images.npy"), WGANConfig(steps=4, width=4, latent=4, batch_size=4)).generator
    found = load_generator("run").state_dict()
    assert all(torch.equal(found[name], value) for name, value in want.state_dict().items())
    status, _, err = told("train", "images", "--out", "run", *longer, "--resume", "--lr", "0.1")
    assert status == 1 and "other settings: lr" in err and "Another --out begins anew" in err


def test_pictures_of_many_shapes_are_brought_to_one_by_options(here: Path, told) -> None:
    write_picture(here / "images" / "large.png", random_bytes(20, 30, 3))
    status, _, err = told("train", "images", "--out", "run", *SMALL)
    assert status == 2 and "'large.png' has shape (3, 20, 30), but 'cat/0.png' has (1, 8, 8): --size, and" in err
    assert told("train", "images", "--out", "run", *SMALL, "--size", "16", "--gray", "--resize", "crop")[0] == 0
    assert load_generator("run").config["image_size"] == 16


def test_pictures_that_cannot_be_read_are_left_out_and_told(here: Path, told) -> None:
    (here / "images" / "a.png").write_bytes(b"no picture")
    status, out, err = told("train", "images", "--out", "run", *SMALL, "--json")
    assert status == 3 and json.loads(out)["unreadable"] == 1 and json.loads(out)["images"] == 7
    assert "could not be read: 'a.png': not a picture" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["images", "--objective", "vea"], "--objective must be one of wgan, wgan-gp"),
        (
            ["images", "--objective", "vae", "--clip", "3"],
            "--clip is no setting of vae; its settings are --average, --batch-size",
        ),
        (["images", "--steps", "-1"], "steps must be"),
        (["images", "--size", "9"], "H one of 8, 16, 28, 32, 64, got (7, 1, 9, 9): --size brings pictures to it"),
        (["images", "--resize", "crop"], "--resize crop needs --size"),
        (["images", "--device", "abacus"], "is not a torch device"),
        (["empty"], "empty: holds no image"),
        (["nowhere.safetensors", "--objective", "inverse"], "no generator here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_on_stderr(arguments: list[str], words: str, here: Path, told) -> None:
    (here / "empty").mkdir()
    status, out, err = told("train", *arguments, "--out", "run")
    assert status == 2 and out == "" and words in err and err.count("\n") == 1


def test_what_fails_on_the_way_has_its_status(here: Path, told, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status, words in (
        (training.TrainingDiverged(3, "loss is nan", None), 1, "training diverged at step 3"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (KeyboardInterrupt(), 130, "the same command with --resume goes on"),
    ):

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(training, "train", fail)
        found, out, err = told("train", "images", "--out", "run", *SMALL)
        assert (found, out) == (status, "") and words in err and err.count("\n") == 1


def test_settings_of_an_objective_reach_it(here: Path, told, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def keep(images: np.ndarray, config: object, **_: object) -> training.TrainResult:
        seen.append(config)
        return training.TrainResult({}, {}, 0)

    monkeypatch.setattr(training, "train", keep)
    assert told("train", "images", "--out", "r", "--objective", "vae", "--scale", "0.5", "--betas", "0.1,0.2")[0] == 0
    assert told("train", "images", "--out", "r", "--objective", "wgan-gp", "--critic-boost", "--norm", "none")[0] == 0
    assert seen[0] == VAEConfig(scale=0.5, betas=(0.1, 0.2))
    assert seen[1] == WGANConfig(objective="gp", critic_boost=True, norm="none")
