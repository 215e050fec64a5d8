"""The area under the ROC curve, its bootstrap interval, and curves averaged over classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95


class NotFinite(ValueError):
    """Scores that are NaN or infinite."""


class Auc(NamedTuple):
    """The area, and the ends of its interval at LEVEL."""

    value: float
    low: float
    high: float


def auc(scores: npt.ArrayLike, anomalous: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Auc:
    """The chance that an anomalous image scores above a normal one, ties counted half, by percentile bootstrap.

    The bootstrap resamples normal and anomalous test items apart, so that no resample lacks either.

    Args:
        scores: (N,), higher = more anomalous; finite.
        anomalous: bool (N,), both kinds present.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        NotFinite: scores that are not finite.
        ValueError: one kind alone.
    """
    scores, anomalous = np.asarray(scores, np.float64), np.asarray(anomalous, bool)
    if not np.isfinite(scores).all():
        raise NotFinite(f"{np.sum(~np.isfinite(scores))} of {len(scores)} scores are not finite")
    if anomalous.all() or not anomalous.any():
        raise ValueError("an AUC needs normal and anomalous items")
    levels, position = np.unique(scores, return_inverse=True)
    normal, other = position[~anomalous], position[anomalous]

    def area(of_normal: npt.NDArray[np.intp], of_other: npt.NDArray[np.intp]) -> float:
        counts = np.bincount(of_normal, minlength=len(levels))
        below = np.cumsum(counts) - 0.5 * counts  # normal items below each level, ties half
        return float(below[of_other].mean() / len(of_normal))

    random = np.random.Generator(np.random.Philox(seed))
    drawn = [
        area(
            normal[random.integers(len(normal), size=len(normal))], other[random.integers(len(other), size=len(other))]
        )
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if drawn else (np.nan, np.nan)
    return Auc(area(normal, other), float(low), float(high))


def mean_curve(
    curves: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], points: int = 201
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """ROC curves (false, true positive rates) averaged at equal false positive rates."""
    grid = np.linspace(0, 1, points)
    return grid, np.mean([np.interp(grid, false, true) for false, true in curves], axis=0)
