"""Images by their windows for a detector: some of the normal ones give the windows that others are ranked among."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from .calibration import Calibration, require
from .scorer import Scorer
from .windows import Windows, WindowScorer, image_score

Image = npt.NDArray[Any] | torch.Tensor
Scores = npt.NDArray[np.floating]


class Split(NamedTuple):
    """Attributes: known: window scores of one half of the images; held_out (n,), ascending: which the others are."""

    known: Calibration
    held_out: npt.NDArray[np.int64]


def window_scores(scorer: Scorer, windows: Windows, images: Iterable[Image]) -> Iterator[Scores]:
    """Of each image (C, H, W) the scores of its windows (m,), in the precision of the search."""
    of_image = WindowScorer(scorer, windows.size, windows.stride, windows.standardize)
    for image in images:
        found = of_image(image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)).scores
        assert scorer.job is not None  # it has just searched
        yield found.astype(scorer.job.dtype_name)


def split(found: list[Scores], level: float, seed: int) -> Split:
    """Images in two halves, drawn by `seed`: split conformal, so that each may have a rank among what it is not in.

    ValueError where the half that is held out is too small for the level.
    """
    require_half(level, len(found))
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(found))
    held_out, others = np.sort(order[len(found) // 2 :]), np.sort(order[: len(found) // 2])
    return Split(Calibration(np.concatenate([found[number] for number in others])), held_out)


def require_half(level: float, n: int) -> None:
    """ValueError where half of n images, rounded up, are too few to calibrate on for the level."""
    if n < 2:
        raise ValueError(f"there must be 2 images at least, one for its windows and one to calibrate, got {n}")
    try:
        require(level, n - n // 2)
    except ValueError as error:
        raise ValueError(f"of {n} images half give their windows, and half calibrate: {error}") from error


def image_scores(found: Iterable[Scores], windows: Windows, known: Calibration | None) -> npt.NDArray[np.float64]:
    """One for each image, of the scores of its windows: (N,); NaN for NaN or Inf."""
    return np.array([image_score(np.where(np.isfinite(each), each, np.nan), windows, known) for each in found])
