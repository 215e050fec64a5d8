"""Where a large image is anomalous, by the windows that a job has kept: the mean of those that a pixel lies in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .. import maps, windows
from ..jobs.finished import Finished
from .overlays import Array, overlays

MOST = 256
"""Images that say what is usual."""
_STRIP = 256
"""Rows of pixels that are drawn at once."""


def usual(found: Finished) -> float:
    """What a window usually scores: the median over images of the median over windows. Maps are drawn from there on.

    Of MOST images evenly by their places, where more have a score: whichever are drawn, it is the same.
    """
    rows = np.flatnonzero(np.isfinite(found.numbers("score")))
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST)).astype(int)]
    medians = [np.median(kept["score"]) for kept in found.windows_of(some.tolist())]
    return float(np.median(medians)) if medians else 0.0


def excesses(found: Finished, rows: Sequence[int], floor: float, sigma: float = 0.0) -> Iterator[tuple[int, Array]]:
    """Of ascending rows that have a score the map (H, W): overlap-average of what windows score above `floor`, or 0.

    Raises ValueError where no windows were kept, or for a sigma out of range.
    """
    about = found.windows
    if about is None:
        raise ValueError(f"{found.folder} is no job by windows")
    for row, kept in zip(rows, found.windows_of(rows), strict=True):
        at = np.stack([kept["row"], kept["column"]], axis=1)
        shape = (int(at[:, 0].max()) + about.size, int(at[:, 1].max()) + about.size)  # the grid ends with the image
        drawn = windows.overlap_average(kept["score"], at, shape, about.size)
        yield row, maps.smoothed(np.maximum(drawn - floor, 0)[None], sigma)[0]


def drawn(image: npt.NDArray[np.float32], map_: Array, scale: float) -> npt.NDArray[np.uint8]:
    """`overlays` of one image (C, H, W), strip by strip: it may be large."""
    strips = range(0, len(map_), _STRIP)
    return np.concatenate(
        [overlays(image[None, :, y : y + _STRIP], map_[None, y : y + _STRIP], scale=scale)[0] for y in strips]
    )
