"""Files of a training: whole or not there, and running no code."""

from __future__ import annotations

import itertools
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adgan_fast.models import DCGANCritic, DCGANGenerator
from adgan_fast.training import (
    CheckpointError,
    checkpoint,
    load_generator,
    loop,
    save_generator,
    train,
)
from tests.support.wgan import SMALL

pytestmark = pytest.mark.usefixtures("sigint_heard", "one_thread")


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


def test_a_folder_that_holds_a_generator_alone_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint here$"):
        load_generator(tmp_path)
    save_generator(DCGANGenerator(8, 1, 4, 2), tmp_path / "generator.safetensors")
    with pytest.raises(FileNotFoundError, match=r"named by its file: .*generator\.safetensors$"):
        load_generator(tmp_path)


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
    for source in (path, tmp_path / "run" / loop.GENERATOR_FILE, tmp_path / "run", tmp_path / "run/checkpoint.json"):
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
    torch.save(DCGANGenerator(8, 1, 4, 2), tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=r"file\.pt: .* A pickle is never read: load its weights"):
        load_generator(tmp_path / "file.pt")
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
