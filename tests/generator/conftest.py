"""Exported programs, made once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.exports import build, dcgan, export, save


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[torch.export.ExportedProgram, Path]]:
    """(program, file) of a generator of the list above; made once, since export takes about a second."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def make_once(make: Callable[[], nn.Module], how: str = "dynamic", decomposed: bool = False) -> Any:
        program = export(build(make), how, decomposed)
        return program, save(program, folder / f"{make.__name__}_{how}_{decomposed}.pt2")

    return make_once


@pytest.fixture
def pt2(saved) -> Path:
    return saved(dcgan)[1]
