"""What the commands' tests share: a folder with images and a generator, and a command run in it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from adgan_fast.cli import main
from adgan_fast.models import DCGANGenerator
from adgan_fast.training import save_generator
from tests.support.pictures import random_bytes, write_picture

Told = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 8 by 8 in two classes (images/), an .npy of them in their order, and a generator of such."""
    folder = tmp_path_factory.mktemp("cli")
    pixels = random_bytes(7, 1, 8, 8)
    for index, image in enumerate(pixels):
        write_picture(folder / "images" / ("cat" if index < 4 else "dog") / f"{index}.png", image[0])
    np.save(folder / "images.npy", pixels)
    save_generator(DCGANGenerator(8, 1, 6, 4, generator=torch.Generator().manual_seed(0)), folder / "g.safetensors")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of what was made."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """A command's exit status, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return run
