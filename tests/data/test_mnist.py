"""MNIST's idx files: what was stored comes back, what is damaged is described."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adgan_fast.data import (
    load_mnist,
    read_idx,
)
from tests.support.paths import SHARED
from tests.support.pictures import random_bytes


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(
    folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str = "train", zipped: bool = True
) -> None:
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        data = idx(array)
        path = folder / f"{prefix}-{name}{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data) if zipped else data)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_mnist_comes_back_as_it_was_stored(tmp_path: Path, zipped: bool, split: Any, prefix: str) -> None:
    images, labels = random_bytes(7, 28, 28), np.arange(7, dtype=np.uint8)
    write_mnist(tmp_path, images, labels, prefix, zipped)
    loaded = load_mnist(tmp_path, split)
    assert np.array_equal(loaded.images, images[:, None])
    assert loaded.labels is not None
    assert loaded.labels.dtype == np.int64
    assert np.array_equal(loaded.labels, labels)


def test_mnist_files_may_have_a_dot_in_their_name(tmp_path: Path) -> None:
    write_mnist(tmp_path, random_bytes(2, 28, 28), np.zeros(2, np.uint8), zipped=False)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load_mnist(tmp_path)) == 2


@settings(max_examples=25, deadline=None)
@given(shape=st.lists(st.integers(0, 4), min_size=1, max_size=4), cut=st.integers(1, 300), zipped=st.booleans())
def test_any_idx_file_round_trips_and_any_cut_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], cut: int, zipped: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    array = random_bytes(*shape)
    data = idx(array)
    pack = gzip.compress if zipped else bytes
    path.write_bytes(pack(data))
    assert np.array_equal(read_idx(path), array)
    path.write_bytes(pack(data[: -min(cut, len(data))]))
    with pytest.raises(ValueError, match=str(path)):
        read_idx(path)
    path.write_bytes(pack(data + b"x"))
    with pytest.raises(ValueError, match="found more"):
        read_idx(path)


def test_damaged_idx_files_are_described(tmp_path: Path) -> None:
    path = tmp_path / "file"
    good = idx(random_bytes(3, 4, 4))
    for data, message in [
        (b"", "starts with nothing, expected 00 00 08 03"),
        (b"\x00\x00\x08\x01" + good[4:], "starts with 00 00 08 01, expected 00 00 08 03"),
        (b"\x00\x00\x0d\x03" + good[4:], "starts with 00 00 0d 03"),
        (b"<htm" + good[4:], "starts with 3c 68 74 6d"),
        (good[:9], "cut short in its header: 9 bytes, expected 16"),
        (good[:-5], "announces 3x4x4 = 48 bytes of data, found 43 bytes"),
        (good + b"!", "= 48 bytes of data, found more"),
        (good[:4] + b"\xff" * 12 + good[16:], "found 48 bytes"),  # no attempt to reserve 2**96 bytes
        (gzip.compress(good)[:-12], "gzip data is cut short or damaged"),
        (gzip.compress(good)[:-6] + b"\xff\xff" + gzip.compress(good)[-4:], "gzip data is cut short or damaged"),
        (good[:4] + bytes(4) + b"\xff" * 8, "a shape that no array can have"),
    ]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message) as caught:
            read_idx(path, dimensions=3)
        assert str(path) in str(caught.value)


def test_incomplete_mnist_folders_are_described(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_mnist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds none of train-images-idx3-ubyte, .*\.gz"):
        load_mnist(tmp_path)
    write_mnist(tmp_path, random_bytes(3, 28, 28), np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="4 labels for the 3 images"):
        load_mnist(tmp_path)
    with pytest.raises(ValueError, match="split must be"):
        load_mnist(tmp_path, "validation")  # type: ignore[arg-type]


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="MNIST is not in ../shared/data/mnist")
def test_the_real_mnist_has_its_known_counts() -> None:
    test = load_mnist(SHARED / "mnist", "test")
    assert test.images.shape == (10_000, 1, 28, 28)
    assert test.labels is not None
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert len(load_mnist(SHARED / "mnist")) == 60_000
