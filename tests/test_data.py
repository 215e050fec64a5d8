"""Loaders: what was stored comes back, what is damaged is named, and no file runs code."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adgan_fast.data import (
    CIFAR10_CLASSES,
    ImageSet,
    load_arrays,
    load_cifar10,
    load_digits,
    load_folder,
    load_mnist,
    read_idx,
    to_model_range,
)
from adgan_fast.data.images import grid, save_grid

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def random_bytes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# ImageSet and scaling


def test_subsets_keep_images_labels_and_names_together() -> None:
    images = random_bytes(5, 1, 2, 2)
    whole = ImageSet(images, np.array([1, 0, 1, 2, 0]), tuple("abcde"), ("x", "y", "z", "empty"))
    ones = whole.of_class(1)
    assert np.array_equal(ones.images, images[[0, 2]])
    assert ones.names == ("a", "c")
    assert whole.of_class("x").names == ("b", "e")
    assert whole.subset(slice(3, None)).names == ("d", "e")
    assert whole.subset(whole.labels != 0).names == ("a", "c", "d")
    assert whole.subset([4, 0]).labels.tolist() == [0, 1]  # type: ignore[union-attr]
    assert len(whole.subset([False] * 5)) == 0
    with pytest.raises(ValueError, match=r"label 3; the labels are \[0, 1, 2\]"):
        whole.of_class("empty")
    with pytest.raises(ValueError, match="no class named 'w'"):
        whole.of_class("w")
    with pytest.raises(ValueError, match="no labels"):
        ImageSet(images).of_class(0)


def test_an_image_set_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(5, 2, 2\)"):
        ImageSet(random_bytes(5, 2, 2))
    with pytest.raises(ValueError, match="labels must have one entry for each of 5 images, got 4"):
        ImageSet(random_bytes(5, 1, 2, 2), np.arange(4))
    with pytest.raises(ValueError, match="names must have"):
        ImageSet(random_bytes(5, 1, 2, 2), names=("a",))


def test_scaling_is_the_contracts() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    scaled = to_model_range(every)
    assert scaled.dtype == np.float32
    assert (scaled.min(), scaled.max()) == (-1, 1)
    np.testing.assert_allclose(scaled, every / 127.5 - 1, atol=1e-7)
    assert torch.equal(to_model_range(torch.from_numpy(every)), torch.from_numpy(scaled))
    assert np.array_equal(to_model_range(scaled.astype(np.float64)), scaled)
    for bad in (every.astype(np.float32), np.full((1, 1, 2, 2), np.nan), np.full((1, 1, 2, 2), -1.01)):
        with pytest.raises(ValueError, match=r"\[-1, 1\]|NaN"):
            to_model_range(bad)
    with pytest.raises(TypeError, match="int64"):
        to_model_range(every.astype(np.int64))


def test_digits_are_scaled_to_the_generators_range() -> None:
    digits = load_digits()
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype == np.float32
    assert (digits.images.min(), digits.images.max()) == (-1, 1)
    assert digits.labels is not None
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(digits.of_class("7")) == 179


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        load_digits()


# MNIST idx


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


# CIFAR-10


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


# Arrays


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
    with pytest.raises(ValueError, match="candidates: a, b: name it by images="):
        load_arrays(path)
    assert len(load_arrays(path, images="b")) == 2
    with pytest.raises(ValueError, match="holds no c, but a, b"):
        load_arrays(path, images="c")
    np.savez(path, a=random_bytes(2, 4, 4), y=np.arange(3))
    with pytest.raises(ValueError, match="labels must have one entry for each of 2 images, got 3"):
        load_arrays(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_arrays(tmp_path / "nowhere.npy")


# Folders


def write_picture(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    grey = {name: random_bytes(5, 6, seed=seed) for seed, name in enumerate(["b.png", "a.bmp", "c.PNG"])}
    for name, pixels in grey.items():
        write_picture(tmp_path / name, pixels, format=name[-3:].upper())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    loaded = load_folder(tmp_path)
    assert loaded.names == ("a.bmp", "b.png", "c.PNG")
    assert loaded.labels is None
    assert np.array_equal(loaded.images, np.stack([grey[name] for name in loaded.names])[:, None])
    assert np.array_equal(load_folder(tmp_path, channels=3).images, loaded.images.repeat(3, 1))


def test_subfolders_are_classes(tmp_path: Path) -> None:
    colour = {f"{kind}/{i}.png": random_bytes(4, 4, 3, seed=i) for i, kind in enumerate(["dog", "cat", "dog", "ant"])}
    for name, pixels in colour.items():
        write_picture(tmp_path / name, pixels)
    (tmp_path / "empty").mkdir()
    loaded = load_folder(tmp_path)
    assert loaded.classes == ("ant", "cat", "dog")
    assert loaded.names == ("ant/3.png", "cat/1.png", "dog/0.png", "dog/2.png")
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1, 2, 2]
    expected = np.stack([colour[name] for name in loaded.names]).transpose(0, 3, 1, 2)
    assert np.array_equal(loaded.images, expected)
    write_picture(tmp_path / "stray.png", random_bytes(4, 4, 3))
    with pytest.raises(ValueError, match="1 pictures lie beside class folders"):
        load_folder(tmp_path)


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", np.full((4, 6), 10, np.uint8))
    write_picture(tmp_path / "b.png", np.full((8, 8, 3), 200, np.uint8))
    with pytest.raises(ValueError, match=r"b\.png: 8x8 pixels, a\.png has 4x6: give size="):
        load_folder(tmp_path)
    loaded = load_folder(tmp_path, size=(5, 7))
    assert loaded.images.shape == (2, 3, 5, 7)
    assert (loaded.images[0] == 10).all()
    assert (loaded.images[1] == 200).all()
    assert load_folder(tmp_path, size=8, channels=1).images.shape == (2, 1, 8, 8)
    for bad in (0, (4, 4, 4)):
        with pytest.raises(ValueError, match="size must be"):
            load_folder(tmp_path, size=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        load_folder(tmp_path, channels=4)


def test_pictures_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    pixels = random_bytes(4, 6)
    write_picture(tmp_path / "a.png", pixels, exif=exif)
    assert np.array_equal(load_folder(tmp_path).images[0, 0], np.rot90(pixels, -1))


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures"):
        load_folder(tmp_path)
    write_picture(tmp_path / "a.png", random_bytes(32, 32))
    sound = (tmp_path / "a.png").read_bytes()
    for data in (b"", b"no picture", sound[: len(sound) // 2]):
        (tmp_path / "b.png").write_bytes(data)
        with pytest.raises(ValueError, match=r"b\.png: not a picture, or a damaged one"):
            load_folder(tmp_path)
    write_picture(tmp_path / "b.png", np.full((32, 32), 3000, np.uint16))
    with pytest.raises(ValueError, match=r"b\.png: more than 8 bits"):
        load_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "TIFF, compressed"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_put_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = np.zeros((8, 16), np.uint8)
    upright[:4, :4], upright[:4, -4:], upright[-4:, :4] = 255, 170, 85  # three corners tell every turn
    stored = {
        2: upright[:, ::-1], 3: np.rot90(upright, 2), 4: upright[::-1], 5: upright.T, 6: np.rot90(upright),
        7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }.get(orientation, upright)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if kind.endswith("compressed") else {"quality": 100} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    write_picture(tmp_path / "a.png", np.ascontiguousarray(stored), format=kind[:4], exif=exif, **options)
    found = load_folder(tmp_path, channels=1).images[0, 0]
    np.testing.assert_allclose(found.astype(int), upright, atol=3)


def png(pixels: np.ndarray, colour: int, *chunks: tuple[bytes, bytes], depth: int | None = None) -> bytes:
    """A PNG, its bytes written one by one: rows of unfiltered samples, (H, W, samples) of 8 or 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, depth or 8 * pixels.itemsize, colour, 0, 0, 0)
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


BROKEN_EXIF = {
    "nothing": b"",
    "no header": b"\xff" * 10,
    "cut short": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    "a text": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x03ab\0\0",
    "a 9": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0",
}


@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_broken_exif_is_no_orientation(tmp_path: Path, exif: str) -> None:
    pixels = random_bytes(4, 6, 1)
    (tmp_path / "a.png").write_bytes(png(pixels, 0, (b"eXIf", BROKEN_EXIF[exif])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(load_folder(tmp_path).images[0, 0], pixels[..., 0])


@pytest.mark.parametrize(
    ("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "RGB", "grey and alpha", "RGBA"]
)
def test_more_than_8_bits_a_channel_are_never_cut(tmp_path: Path, colour: int, samples: int) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(png(np.full((4, 6, samples), 200, np.uint8), colour))
    assert (load_folder(tmp_path).images == 200).all()
    path.write_bytes(png(np.full((4, 6, samples), 200, np.uint16), colour))  # 12 bits of a camera, say: cut, all black
    for options in ({}, {"size": 8}, {"channels": 1}):
        with pytest.raises(ValueError, match=r"deep\.png: more than 8 bits a channel, expected 8: convert") as caught:
            load_folder(tmp_path, **options)  # type: ignore[arg-type]
        assert "load_arrays" in str(caught.value)


def test_16_bits_of_a_tiff_are_refused_and_of_a_ppm_scaled(tmp_path: Path) -> None:
    pixels = np.full((4, 6, 3), 51400, np.uint16)  # 200 of 255
    after = 8 + 2 + 9 * 12 + 4  # of head and directory: three sizes of a sample, and then the pixels
    entries = [(256, 6), (257, 4), (259, 1), (262, 2), (273, after + 6), (277, 3), (278, 4), (279, pixels.nbytes)]
    directory = struct.pack("<HHII", 258, 3, 3, after)
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 9)
    (tmp_path / "a.tif").write_bytes(head + directory + bytes(4) + struct.pack("<HHH", 16, 16, 16) + pixels.tobytes())
    with pytest.raises(ValueError, match=r"a\.tif: more than 8 bits a channel"):
        load_folder(tmp_path)
    (tmp_path / "a.tif").unlink()
    (tmp_path / "a.ppm").write_bytes(b"P6 6 4 65535\n" + pixels.astype(">u2").tobytes())
    assert (load_folder(tmp_path).images == 200).all()


def test_grey_palettes_are_grey(tmp_path: Path) -> None:
    pixels = random_bytes(5, 6)
    write_picture(tmp_path / "a.gif", pixels)
    indices = np.arange(30, dtype=np.uint8).reshape(5, 6, 1) % 4
    palette = bytes([9, 9, 9, 90, 90, 90, 200, 200, 200, 30, 30, 30, 255, 0, 0])  # the last, red, is never used
    (tmp_path / "b.png").write_bytes(png(indices, 3, (b"PLTE", palette)))
    loaded = load_folder(tmp_path)
    assert loaded.images.shape == (2, 1, 5, 6)
    assert np.array_equal(loaded.images[0, 0], pixels)
    assert np.array_equal(loaded.images[1, 0], np.array([9, 90, 200, 30], np.uint8)[indices[..., 0]])
    indices[0, 0] = 4
    (tmp_path / "b.png").write_bytes(png(indices, 3, (b"PLTE", palette)))
    loaded = load_folder(tmp_path)
    assert loaded.images.shape == (2, 3, 5, 6)
    assert loaded.images[1, :, 0, 0].tolist() == [255, 0, 0]


def test_what_systems_and_editors_leave_behind_is_passed_over(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "dog/more/2.png"):
        write_picture(tmp_path / name, random_bytes(4, 4))
    expected = load_folder(tmp_path)
    for name in (
        ".hidden/1.png", "__MACOSX/dog/1.png", "dog/__MACOSX/1.png", "dog/.ipynb_checkpoints/1-checkpoint.png",
        "dog/more/.x/y/3.png", "dog/.3.png",
    ):  # fmt: skip
        write_picture(tmp_path / name, random_bytes(9, 9))
    for name in (".DS_Store", "dog/.DS_Store", "dog/._1.png", "dog/Thumbs.db"):
        (tmp_path / name).write_bytes(b"no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_folder(tmp_path)
    assert loaded.names == expected.names == ("cat/1.png", "dog/1.png", "dog/more/2.png")
    assert np.array_equal(loaded.images, expected.images)


def test_links_are_followed_or_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "elsewhere/1.png", random_bytes(4, 4))
    root = tmp_path / "root"
    write_picture(root / "cat/1.png", random_bytes(4, 4))
    (root / "cat/2.png").symlink_to(tmp_path / "elsewhere/1.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_folder(root).names == ("cat/1.png", "cat/2.png", "dog/1.png")
    (root / "cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "cat/more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "cat/round").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat/.gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "owl").symlink_to(root / "owl")
    with pytest.warns(UserWarning, match="links that lead nowhere or to folders") as caught:
        loaded = load_folder(root)
    assert loaded.names == ("cat/1.png", "cat/2.png", "dog/1.png")
    assert f"{root}: passed over 4 links" in str(caught[0].message)
    assert "cat/gone.png, cat/more, cat/round, owl: copy" in str(caught[0].message)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="passed over 1 links"), pytest.raises(ValueError, match="no pictures"):
        (tmp_path / "flat").mkdir()
        (tmp_path / "flat/a.png").symlink_to("nowhere")
        load_folder(tmp_path / "flat")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp"])
def test_a_picture_cut_short_anywhere_is_named_or_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    write_picture(path, random_bytes(6, 7, 3))
    data = path.read_bytes()
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        try:
            load_folder(tmp_path)  # what is missing may be an end mark alone
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 20


def test_a_decompression_bomb_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "big.png", random_bytes(10, 30))
    for limit in (200, 100):  # between this and twice this Pillow but warns, without a name
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=r"big\.png: too many pixels .*MAX_IMAGE_PIXELS"):
            load_folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert len(load_folder(tmp_path)) == 1


def test_an_empty_file_and_a_program_in_a_pictures_name_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    for data, message in [(b"", "the file is empty"), (script, "none of BMP")]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{path}: not a picture, .*{message}"):
            load_folder(tmp_path)


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of a user whom permissions bind: root is not bound, so the effective user changes meanwhile."""
    if not hasattr(os, "geteuid"):
        pytest.skip("Windows has no such permissions")
    with tempfile.TemporaryDirectory() as name:
        before = os.geteuid()
        if before == 0:
            os.chmod(name, 0o777)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(before)


def test_what_may_not_be_read_is_named(nobody: Path) -> None:
    write_picture(nobody / "cat/1.png", random_bytes(4, 4))
    (nobody / "cat/1.png").chmod(0)
    with pytest.raises(ValueError, match=r"cat/1\.png: cannot be read \(Permission denied\)"):
        load_folder(nobody)
    (nobody / "cat/1.png").chmod(0o600)
    (nobody / "cat/more").mkdir(mode=0)
    with pytest.raises(ValueError, match=r"cat/more: cannot be read \(Permission denied\)"):
        load_folder(nobody)


def test_sizes_and_channels_may_be_numpys_numbers(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", random_bytes(4, 4))
    for size in (np.int64(8), [np.int32(8), 8]):
        assert load_folder(tmp_path, size=size, channels=np.int64(3)).images.shape == (1, 3, 8, 8)  # type: ignore[arg-type]
    for name, value in (("size", 8.0), ("size", (True, 8)), ("channels", True), ("channels", 1.0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            load_folder(tmp_path, **{name: value})  # type: ignore[arg-type]


# Picture grids


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
