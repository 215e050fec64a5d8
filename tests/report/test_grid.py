"""Images in a grid, in one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adgan_fast.data.images import grid, save_grid
from tests.support.pictures import random_bytes


def test_a_grid_shows_every_image_in_its_place(tmp_path: Path) -> None:
    images = random_bytes(5, 3, 4, 6)
    picture = grid(images, columns=3, pad=1)
    assert picture.shape == (2 * 5 + 1, 3 * 7 + 1, 3)
    assert np.array_equal(picture[6:10, 8:14], images[4].transpose(1, 2, 0))
    assert (picture[6:10, 15:21] == 128).all()
    floats = torch.tensor([-1.0, 0.0, 1.0, 7.0, float("nan")]).reshape(5, 1, 1, 1)
    assert grid(floats, columns=5, pad=0).tolist() == [[0, 128, 255, 255, 0]]
    save_grid(images, tmp_path / "grid.png", 3, scale=2)
    with Image.open(tmp_path / "grid.png") as saved:
        assert np.array_equal(np.asarray(saved)[::2, ::2], picture)
    for bad in (images[:0], images[0], random_bytes(2, 2, 4, 4)):
        with pytest.raises(ValueError, match="images must have shape"):
            grid(bad)
    for name, value in (("columns", 2.5), ("columns", 0), ("pad", -1), ("scale", True)):
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            save_grid(images, tmp_path / "grid.png", **{name: value})  # type: ignore[arg-type]


def test_a_grid_takes_bfloat16_and_numpys_numbers() -> None:
    images = torch.tensor([-1.0, 1.0], dtype=torch.bfloat16).reshape(2, 1, 1, 1)
    assert grid(images, np.int64(2), pad=np.int32(0)).tolist() == [[0, 255]]  # type: ignore[arg-type]


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_grid(random_bytes(2, 1, 4, 4), tmp_path / "grid.png")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_grid(random_bytes(9, 1, 8, 8), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
