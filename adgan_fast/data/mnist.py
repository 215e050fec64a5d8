"""MNIST, and sets in its idx format."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from .image_set import ImageSet
from .paths import PathLike, Split, checked_split, existing_file, existing_folder


class NotIdx(ValueError):
    """A file that does not begin as an idx file does."""


def load_mnist(folder: PathLike, split: Split = "train") -> ImageSet:
    """MNIST (or a set in its format, as Fashion-MNIST) from the original idx files, gzipped or not.

    Args:
        folder: holds ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, or ``t10k-...`` for the test set,
            with or without ``.gz``.
        split: ``"train"`` or ``"test"``.
    """
    folder, prefix = existing_folder(folder), {"train": "train", "test": "t10k"}[checked_split(split)]
    files = [_idx_file(folder, f"{prefix}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    images, labels = read_idx(files[0], dimensions=3), read_idx(files[1], dimensions=1)
    if len(images) != len(labels):
        raise ValueError(f"{files[1]}: {len(labels)} labels for the {len(images)} images of {files[0].name}")
    return ImageSet(images[:, None], labels.astype(np.int64))


def _idx_file(folder: Path, name: str) -> Path:
    dotted = name.replace("-idx", ".idx")  # as some copies of the set are named
    names = (name, f"{name}.gz", dotted, f"{dotted}.gz")
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(f"{folder}: holds none of {', '.join(names)}")


def read_idx(path: PathLike, dimensions: int | None = None) -> npt.NDArray[np.uint8]:
    """An idx file of unsigned bytes, gzipped or not (http://yann.lecun.com/exdb/mnist, "the IDX file format").

    Args:
        path: the file.
        dimensions: how many the array has to have; any when None.
    """
    path = existing_file(path)
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if zipped else raw as file:
                return _read_idx(path, file, dimensions)  # type: ignore[arg-type]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: its gzip data is cut short or damaged ({error})") from error


def _read_idx(path: Path, file: BinaryIO, dimensions: int | None) -> npt.NDArray[np.uint8]:
    magic = file.read(4)
    wanted = "00 00 08 and the number of dimensions" if dimensions is None else f"00 00 08 {dimensions:02x}"
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or magic[3] == 0 or dimensions not in (None, magic[3]):
        found = magic.hex(" ") or "nothing"
        raise NotIdx(f"{path}: not an idx file of unsigned bytes: starts with {found}, expected {wanted}")
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError(f"{path}: cut short in its header: {4 + len(header)} bytes, expected {4 + 4 * magic[3]}")
    shape = tuple(np.frombuffer(header, dtype=">u4").tolist())
    size = 1
    for length in shape:
        size *= length
    data = _read_at_most(file, size + 1)
    if len(data) != size:
        found = f"{len(data)} bytes" if len(data) < size else "more"
        announced = "x".join(map(str, shape))
        raise ValueError(f"{path}: its header announces {announced} = {size} bytes of data, found {found}")
    try:
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    except ValueError as error:
        raise ValueError(f"{path}: its header announces a shape that no array can have, {shape}") from error


def _read_at_most(file: BinaryIO, size: int) -> bytearray:
    # Piece by piece: a header that lies about its size must not make us reserve that much.
    data = bytearray()
    while len(data) < size and (part := file.read(min(size - len(data), 1 << 24))):
        data += part
    return data
