"""Images in arrays: .npy and .npz, idx files, scikit-learn's digits."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ... import validate
from ...data.arrays import open_arrays
from ...data.digits import load_digits
from ...data.folders import IMAGE_SUFFIXES
from ...data.mnist import NotIdx, read_idx
from ..errors import InputsChanged
from ..source import Item, Unreadable
from .files import stamp
from .names import as_text
from .shaping import Pixels, Shaping

log = logging.getLogger("adgan_fast")

Arrays = tuple[Pixels, npt.NDArray[Any] | None]
"""(N, C, H, W), and labels (N,) where there are any."""
DIGITS = "sklearn:digits"


class ArraySource:
    """The rows of an array, (N, C, H, W) uint8 or float in [-1, 1].

    An .npy stays on disk and is read where it is asked for; of the others each process holds the array once.

    Args:
        name: an .npy, .npz or idx file, or ``sklearn:digits``.
        labels: whether items have labels: those of an .npz (``labels`` or ``y``; or of ``x_test`` those in
            ``y_test``), the labels' file beside an idx file, or the digits.
        column: of an .npz, the name of the images; when None, that of the one array that can be.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds no images; or, where they are asked for, no labels.
        ImportError: of the digits, where scikit-learn is not installed, with the remedy.
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        shaping: Shaping | None = None,
        *,
        labels: bool = False,
        column: str | None = None,
    ) -> None:
        self.name, self.shaping, self.labels, self.column = os.fspath(name), shaping or Shaping(), labels, column
        self.kind, self._load = _loader(self.name, column)
        self._held: Arrays | None = None
        self._stamp = self._stamp_now()  # before it is read: what is changed meanwhile is seen then
        images, classes = self._arrays()
        try:
            validate.as_images(images[:0])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{as_text(self.name)}: {error}") from error
        if labels and classes is None:
            raise ValueError(f"{as_text(self.name)}: no labels in it")
        if classes is not None and len(classes) != len(images):
            raise ValueError(f"{as_text(self.name)}: {len(classes)} labels for {len(images)} images")
        if images.shape[1] == 1 and images.shape[3] in (3, 4) and images.shape[3] < images.shape[2]:
            how = "one image of colours needs an axis before: (1, H, W, 3)"
            log.warning("%s: read as %d grey images of %dx%d; %s", as_text(self.name), *_sides(images), how)

    def items(self) -> Iterator[Item]:
        """The rows by their numbers."""
        images, classes = self._arrays()
        for index in range(len(images)):
            yield Item(str(index), str(classes[index]) if self.labels and classes is not None else None, "")

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8 | np.float32] | Unreadable]:
        """(C, H, W) uint8 or float32 each."""
        images, _ = self._arrays()
        for image in images[first:stop]:
            yield self.shaping.of_array(np.asarray(image))

    def fingerprint(self) -> dict[str, Any]:
        """Kind, absolute path, size and time of the file, labels or not, the array that is named, shaping."""
        path = self.name if self.kind == "digits" else as_text(os.path.abspath(self.name))
        about = {"kind": self.kind, "path": path, "stamp": self._stamp, "labels": self.labels}
        about |= {} if self.column is None else {"column": self.column}
        return about | self.shaping.described()

    def require_same(self, first: int, stop: int) -> None:
        """InputsChanged where the file has changed."""
        if self._stamp_now() != self._stamp:
            raise InputsChanged(f"{as_text(self.name)}: has changed since the job began to read it")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_held", "_load")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._held, self._load = None, _loader(self.name, self.column)[1]

    def _arrays(self) -> Arrays:
        if self._held is not None:
            return self._held
        self.require_same(0, 0)
        found = self._load(self.shaping.expected)
        if not isinstance(found[0], np.memmap):
            self._held = found
        return found

    def _stamp_now(self) -> str:
        return "" if self.kind == "digits" else stamp(self.name)


def _sides(images: Pixels) -> tuple[int, int, int]:
    return len(images), images.shape[2], images.shape[3]


def _loader(name: str, column: str | None) -> tuple[str, Callable[[tuple[int, int, int] | None], Arrays]]:
    """The kind of an array's source, and what reads it."""
    if name == DIGITS:
        return "digits", lambda expected: _digits()
    path = Path(name)
    if path.suffix.lower() in (".npy", ".npz"):
        return "arrays", lambda expected: _npy(path, expected, column)
    return "idx", lambda expected: _idx(path)


def _digits() -> Arrays:
    found = load_digits()
    return found.images, found.labels


def _npy(path: Path, expected: tuple[int, int, int] | None, name: str | None) -> Arrays:
    """Where the axis of channels is not plain, the shape that is expected says it."""
    layout: Literal["auto", "NCHW", "NHWC"] = "auto"
    if expected is not None:
        found = open_arrays(path, images=name, layout="NCHW")
        if found[0].shape[1:] == expected:
            return found
        if found[0].shape[1:] == (*expected[1:], expected[0]):
            layout = "NHWC"
    return open_arrays(path, images=name, layout=layout)


def _idx(path: Path) -> Arrays:
    try:
        images = read_idx(path, dimensions=3)[:, None]
    except NotIdx as error:
        kinds = f"a folder, a pattern, a picture ({', '.join(sorted(IMAGE_SUFFIXES))}), .parquet, .tar, .npy, .npz"
        raise ValueError(f"{error}. Images are {kinds}, an idx file (of any name), or {DIGITS}") from error
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    beside = path.with_name(name)
    return images, read_idx(beside, dimensions=1) if name != path.name and beside.is_file() else None


class Held:
    """Images that are in memory, (N, C, H, W) uint8 or float in [-1, 1]. Sent to another process they go with it.

    Args:
        images: the images.
        name: what they are called in messages and job.json.
        ids: of each; its number when None.
        labels: of each, if it has one.
    """

    def __init__(
        self,
        images: Pixels,
        name: str,
        *,
        ids: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        shaping: Shaping | None = None,
    ) -> None:
        self.name, self.shaping = name, shaping or Shaping()
        self._images, self._labels = images, labels
        self._ids = [str(index) for index in range(len(images))] if ids is None else ids

    def items(self) -> Iterator[Item]:
        """The images by their ids."""
        for index, name in enumerate(self._ids):
            yield Item(name, None if self._labels is None else self._labels[index], "")

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8 | np.float32] | Unreadable]:
        """(C, H, W) uint8 or float32 each."""
        for image in self._images[first:stop]:
            yield self.shaping.of_array(image)

    def fingerprint(self) -> dict[str, Any]:
        """Kind, hash of the numbers, shaping."""
        digest = hashlib.sha256(np.ascontiguousarray(self._images).tobytes()).hexdigest()
        shape = list(self._images.shape)
        return {"kind": "held", "shape": shape, "dtype": str(self._images.dtype), "sha256": digest} | (
            self.shaping.described()
        )
