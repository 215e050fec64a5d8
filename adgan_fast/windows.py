"""Large images by windows: generators make 32 or 64 pixels, real images have hundreds.

Train on random windows of normal images (`random_windows`), score the windows of a grid (`WindowScorer`), and put
their scores together: as a map of the image (`overlap_average`), and as one number for it that does not grow with the
number of windows (`image_scores`, `image_p_values`, `surprise`). The largest window score does grow: of two images of
one kind the larger one, which has more windows, would look the more anomalous.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .calibration import Calibration
from .data import to_model_range
from .given import whole
from .window_settings import QUANTILE, Windows

__all__ = [
    "Standardized",
    "WindowScorer",
    "WindowScores",
    "Windows",
    "corners",
    "cut",
    "image_p_values",
    "image_score",
    "image_scores",
    "in_blocks",
    "overlap_average",
    "random_places",
    "random_windows",
    "standardized",
    "surprise",
    "too_small",
]

Image = npt.NDArray[Any]
"""(C, H, W): uint8, or floats in [-1, 1]."""
BLOCK = 1024
"""Windows of an image that are in memory at once."""
_LEAST_SCALE = 1e-3
"""Standard deviation, of pixels that span 2, below which a window counts as plain and is not made larger."""
_CONTRAST = 1 / 3
"""Standard deviation of a standardized window: three of them reach the ends of [-1, 1], where what is beyond is cut."""


class Standardized(NamedTuple):
    """Windows without their own mean and scale.

    Attributes:
        windows: (N, C, S, S) float32 in [-1, 1]: (x - mean) / scale / 3, cut at the ends.
        mean, scale: of each window over all of its pixels and channels, (N,) float32.
    """

    windows: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]


def standardized(windows: npt.NDArray[Any]) -> Standardized:
    """Windows (N, C, S, S), uint8 or floats in [-1, 1], without their mean and scale, which are kept.

    For textures under changing light. A plain window, of a scale below 1e-3, is not made larger than by that.
    """
    given = to_model_range(windows)
    mean = given.mean((1, 2, 3), dtype=np.float64).astype(np.float32)
    scale = given.std((1, 2, 3), dtype=np.float64).astype(np.float32)
    divisor = np.maximum(scale, _LEAST_SCALE)[:, None, None, None]
    return Standardized(((given - mean[:, None, None, None]) / divisor * _CONTRAST).clip(-1, 1), mean, scale)


def corners(height: int, width: int, size: int, stride: int | None = None) -> npt.NDArray[np.int64]:
    """Upper left corners (y, x) of a grid of windows, (n, 2), row by row.

    They lie `stride` apart (`size` when None), and the last of a row and of a column end with the image: every pixel
    lies in a window.

    Raises ValueError for an image smaller than a window, or a stride beyond the size, which would leave pixels out.
    """
    settings = Windows(size, stride)
    size, stride = settings.size, settings.step
    if min(height, width) < size:
        raise ValueError(f"the image has {height} by {width} pixels, a window {size} by {size}")
    ys, xs = (_places(length, size, stride) for length in (height, width))
    return np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2)


def _places(length: int, size: int, stride: int) -> npt.NDArray[np.int64]:
    places = np.arange(0, length - size + 1, stride, dtype=np.int64)
    return places if places[-1] == length - size else np.append(places, length - size)


def cut(image: Image, at: npt.NDArray[np.int64], size: int) -> npt.NDArray[Any]:
    """The windows of an image (C, H, W) at corners (n, 2): (n, C, size, size), a copy of its own dtype."""
    views = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(1, 2))
    return views[:, at[:, 0], at[:, 1]].transpose(1, 0, 2, 3).copy()


def too_small(image: Image, size: int) -> str:
    """Why no window of this size can be cut from an image (C, H, W), or ""."""
    height, width = image.shape[1:]
    return "" if min(height, width) >= size else f"it has {height} by {width} pixels, a window {size} by {size}"


def in_blocks(
    image: Image, windows: Windows, at: npt.NDArray[np.int64] | None = None
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any], Standardized | None]]:
    """The windows of an image (C, H, W), BLOCK at a time: corners (n, 2), windows (n, C, S, S), and what they lost.

    Args:
        at: which, as corners (m, 2); None: the grid's (`corners`).

    Raises ValueError as `corners`; where windows are standardized also for pixels that are not finite or out of range.
    """
    at = corners(image.shape[1], image.shape[2], windows.size, windows.step) if at is None else at
    for first in range(0, len(at), BLOCK):
        some = at[first : first + BLOCK]
        found = cut(image, some, windows.size)
        lost = standardized(found) if windows.standardize else None
        yield some, found if lost is None else lost.windows, lost


def random_windows(images: Sequence[Image], size: int, count: int, *, seed: int = 0) -> npt.NDArray[Any]:
    """Windows to train on: (count, C, size, size), of the images' dtype.

    Each comes from an image drawn by its number of places for a window, so that every place is as likely as any other.

    Args:
        images: (C, H, W) each, of one C and dtype, of any sizes from `size` on; or an array (N, C, H, W).
        size: side of a window.
        count: how many.
        seed: of the draw.

    Raises ValueError for no image, one that is too small, or images that differ in channels or dtype.
    """
    size, count = whole("size", size, 1), whole("count", count, 0)
    if not len(images):
        raise ValueError("there must be at least one image to cut windows from")
    kinds = {(image.shape[0], image.dtype.str) for image in images if image.ndim == 3}
    if len(kinds) != 1 or any(image.ndim != 3 for image in images):
        raise ValueError("images must be (C, H, W), all of one number of channels and one dtype")
    for number, image in enumerate(images):
        if min(image.shape[1:]) < size:
            raise ValueError(f"image {number} of shape {image.shape} is smaller than a window of {size}")
    made = np.empty((count, images[0].shape[0], size, size), images[0].dtype)
    for row, (which, y, x) in enumerate(random_places([image.shape[1:] for image in images], size, count, seed)):
        made[row] = images[which][:, y : y + size, x : x + size]
    return made


def random_places(sides: Sequence[tuple[int, ...]], size: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Where windows of `random_windows` come from: image and upper left corner of each, (count, 3).

    `sides` are (H, W) of each image, at least `size`: so no pixels are needed to draw.
    """
    free = np.asarray(sides, np.int64) - size + 1
    random = np.random.Generator(np.random.Philox(whole("seed", seed, 0)))
    places = free.prod(1)
    chosen = random.choice(len(free), size=count, p=places / places.sum())
    return np.array([(which, *random.integers(0, free[which])) for which in chosen], np.int64).reshape(-1, 3)


class WindowScores(NamedTuple):
    """The windows of one image.

    Attributes:
        scores: (n,) float64.
        corners: (n, 2), see `corners`.
        shape: (H, W) of the image.
        size: side of a window.
        mean, scale: (n,) of each window, where they were removed; else None.
    """

    scores: npt.NDArray[np.float64]
    corners: npt.NDArray[np.int64]
    shape: tuple[int, int]
    size: int
    mean: npt.NDArray[np.float32] | None = None
    scale: npt.NDArray[np.float32] | None = None

    def map(self) -> npt.NDArray[np.float64]:
        """Of the image, (H, W): see `overlap_average`."""
        return overlap_average(self.scores, self.corners, self.shape, self.size)


@dataclasses.dataclass
class WindowScorer:
    """Scores the windows of images of any size.

    Attributes:
        scorer: scores (n,) of windows (n, C, size, size): a `Scorer`, or what else gives such numbers.
        size: side of a window: the generator's.
        stride: between windows; size when None.
        standardize: whether each window loses its mean and scale first (`standardized`), as in training.
    """

    scorer: Callable[[npt.NDArray[Any]], npt.ArrayLike]
    size: int
    stride: int | None = None
    standardize: bool = False

    def __call__(self, image: Image) -> WindowScores:
        """The windows of one image (C, H, W), uint8 or floats in [-1, 1]; an image's scores depend on it alone.

        NaN for windows with NaN or Inf; for all of such an image where they are standardized.

        Raises ValueError as `corners` and `adgan_fast.score` do.
        """
        if image.ndim != 3:
            raise ValueError(f"an image must have shape (C, H, W), got {image.shape}")
        settings = Windows(self.size, self.stride, self.standardize)
        if self.standardize and image.dtype.kind == "f" and not np.isfinite(image).all():
            grid = corners(image.shape[1], image.shape[2], self.size, self.stride)
            nothing = np.full(len(grid), np.nan)
            return WindowScores(nothing, grid, (image.shape[1], image.shape[2]), self.size)
        at, scores, lost = [], [], []
        for some, windows, gone in in_blocks(image, settings):
            at.append(some)
            scores.append(np.asarray(self.scorer(windows), np.float64))
            lost.append(gone)
        light = [np.concatenate([each[part] for each in lost if each is not None]) for part in (1, 2) if lost[0]]
        shape = (image.shape[1], image.shape[2])
        return WindowScores(np.concatenate(scores), np.concatenate(at), shape, self.size, *light)

    def each(self, images: Iterable[Image]) -> Iterator[WindowScores]:
        """Of one image after the other."""
        return map(self, images)


def overlap_average(
    scores: npt.ArrayLike, at: npt.NDArray[np.int64], shape: tuple[int, int], size: int
) -> npt.NDArray[np.float64]:
    """Each pixel's mean score over the windows that it lies in: (n,) at corners (n, 2) to (H, W).

    NaN where a pixel lies in no window.
    """
    total, count = np.zeros(shape), np.zeros(shape)
    for score, (y, x) in zip(np.asarray(scores, np.float64), at, strict=True):
        total[y : y + size, x : x + size] += score
        count[y : y + size, x : x + size] += 1
    with np.errstate(invalid="ignore"):
        return total / count


def image_scores(windows: Iterable[WindowScores], quantile: float = QUANTILE) -> npt.NDArray[np.float64]:
    """One score for each image: a quantile of its windows' scores, (N,), estimated as `image_score` does.

    It sees what covers more than a share of 1 - quantile of the windows.

    Raises ValueError for a quantile outside [0, 1). 1 is the largest, which grows with the number of windows.
    """
    settings = Windows(1, quantile=quantile)
    return np.array([image_score(each.scores, settings) for each in windows], np.float64)


def image_score(
    scores: npt.NDArray[np.floating], windows: Windows, known: Calibration | None = None
) -> np.floating[Any]:
    """The score of one image from those of its windows, (n,), of their dtype; NaN where one of them is.

    `surprise` where window scores of normal images are known; else a quantile. That is estimated without bias in its
    median (Hyndman and Fan 1996, type 8): NumPy's usual one lies too low where windows are few, and so would grow with
    their number. Of fewer than about 1 / (1 - quantile) windows it is the largest, which still grows. And the more
    windows, the less it varies: for images of different sizes take a calibration.
    """
    found = np.asarray(scores)
    if known is not None:
        return found.dtype.type(surprise(found, known))
    value = np.quantile(found.astype(np.float64), windows.quantile, method="median_unbiased")
    return found.dtype.type(value)


def surprise(scores: npt.ArrayLike, known: Calibration) -> float:
    """How unusual an image's windows are, among scores of windows of normal images: -log10 of `image_p_values`' value.

    Of normal images it is distributed nearly alike, whatever the number of windows. So images of different sizes may
    be calibrated together.
    """
    return float(0.0 - np.log10(_simes(known.p_values(np.asarray(scores)))))  # 0 of p = 1, and not -0


def image_p_values(windows: Iterable[WindowScores], calibration: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """One p-value for each image, (N,): how likely so anomalous windows are in a normal image of its size.

    Each window has a conformal p-value, its rank among the windows of normal images, and an image the smallest of
    m p_(i) / i over its m sorted ones (Simes 1986). Of normal images of any size a share of α at most is then below α,
    for windows that are independent, or alike as neighbours are. A single defective window is seen as well, if
    there are enough to compare with: alone it cannot bring the image below m / (n + 1).

    Args:
        windows: of the images.
        calibration: scores (n,) of windows of normal images that the generator was not trained on; of many images,
            since windows of one are alike: from few of them more normal images are flagged than α.

    Raises ValueError for a calibration that is empty or not finite.
    """
    known = Calibration(np.asarray(calibration))
    return np.array([_simes(known.p_values(each.scores)) for each in windows])


def _simes(p_values: npt.NDArray[np.float64]) -> float:
    ordered = np.sort(p_values)
    return float(np.min(len(ordered) * ordered / np.arange(1, len(ordered) + 1)))
