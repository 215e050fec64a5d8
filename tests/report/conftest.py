"""Jobs that several tests report on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import reported


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported.pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def job(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images with scores and reconstructions in 3 parts, and one that is no picture."""
    return reported.scored(images, tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="session")
def evil_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported.evil(tmp_path_factory.mktemp("evil"))
