"""CIFAR-10, from its original batches or an .npz."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .arrays import Npz
from .image_set import ImageSet
from .paths import PathLike, Split, checked_split, existing_file
from .plain_pickle import read_plain_pickle

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(path: PathLike, split: Split = "train") -> ImageSet:
    """CIFAR-10: (N, 3, 32, 32) uint8 with labels 0..9 and class names.

    Args:
        path: an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test`` (images N x 32 x 32 x 3); or the
            original ``cifar-10-python.tar.gz``; or the folder ``cifar-10-batches-py`` (or the one that holds it). The
            original batches are pickles: they are read by a reader that knows plain data and refuses all else.
        split: ``"train"`` or ``"test"``.
    """
    path, names = Path(path), None
    if path.is_dir():
        inner = path / "cifar-10-batches-py"
        images, labels, names = _cifar_batches(
            _batches_of_folder(inner if inner.is_dir() else path, checked_split(split))
        )
    elif tarfile.is_tarfile(existing_file(path)):
        images, labels, names = _cifar_batches(_batches_of_tar(path, checked_split(split)))
    else:
        with Npz(path) as file:
            images, labels = file.array(f"x_{checked_split(split)}"), file.array(f"y_{split}").reshape(-1)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
            raise ValueError(f"{path}: x_{split} is {images.dtype} {images.shape}, expected uint8 (N, 32, 32, 3)")
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    whole = labels.dtype.kind in "iu" and len(labels) == len(images)
    if not whole or (len(labels) and not 0 <= labels.min() <= labels.max() < 10):
        raise ValueError(f"{path}: expected {len(images)} labels in 0..9, found {len(labels)} of type {labels.dtype}")
    return ImageSet(images, labels.astype(np.int64), names, CIFAR10_CLASSES)


def _cifar_members(split: str) -> list[str]:
    return [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]


def _batches_of_folder(folder: Path, split: str) -> Iterator[tuple[str, bytes]]:
    for name in _cifar_members(split):
        yield str(folder / name), existing_file(folder / name).read_bytes()


def _batches_of_tar(path: Path, split: str) -> Iterator[tuple[str, bytes]]:
    # Read as one stream, into memory: nothing is unpacked to disk, so no member's name or link matters.
    wanted, found = _cifar_members(split), {}
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in wanted and member.isfile():
                    file = tar.extractfile(member)
                    assert file is not None  # of a regular file
                    found[name] = file.read()
                if len(found) == len(wanted):
                    break
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: a damaged archive ({error})") from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"{path}: the archive holds no {', '.join(missing)}")
    for name in wanted:
        yield f"{path}:{name}", found[name]


def _cifar_batches(
    batches: Iterator[tuple[str, bytes]],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], tuple[str, ...] | None]:
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    names: list[str] = []
    for source, data in batches:
        batch = read_plain_pickle(data, source)
        if not isinstance(batch, dict):
            raise ValueError(f"{source}: holds a {type(batch).__name__}, expected a dict")
        # Keys are bytes in the original files, which Python 2 wrote, and text in copies by Python 3.
        batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, classes, files = batch.get("data"), batch.get("labels"), batch.get("filenames")
        if not isinstance(pixels, np.ndarray):
            raise ValueError(f"{source}: data is a {type(pixels).__name__}, expected an array")
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
            raise ValueError(f"{source}: data is {pixels.dtype} {pixels.shape}, expected uint8 (N, 3072)")
        classes = classes.tolist() if isinstance(classes, np.ndarray) else classes
        listed = isinstance(classes, list) and all(type(label) is int for label in classes)
        if classes is None or not listed or len(classes) != len(pixels):
            raise ValueError(f"{source}: labels are not a list of {len(pixels)} whole numbers")
        images.append(pixels.reshape(-1, 3, 32, 32))
        labels += classes
        if isinstance(files, list) and len(files) == len(pixels):
            names += [file.decode("latin1") if isinstance(file, bytes) else str(file) for file in files]
    complete = tuple(names) if len(names) == len(labels) else None
    return np.concatenate(images), np.array(labels, dtype=np.int64), complete
