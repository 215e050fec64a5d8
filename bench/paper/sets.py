"""Image sets by path, and the trials of the paper cut from them: what to train on, to choose on, and to test on."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adgan_fast.data import ImageSet, load_cifar10, load_mnist

_HOLDOUT, _TEST = range(2)  # purposes of random streams; the numbers are part of what a seed means


class Labelled(NamedTuple):
    """Images (N, C, H, W), and which of them are anomalous, bool (N,)."""

    images: npt.NDArray[np.uint8]
    anomalous: npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class PaperSet:
    """A labelled set with its own training and test parts.

    Attributes:
        name: in the names of results, "mnist" say.
        train, test: uint8 images with labels.
    """

    name: str
    train: ImageSet
    test: ImageSet

    @property
    def classes(self) -> list[int]:
        return np.unique(labels_of(self.train)).tolist()

    def class_name(self, label: int) -> str:
        names = self.train.classes
        return str(label) if names is None else names[label]

    def named(self, wanted: str) -> int:
        """The label that ``wanted`` gives, as a number or by its name."""
        for label in self.classes:
            if wanted in (str(label), self.class_name(label)):
                return label
        known = ", ".join(map(self.class_name, self.classes))
        raise ValueError(f"{self.name} has no class {wanted!r}; it has {known}")


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One class as the normal one (Sect. 4.3).

    Attributes:
        normal: the class's label.
        train: its training images, less those of the holdout: (N, C, H, W) uint8.
        holdout: of the training part, to choose settings on: the class's own images and as many of all others.
        test: of the test part, the same images for every class.
    """

    normal: int
    train: npt.NDArray[np.uint8]
    holdout: Labelled
    test: Labelled

    @property
    def digest(self) -> str:
        """Twelve letters that stand for all of its images."""
        found = hashlib.sha256()
        for images in (self.train, self.holdout.images, self.test.images):
            found.update(np.ascontiguousarray(images).data)
        return found.hexdigest()[:12]


def open_set(path: Path, name: str | None = None, side: int | None = None) -> PaperSet:
    """The set at ``path``: a folder of idx files as MNIST has them, or CIFAR-10 as ``load_cifar10`` reads it.

    Args:
        path: the folder, or CIFAR's file or folder.
        name: of the set in results; without it the name of the folder, or cifar10.
        side: to which images are padded with black, alike on all sides; as they are when None.

    Raises:
        FileNotFoundError, ValueError: nothing is there, or not such a set.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no image set here")
    idx = path.is_dir() and any(path.glob("*idx3-ubyte*"))
    load = load_mnist if idx else load_cifar10
    parts = [load(path, part) for part in ("train", "test")]
    if side is not None:
        parts = [dataclasses.replace(part, images=padded(part.images, side)) for part in parts]
    return PaperSet(name or (path.resolve().name.lower() if idx else "cifar10"), *parts)


def padded(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Images (N, C, H, W) with black around them: (N, C, side, side). ValueError where they are larger."""
    height, width = images.shape[2:]
    if any(length > side or (side - length) % 2 for length in (height, width)):
        raise ValueError(
            f"images of {height} by {width} pixels cannot be padded alike on all sides to {side} by {side}"
        )
    across, along = (side - height) // 2, (side - width) // 2
    return np.pad(images, ((0, 0), (0, 0), (across, across), (along, along)))


def trial(images: PaperSet, normal: int, *, items: int, holdout: int, seed: int) -> Trial:
    """The trial of one class; a function of its arguments alone.

    Args:
        images: the set.
        normal: label of the normal class.
        items: test images, drawn at random from the whole test part; all of them where there are no more.
        holdout: images of the normal class kept from training, and of the others beside them; at most a fifth of it.
        seed: of what is drawn.
    """
    labels = labels_of(images.train)
    stream = _stream(seed, _HOLDOUT, normal)
    own = stream.permutation(np.flatnonzero(labels == normal))
    others = stream.permutation(np.flatnonzero(labels != normal))
    kept = min(holdout, len(own) // 5)
    pixels = images.train.images
    chosen = np.concatenate([own[:kept], others[:kept]])
    shown = drawn_items(images, items, seed)
    return Trial(
        normal,
        pixels[np.sort(own[kept:])],
        Labelled(pixels[chosen], np.arange(len(chosen)) >= kept),
        Labelled(images.test.images[shown], labels_of(images.test)[shown] != normal),
    )


def drawn_items(images: PaperSet, items: int, seed: int) -> npt.NDArray[np.int64]:
    """Positions of the test images of every trial: more items go on from fewer."""
    return _stream(seed, _TEST).permutation(len(images.test))[:items]


def labels_of(images: ImageSet) -> npt.NDArray[np.int64]:
    if images.labels is None:
        raise ValueError("one class against the others needs labels")
    return images.labels


def _stream(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *purpose))))
