"""`Baseline`: the face that every detector of the paper's comparison has (Deecke et al. 2018, Sect. 4.2)."""

from __future__ import annotations

import abc
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from .. import validate
from ..core.ambient import recording

if TYPE_CHECKING:
    from typing_extensions import Self

BATCH = 256
"""Images that go through a network at once, where a detector says nothing else."""


class NotFittedError(ValueError, AttributeError):
    """A detector was asked for scores before `fit`."""


class Baseline(abc.ABC):
    """A detector that learns from images of the normal class alone.

    A detector of this package gives `_fit` and `_scores`; what images are, and what is wrong with them, is said here.

    Attributes:
        image_shape_: (C, H, W) of the images fitted; None before.
    """

    image_shape_: tuple[int, ...] | None = None

    def fit(self, images: npt.NDArray[Any] | torch.Tensor) -> Self:
        """Learn the normal class.

        Args:
            images: (N, C, H, W), or (N, H, W) for one channel, N at least 1; uint8, or floats in [-1, 1].

        Raises:
            ValueError: another shape, no image, a value out of range, NaN or Inf.
            TypeError: neither a tensor nor an ndarray of such numbers.
        """
        given = fitting_images(images)
        with recording(given.device):
            self._fit(given)
        self.image_shape_ = tuple(given.shape[1:])
        return self

    def decision_function(self, images: npt.NDArray[Any] | torch.Tensor) -> npt.NDArray[np.float64]:
        """Scores (N,), float64: the higher, the more anomalous. Their unit is the detector's own.

        Args:
            images: as for `fit`, of the shape that was fitted; N may be 0. One with NaN or Inf scores NaN, and a
                warning counts them.

        Raises:
            NotFittedError: before `fit`.
            ValueError: images of another shape, out of range; or a sound image whose score is not finite.
        """
        shape = self._takes()
        given = validate.as_images(images)
        if shape is not None and given.shape[1:] != shape:
            fitted = f"(N, {', '.join(map(str, shape))})"
            raise ValueError(f"images must have the shape that was fitted, {fitted}, got {tuple(given.shape)}")
        finite = validate.scan(given, strict=False)
        validate.warn_of_not_finite(finite)
        sound = finite.cpu().numpy()
        scores = np.full(len(given), np.nan)
        if sound.any():
            if not sound.all():  # zeros in their place: a detector may count images
                given = given.clone()
                given[torch.from_numpy(~sound)] = 0
            with recording(given.device):
                scores[sound] = np.asarray(self._scores(given), dtype=np.float64)[sound]
        if lost := int(np.sum(~np.isfinite(scores[sound]))):
            raise ValueError(f"{type(self).__name__}: the scores of {lost} of {len(given)} images are not finite")
        return scores

    def _takes(self) -> tuple[int, ...] | None:
        """The (C, H, W) that it scores, None for any that its network takes; NotFittedError where it is not ready."""
        if self.image_shape_ is None:
            raise NotFittedError(f"{type(self).__name__} has seen no images: call fit first")
        return self.image_shape_

    @abc.abstractmethod
    def _fit(self, images: torch.Tensor) -> None:
        """Learn from images (N, C, H, W), N > 0, uint8 or finite floats in [-1, 1], on the device they came on."""

    @abc.abstractmethod
    def _scores(self, images: torch.Tensor) -> npt.NDArray[Any]:
        """(N,) for images (N, C, H, W), N > 0, as for `_fit`. An image's score must not depend on those beside it."""


def fitting_images(images: npt.NDArray[Any] | torch.Tensor) -> torch.Tensor:
    """Images to learn from, as a tensor (N, C, H, W), N > 0; errors as those of `Baseline.fit`."""
    given = validate.as_images(images)
    if given.numel() == 0:
        raise ValueError(f"there must be at least one image to fit, got shape {tuple(given.shape)}")
    validate.scan(given, strict=True)
    return given


def batches(images: torch.Tensor, size: int = BATCH) -> Iterator[torch.Tensor]:
    """Images (N, C, H, W) in parts of at most `size`, float32 in [-1, 1]."""
    for part in images.split(size):
        yield validate.to_range(part, torch.float32)


def scikit_learn(module: str) -> Any:
    """The module `sklearn.<module>`; ImportError with the remedy where scikit-learn is not installed."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError("this detector needs scikit-learn: pip install 'adgan-fast[baselines]'") from error
