"""Arrays in .npy and .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adgan_fast.data import (
    load_arrays,
)
from tests.support.pictures import random_bytes


def test_arrays_come_back_from_npy_and_npz(tmp_path: Path) -> None:
    images, labels = random_bytes(4, 3, 6, 5), np.array([0, 1, 1, 0])
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "a.npz", pictures=images, labels=labels)
    np.savez_compressed(tmp_path / "last.npz", pictures=images.transpose(0, 2, 3, 1), kind=labels.astype(np.uint8))
    assert np.array_equal(load_arrays(tmp_path / "a.npy").images, images)
    loaded = load_arrays(tmp_path / "a.npz")
    assert np.array_equal(loaded.images, images)
    assert loaded.of_class(1).images.shape == (2, 3, 6, 5)
    loaded = load_arrays(tmp_path / "last.npz", labels="kind")
    assert np.array_equal(loaded.images, images)
    assert loaded.labels is not None
    assert loaded.labels.tolist() == labels.tolist()
    np.save(tmp_path / "grey.npy", images[:, 0])
    assert np.array_equal(load_arrays(tmp_path / "grey.npy").images, images[:, :1])
    np.save(tmp_path / "float.npy", images / 127.5 - 1)
    assert load_arrays(tmp_path / "float.npy").images.dtype == np.float32
    np.save(tmp_path / "square.npy", random_bytes(2, 3, 3, 3))
    assert load_arrays(tmp_path / "square.npy", layout="NHWC").images.shape == (2, 3, 3, 3)


def test_arrays_that_are_no_images_are_described(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, message in [
        (random_bytes(2, 3, 3, 3), "layout="),
        (random_bytes(2, 5, 6, 7), "layout="),
        (random_bytes(5, 5), "shape"),
        (np.zeros((2, 4, 4)) + 7, r"\[-1, 1\]"),
        (np.zeros((2, 4, 4), np.int32), "int32"),
        (np.array([object()]), r"not a \.npy or \.npz file of plain numbers"),
    ]:
        np.save(path, array, allow_pickle=True)
        with pytest.raises(ValueError, match=message) as caught:
            load_arrays(path)
        assert str(path) in str(caught.value)
    path.write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"a\.npy"):
        load_arrays(path)
    path = tmp_path / "a.npz"
    np.savez(path, a=random_bytes(2, 4, 4), b=random_bytes(2, 4, 4))
    with pytest.raises(ValueError, match="candidates: a, b: name it by images= \\(--column\\)"):
        load_arrays(path)
    assert len(load_arrays(path, images="b")) == 2
    with pytest.raises(ValueError, match="holds no c, but a, b"):
        load_arrays(path, images="c")
    np.savez(path, a=random_bytes(2, 4, 4), y=np.arange(3))
    with pytest.raises(ValueError, match="labels must have one entry for each of 2 images, got 3"):
        load_arrays(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_arrays(tmp_path / "nowhere.npy")
