"""How well scores tell anomalous images from normal ones: areas and curves, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Area", "Curve", "NotFinite", "auc", "precision_recall", "roc"]

RESAMPLES = 2000
CURVE_RESAMPLES = 500
LEVEL = 0.95
POINTS = 101
"""Of a band."""

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.intp]


class NotFinite(ValueError):
    """Scores that are NaN or infinite."""


class Area(NamedTuple):
    """An area under a curve, and the ends of its interval at LEVEL."""

    value: float
    low: float
    high: float


class Curve(NamedTuple):
    """A curve, the area under it, and a band in which it lies with the chance LEVEL, point by point.

    Attributes:
        x, y: its points, from the highest threshold to the lowest, (n,).
        area: under it.
        at: where the band is known, (POINTS,), from 0 to 1.
        low, high: the ends of the band there, (POINTS,).
    """

    x: Array
    y: Array
    area: Area
    at: Array
    low: Array
    high: Array


def auc(scores: npt.ArrayLike, anomalous: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Area:
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
    levels, normal, other = _positions(scores, anomalous)

    def area(of_normal: Counts, of_other: Counts) -> float:
        counts = np.bincount(of_normal, minlength=levels)
        below = np.cumsum(counts) - 0.5 * counts  # normal items below each level, ties half
        return float(below[of_other].mean() / len(of_normal))

    drawn = [area(*sample) for sample in _resampled(normal, other, resamples, seed)]
    return Area(area(normal, other), *_interval(drawn))


def roc(scores: npt.ArrayLike, anomalous: npt.ArrayLike, *, resamples: int = CURVE_RESAMPLES, seed: int = 0) -> Curve:
    """The ROC curve: of normal images the share flagged (x), of anomalous ones (y). Args, raises: as `auc`."""
    levels, normal, other = _positions(scores, anomalous)

    def curve(of_normal: Counts, of_other: Counts) -> tuple[Array, Array]:
        false, true = _flagged(of_normal, levels), _flagged(of_other, levels)
        return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])

    at = np.linspace(0, 1, POINTS)
    drawn = [np.interp(at, *curve(*sample)) for sample in _resampled(normal, other, resamples, seed)]
    area = auc(scores, anomalous, resamples=resamples, seed=seed)
    return Curve(*curve(normal, other), area, at, *_band(drawn))


def precision_recall(
    scores: npt.ArrayLike, anomalous: npt.ArrayLike, *, resamples: int = CURVE_RESAMPLES, seed: int = 0
) -> Curve:
    """Recall (x) and precision (y); the area is the average precision, Σ (R_i − R_(i−1)) P_i. Args, raises: as `auc`.

    Precision depends on the share of anomalous images: these are as many as were given.
    """
    levels, normal, other = _positions(scores, anomalous)

    def curve(of_normal: Counts, of_other: Counts) -> tuple[Array, Array]:
        false, true = _flagged(of_normal, levels), _flagged(of_other, levels)
        some = np.maximum(false + true, 1)
        return true / true[-1], true / some

    def area(recall: Array, precision: Array) -> float:
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))

    at = np.linspace(0, 1, POINTS)
    drawn, areas = [], []
    for sample in _resampled(normal, other, resamples, seed):
        recall, precision = curve(*sample)
        drawn.append(precision[np.searchsorted(recall, at[1:] - 1e-12)])  # at the highest threshold that reaches it
        areas.append(area(recall, precision))
    found = curve(normal, other)
    return Curve(*found, Area(area(*found), *_interval(areas)), at[1:], *_band(drawn))


def _positions(scores: npt.ArrayLike, anomalous: npt.ArrayLike) -> tuple[int, Counts, Counts]:
    """How many values there are, and which of them, in ascending order, normal and anomalous items have."""
    scores, anomalous = np.asarray(scores, np.float64), np.asarray(anomalous, bool)
    if not np.isfinite(scores).all():
        raise NotFinite(f"{np.sum(~np.isfinite(scores))} of {len(scores)} scores are not finite")
    if anomalous.all() or not anomalous.any():
        raise ValueError("an AUC needs normal and anomalous items")
    levels, position = np.unique(scores, return_inverse=True)
    return len(levels), position[~anomalous], position[anomalous]


def _flagged(items: Counts, levels: int) -> Counts:
    """How many items reach each value, from the highest one to the lowest."""
    return np.cumsum(np.bincount(items, minlength=levels)[::-1])


def _resampled(normal: Counts, other: Counts, resamples: int, seed: int) -> Iterator[tuple[Counts, Counts]]:
    random = np.random.Generator(np.random.Philox(seed))
    for _ in range(resamples):
        yield (
            normal[random.integers(len(normal), size=len(normal))],
            other[random.integers(len(other), size=len(other))],
        )


def _interval(drawn: list[float]) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if drawn else (np.nan, np.nan)
    return float(low), float(high)


def _band(drawn: list[Array]) -> tuple[Array, Array]:
    if not drawn:
        return np.empty(0), np.empty(0)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high
