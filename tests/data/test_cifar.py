"""CIFAR-10's batches and arrays: what was stored comes back, what is damaged is described."""

from __future__ import annotations

import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from adgan_fast.data import (
    CIFAR10_CLASSES,
    load_cifar10,
)
from tests.support.paths import SHARED
from tests.support.pictures import random_bytes


def cifar_batches(count: int = 4) -> dict[str, tuple[np.ndarray, list[int]]]:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {n: (random_bytes(count, 3072, seed=i), [(i + j) % 10 for j in range(count)]) for i, n in enumerate(names)}


def python2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """As Python 2 wrote the original files: protocol 2, text as byte strings, and an array by numpy's own names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def whole(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    raw = pixels.tobytes()
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + whole(0) + whole(1) + b"\x87R"
    dtype += b"(" + whole(3) + text(b"|") + b"NNN" + whole(-1) + whole(-1) + whole(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + whole(0) + b"\x85" + text(b"b") + b"\x87R"
    shape = whole(pixels.shape[0]) + whole(pixels.shape[1]) + b"\x86"
    array += b"(" + whole(1) + shape + dtype + b"\x89" + b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    names = b"](" + b"".join(text(b"image_%d.png" % i) for i in range(len(labels))) + b"e"
    listed = b"](" + b"".join(map(whole, labels)) + b"e"
    items = text(b"data") + array + text(b"labels") + listed + text(b"filenames") + names
    return b"\x80\x02}(" + items + b"u."


def write_batches(folder: Path, protocol: int | None) -> dict[str, tuple[np.ndarray, list[int]]]:
    folder.mkdir()
    batches = cifar_batches()
    for name, (pixels, labels) in batches.items():
        data = (
            pickle.dumps({"data": pixels, "labels": labels}, protocol) if protocol else python2_pickle(pixels, labels)
        )
        (folder / name).write_bytes(data)
    return batches


@pytest.mark.parametrize("protocol", [None, 1, 2, 3, 4, 5], ids=lambda p: f"protocol {p}" if p else "python 2")
def test_original_cifar_batches_come_back_as_they_were_stored(tmp_path: Path, protocol: int | None) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    batches = write_batches(folder, protocol)
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-py")
    training = np.concatenate([batches[f"data_batch_{number}"][0] for number in range(1, 6)])
    for path in (folder, tmp_path, tmp_path / "cifar-10-python.tar.gz"):
        train, test = load_cifar10(path, "train"), load_cifar10(path, "test")
        assert np.array_equal(train.images, training.reshape(-1, 3, 32, 32))
        assert np.array_equal(test.images, batches["test_batch"][0].reshape(-1, 3, 32, 32))
        assert test.labels is not None
        assert test.labels.tolist() == batches["test_batch"][1]
        assert test.classes == CIFAR10_CLASSES
        assert test.names == (None if protocol else tuple(f"image_{i}.png" for i in range(4)))


def test_python2_pickles_of_this_test_are_pickles() -> None:
    pixels, labels = random_bytes(2, 3072), [3, 4]
    loaded = pickle.loads(python2_pickle(pixels, labels), encoding="bytes")
    assert np.array_equal(loaded[b"data"], pixels)
    assert loaded[b"labels"] == labels


def test_incomplete_or_damaged_cifar_files_are_described(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_batches(folder, None)
    sound = (folder / "test_batch").read_bytes()
    for data, message in [
        (b"", "not a plain pickle"),
        (sound[:-100], "not a plain pickle"),
        (pickle.dumps([1, 2]), "holds a list, expected a dict"),
        (pickle.dumps({"labels": []}), "data is a NoneType, expected an array"),
        (
            pickle.dumps({"data": np.zeros((2, 3)), "labels": []}),
            r"data is float64 \(2, 3\), expected uint8 \(N, 3072\)",
        ),
        (pickle.dumps({"data": random_bytes(2, 3072), "labels": [1]}), "labels are not a list of 2 whole numbers"),
        (pickle.dumps({"data": random_bytes(1, 3072), "labels": ["1"]}), "labels are not a list of 1 whole numbers"),
    ]:
        (folder / "test_batch").write_bytes(data)
        with pytest.raises(ValueError, match=message) as caught:
            load_cifar10(folder, "test")
        assert "test_batch" in str(caught.value)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": random_bytes(1, 3072), "labels": [10]}))
    with pytest.raises(ValueError, match=r"1 labels in 0\.\.9"):
        load_cifar10(folder, "test")
    (folder / "data_batch_3").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_3"):
        load_cifar10(folder)
    archive = tmp_path / "c.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-py")
    with pytest.raises(ValueError, match="holds no data_batch_3"):
        load_cifar10(archive)
    archive.write_bytes(archive.read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"c\.tar\.gz"):
        load_cifar10(archive)


def test_cifar_npz_comes_back_channels_first(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    pixels, labels = random_bytes(6, 32, 32, 3), np.arange(6, dtype=np.uint8)
    np.savez(path, x_train=pixels, y_train=labels[:, None], x_test=pixels[:2], y_test=labels[:3])
    loaded = load_cifar10(path)
    assert np.array_equal(loaded.images, pixels.transpose(0, 3, 1, 2))
    assert loaded.labels is not None
    assert loaded.labels.tolist() == labels.tolist()
    assert np.array_equal(loaded.of_class("deer").images, loaded.images[4:5])
    with pytest.raises(ValueError, match=r"expected 2 labels in 0\.\.9, found 3"):
        load_cifar10(path, "test")
    np.savez(path, x_train=pixels[:, :16], y_train=labels)
    with pytest.raises(ValueError, match=r"x_train is uint8 \(6, 16, 32, 3\), expected uint8 \(N, 32, 32, 3\)"):
        load_cifar10(path)
    with pytest.raises(ValueError, match="holds no x_test, but x_train, y_train"):
        load_cifar10(path, "test")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"c\.npz"):
        load_cifar10(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_cifar10(tmp_path / "nowhere.npz")


@pytest.mark.skipif(not (SHARED / "cifar10.npz").is_file(), reason="CIFAR-10 is not in ../shared/data/cifar10.npz")
def test_the_real_cifar10_has_its_known_counts() -> None:
    test = load_cifar10(SHARED / "cifar10.npz", "test")
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.labels is not None
    assert np.bincount(test.labels).tolist() == [1000] * 10
    # Ships lie on blue water, frogs do not: channels and labels are where they should be.
    blue = {name: test.of_class(name).images.mean((0, 2, 3)) for name in ("ship", "frog")}
    assert blue["ship"][2] > blue["ship"][0]
    assert blue["frog"][2] < blue["frog"][0]
