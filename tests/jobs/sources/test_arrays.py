"""Images in arrays."""

from __future__ import annotations

import gzip
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from adgan_fast.data import load_digits
from adgan_fast.jobs.errors import InputsChanged
from adgan_fast.jobs.sources import ArraySource, Shaping, open_source, reopened
from tests.support.pictures import random_bytes
from tests.support.sources import ids, labels, read_all

GREY = random_bytes(5, 6, 7)


def write_idx(path: Path, values: np.ndarray) -> None:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    data = bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_npy_stays_on_disk_and_npz_has_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    np.savez(tmp_path / "a.npz", x=GREY, y=np.arange(5))
    for name, expected in (("a.npy", [None] * 5), ("a.npz", ["0", "1", "2", "3", "4"])):
        source = ArraySource(tmp_path / name, labels=name == "a.npz")
        assert ids(source) == ["0", "1", "2", "3", "4"] and labels(source) == expected
        assert np.array_equal(read_all(source), GREY[:, None])
        sent = pickle.dumps(source)
        assert len(sent) < 1000 and np.array_equal(next(pickle.loads(sent).read(3, 4))[0], GREY[3])
    assert isinstance(ArraySource(tmp_path / "a.npy")._arrays()[0], np.memmap)


def test_of_several_arrays_one_is_named_and_labels_are_those_of_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=np.arange(5), x_test=GREY[3:], y_test=np.array([7, 8]))
    with pytest.raises(ValueError, match=r"candidates: x_train, x_test: name it by images= \(--column\)"):
        open_source(tmp_path / "a.npz")
    source = open_source(tmp_path / "a.npz", Shaping(expected=(1, 6, 7)), labels=True, column="x_test")
    for found in (source, reopened(source.fingerprint(), (1, 6, 7)), pickle.loads(pickle.dumps(source))):
        assert np.array_equal(read_all(found), GREY[3:, None]) and labels(found) == ["7", "8"]
    with pytest.raises(ValueError, match="holds no x, but x_train"):
        open_source(tmp_path / "a.npz", column="x")


def test_one_image_of_colours_that_is_read_as_many_grey_ones_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "one.npy", random_bytes(8, 8, 3))
    np.save(tmp_path / "grey.npy", random_bytes(8, 8, 8))
    assert len(ids(ArraySource(tmp_path / "one.npy"))) == len(ids(ArraySource(tmp_path / "grey.npy"))) == 8
    (said,) = caplog.messages
    assert "one.npy: read as 8 grey images of 8x3; one image of colours needs an axis before" in said


def test_floats_keep_nan_and_are_float32(tmp_path: Path) -> None:
    floats = GREY / 127.5 - 1
    floats[2, 0, 0] = np.nan
    floats[3] = 9
    np.save(tmp_path / "a.npy", floats)
    found = read_all(ArraySource(tmp_path / "a.npy"))
    assert found[0].dtype == np.float32 and np.isnan(found[2][0, 0, 0]) and "[9, 9]" in found[3]


@pytest.mark.parametrize(("channels", "last"), [(3, False), (3, True), (2, False), (2, True)])
def test_the_axis_of_channels_is_known_by_the_shape_that_is_expected(tmp_path: Path, channels: int, last: bool) -> None:
    images = random_bytes(4, channels, 3, 5)
    np.save(tmp_path / "a.npy", images.transpose(0, 2, 3, 1) if last else images)
    assert np.array_equal(read_all(ArraySource(tmp_path / "a.npy", Shaping(expected=(channels, 3, 5)))), images)


def test_idx_with_its_labels(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", GREY)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(5, dtype=np.uint8))
    source = ArraySource(tmp_path / "train-images-idx3-ubyte.gz", labels=True)
    assert np.array_equal(read_all(source), GREY[:, None]) and labels(source) == ["0", "1", "2", "3", "4"]
    write_idx(tmp_path / "more", GREY)
    with pytest.raises(ValueError, match="no labels"):
        ArraySource(tmp_path / "more", labels=True)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(4, dtype=np.uint8))
    with pytest.raises(ValueError, match="4 labels for 5 images"):
        ArraySource(tmp_path / "train-images-idx3-ubyte.gz", labels=True)


def test_the_digits() -> None:
    digits, source = load_digits(), ArraySource("sklearn:digits", labels=True)
    assert labels(source) == [str(label) for label in digits.labels]
    assert np.array_equal(list(source.read(100, 103)), digits.images[100:103])
    assert np.array_equal(next(pickle.loads(pickle.dumps(source)).read(0, 1)), digits.images[0])


def test_the_digits_without_scikit_learn_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        ArraySource("sklearn:digits")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (GREY.astype(np.int64), "floats in \\[-1, 1\\] or uint8, got an array of int64"),
        (GREY[0], "expected \\(N, H, W\\)"),
        (random_bytes(2, 5, 6, 7), "which axis holds the channels"),
        (np.array([{}], object), "not a .npy or .npz file of plain numbers"),
    ],
)
def test_arrays_that_are_no_images_are_named(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=rf"a\.npy: .*{words}"):
        ArraySource(tmp_path / "a.npy")


def test_damaged_files_and_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    whole = (tmp_path / "a.npy").read_bytes()
    for data in (b"", whole[:50], whole[:-1]):
        (tmp_path / "a.npy").write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.npy: not a"):
            ArraySource(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError, match="no such file"):
        ArraySource(tmp_path / "b.npy")
    np.save(tmp_path / "a.npy", GREY[:0])
    assert read_all(ArraySource(tmp_path / "a.npy")) == []


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY)
    source = ArraySource(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", GREY[:3])
    with pytest.raises(InputsChanged, match="has changed"):
        ids(source)
