"""What the classical detectors look at: pixels, their principal components, or AlexNet's features of the image."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..given import whole
from .alexnet import SIDE, WeightsMissing, load_alexnet
from .base import BATCH, batches, scikit_learn

if TYPE_CHECKING:
    from typing_extensions import Self

# The weights are of a network that saw images of [0, 1] minus this mean, divided by this deviation: red, green, blue.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FeatureMap(abc.ABC):
    """From images to rows of numbers. Images are as `Baseline` hands them on: (N, C, H, W), uint8 or in [-1, 1]."""

    def fit(self, images: torch.Tensor) -> Self:
        """Learn the map from images of the normal class; here there is nothing to learn."""
        return self

    @abc.abstractmethod
    def __call__(self, images: torch.Tensor) -> npt.NDArray[np.float64]:
        """Features (N, D) of images (N, C, H, W)."""


@dataclasses.dataclass(eq=False)
class Pixels(FeatureMap):
    """The pixels themselves, in [-1, 1]: D = C · H · W."""

    def __call__(self, images: torch.Tensor) -> npt.NDArray[np.float64]:
        return np.concatenate([_rows(part).astype(np.float64) for part in batches(images)])


@dataclasses.dataclass(eq=False)
class Projected(FeatureMap):
    """Features projected onto their first principal components, by scikit-learn's PCA; not whitened.

    Attributes:
        n: components, D of the result.
        subsample: images that the components are computed from, at most: drawn by `seed` from those fitted. None: all.
        seed: of that draw, and of the randomised decomposition that scikit-learn takes where features are many.
    """

    n: int
    subsample: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.n = whole("n", self.n, 1)
        self._pca: Any = None

    def fit(self, images: torch.Tensor) -> Self:
        """Raises ValueError where there are fewer images, or fewer features, than components."""
        chosen = images[torch.from_numpy(some(len(images), self.subsample, self.seed)).to(images.device)]
        rows: npt.NDArray[Any] = np.empty((0, 0))
        done = 0
        for part in self._parts(chosen):
            if not done:  # one array, filled: to join the parts would take twice its memory
                rows = np.empty((len(chosen), part.shape[1]), part.dtype)
            rows[done : done + len(part)] = part
            done += len(part)
        if self.n > min(rows.shape):
            raise ValueError(f"n={self.n} components need as many images and features, got {rows.shape} of them")
        pca = scikit_learn("decomposition").PCA(self.n, copy=False, random_state=self.seed)
        self._pca = pca.fit(rows)
        return self

    def __call__(self, images: torch.Tensor) -> npt.NDArray[np.float64]:
        if self._pca is None:
            raise ValueError(f"{type(self).__name__} has seen no images: call fit first")
        return np.concatenate([self._pca.transform(part) for part in self._parts(images)]).astype(np.float64)

    @abc.abstractmethod
    def _parts(self, images: torch.Tensor) -> Iterator[npt.NDArray[Any]]:
        """What is projected: features of some images after the other, (B, D)."""


@dataclasses.dataclass(eq=False)
class PCA(Projected):
    """The first n principal components of the pixels (in [-1, 1]), learned from the normal class."""

    def _parts(self, images: torch.Tensor) -> Iterator[npt.NDArray[np.float64]]:
        for part in batches(images, 16 * BATCH):
            yield _rows(part).astype(np.float64)


class AlexNet(Projected):
    """The first n principal components of AlexNet's fifth convolution after its ReLU: 256 · 13 · 13 = 43,264 features.

    Images are resized to 224 by 224 (bilinear, antialiased), gray ones repeated to three channels, [-1, 1] taken to
    [0, 1] and then to ImageNet's mean and deviation.

    Args:
        weights: path of the ImageNet weights, see `load_alexnet`. They are not part of this package.
        n, subsample, seed: see `Projected`. The features of 6,000 images are 1 GB.

    Raises:
        WeightsMissing: weights is None, or no such file, with where they are to be had.
        ValueError: a file of other weights; at the call, images of other than one or three channels.
    """

    def __init__(
        self, weights: str | os.PathLike[str] | None, n: int = 100, *, subsample: int | None = 6000, seed: int = 0
    ) -> None:
        super().__init__(n, subsample, seed)
        if weights is None:
            raise WeightsMissing(None)
        self._network = load_alexnet(weights)

    @torch.inference_mode()
    def _parts(self, images: torch.Tensor) -> Iterator[npt.NDArray[np.float32]]:
        if images.shape[1] not in (1, 3):
            raise ValueError(f"AlexNet takes images of 1 or 3 channels, got {tuple(images.shape)}")
        mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
        for part in batches(images, 64):
            scaled = ((part.cpu() + 1) / 2).expand(-1, 3, -1, -1)
            resized = F.interpolate(scaled, size=(SIDE, SIDE), mode="bilinear", antialias=True)
            yield _rows(self._network((resized - mean) / std))


class Shared:
    """Features that several detectors use, computed once: `first(n)` is a map to the first n of them.

        shared = Shared(PCA(100))
        detectors = [KDE(shared.first(n)) for n in (20, 40, 60, 80, 100)]

    The first n of 100 principal components are the n that a PCA of n finds (to the accuracy of the decomposition). What
    was fitted, and the features of the last few sets of images, are kept by what is in them.
    """

    def __init__(self, features: FeatureMap, kept: int = 4) -> None:
        self._features, self._kept = features, whole("kept", kept, 1)
        self._fitted: bytes | None = None
        self._known: dict[bytes, npt.NDArray[np.float64]] = {}

    def first(self, n: int) -> FeatureMap:
        """The map to the first n features; ValueError at the call where there are fewer."""
        return _First(self, whole("n", n, 1))

    def fit(self, images: torch.Tensor) -> None:
        """Fit the features, unless these images are those they were fitted on last."""
        if (key := _fingerprint(images)) != self._fitted:
            self._known.clear()
            self._fitted = None  # an interrupt leaves nothing that looks whole
            self._features.fit(images)
            self._fitted = key

    def __call__(self, images: torch.Tensor) -> npt.NDArray[np.float64]:
        key = _fingerprint(images)
        if key not in self._known:
            found = self._features(images)
            while len(self._known) >= self._kept:
                self._known.pop(next(iter(self._known)))
            self._known[key] = found
        return self._known[key]


class _First(FeatureMap):
    def __init__(self, shared: Shared, n: int) -> None:
        self._shared, self._n = shared, n

    def fit(self, images: torch.Tensor) -> Self:
        self._shared.fit(images)
        return self

    def __call__(self, images: torch.Tensor) -> npt.NDArray[np.float64]:
        found = self._shared(images)
        if found.shape[1] < self._n:
            raise ValueError(f"there are {found.shape[1]} features, not {self._n}")
        return np.ascontiguousarray(found[:, : self._n])

    def __repr__(self) -> str:
        return f"first {self._n} of {self._shared._features!r}"


def some(count: int, most: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Positions of `most` of `count` items, drawn by `seed`, in order; of all where there are no more."""
    if most is None or count <= most:
        return np.arange(count)
    return np.sort(np.random.Generator(np.random.Philox(seed)).permutation(count)[:most])


def _rows(images: torch.Tensor) -> npt.NDArray[np.float32]:
    return images.flatten(1).cpu().numpy()


def _fingerprint(images: torch.Tensor) -> bytes:
    found = hashlib.blake2b(f"{tuple(images.shape)} {images.dtype}".encode())
    for part in images.split(16 * BATCH):
        found.update(part.contiguous().cpu().view(torch.uint8).numpy())
    return found.digest()
