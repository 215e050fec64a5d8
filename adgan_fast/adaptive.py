"""Adaptive: when an image has had starts enough. Statistics alone: who searches (rounds.py) asks it after each round.

The starts of an image are alike before they are searched, so those searched so far are a sample, without replacement,
of the n_seed losses whose mean is its score. Around their mean lies an interval for that score, in units of its
standard error with the correction for a finite population, sqrt((1 − m/n_seed)/m) times the losses' standard deviation
(Cochran 1977, "Sampling Techniques", Sect. 2.5). An image is settled once the interval holds no two answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .calibration import Calibration, require
from .given import is_number, whole

Array = npt.NDArray[np.float64]

NOT_BY_WINDOWS = "adaptive= settles the decision on an image that is searched whole, not one by windows"


@dataclasses.dataclass(frozen=True, eq=False)
class Adaptive:
    """Adds starts to an image in rounds, and no more once its decision, or its rank, is settled.

    An image that is settled has as its score the mean over the starts that it has had. Give either `threshold` or
    `calibration`, by what an image is settled.

    Attributes:
        threshold: whether the score over all n_seed starts is above it.
        calibration: its p-value among these scores, to within `tolerance`.
        losses: (n, n_seed) final losses of normal images, n_seed starts each, that the generator was not trained on, of
            the same search: the intervals are as wide as these ask for (split conformal prediction, over all rounds at
            once). So `confidence` holds of normal images, on average over calibrations, however losses are distributed
            (of a decision for each of its two errors by itself, so that both may come to twice as much), and of
            anomalous ones nothing is promised. When None, intervals are Student's, the confidence shared out
            over the rounds (Bonferroni), as if losses were normal: theirs have a long tail, so that images near the
            threshold are settled wrongly more often than said.
        confidence: in (0, 1), with which the settled answer is that of all n_seed starts.
        tolerance: of the p-value, 0 to 1; for `calibration` alone.
        rounds: starts after which an image is looked at, rising, 2 at least; those of n_seed or more are left out.
            An engine that computes several starts of an image together (`grouped` and `eager` on a CPU, for small
            generators) is asked after whole groups of them.

    Raises:
        ValueError: naming what is wrong; also where `losses` are too few for the confidence, with how many it takes.
    """

    threshold: float | None = None
    calibration: Calibration | None = None
    losses: npt.NDArray[np.floating] | None = None
    confidence: float = 0.99
    tolerance: float = 0.05
    rounds: tuple[int, ...] = (8, 16, 32)

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.calibration is None):
            raise ValueError("adaptive takes either a threshold or a calibration, by which an image is settled")
        if self.threshold is not None:
            if not is_number(self.threshold) or not math.isfinite(self.threshold):
                raise ValueError(f"threshold must be a finite number, got {self.threshold!r}")
            object.__setattr__(self, "threshold", float(self.threshold))
        elif not isinstance(self.calibration, Calibration):
            raise ValueError(f"calibration must be a Calibration, got {type(self.calibration).__name__}")
        if not is_number(self.confidence) or not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be a number between 0 and 1, got {self.confidence!r}")
        if not is_number(self.tolerance) or not 0 <= self.tolerance <= 1:
            raise ValueError(f"tolerance must be a number from 0 to 1, got {self.tolerance!r}")
        if not isinstance(self.rounds, (tuple, list)) or not self.rounds:
            raise ValueError(f"rounds must be numbers of starts, got {self.rounds!r}")
        rounds = tuple(whole("rounds", count, 2) for count in self.rounds)
        if list(rounds) != sorted(set(rounds)):
            raise ValueError(f"rounds must rise, got {self.rounds!r}")
        object.__setattr__(self, "rounds", rounds)
        if self.losses is not None:
            losses = np.array(self.losses, np.float64)
            if losses.ndim != 2 or not losses.size or not np.isfinite(losses).all():
                raise ValueError(f"losses must be finite numbers (n, n_seed), got an array {losses.shape}")
            losses.flags.writeable = False
            object.__setattr__(self, "losses", losses)
            require(self._level, len(losses))

    @property
    def _level(self) -> float:
        """How often an end of the interval may be wrong: a decision has an error at each end, a rank one of both."""
        level = level_of(self.confidence)
        return level if self.calibration is None else level / 2

    def rule(self, n_seed: int, together: int = 1) -> Rule:
        """The rule for searches of n_seed starts, by an engine that computes `together` starts of an image at once."""
        if self.losses is not None and self.losses.shape[1] != n_seed:
            raise ValueError(
                f"losses are of {self.losses.shape[1]} starts an image, this search has {n_seed}: they must be of the "
                "same search"
            )
        looks = tuple(sorted({-(-count // together) * together for count in self.rounds}))
        looks = tuple(count for count in looks if count < n_seed)
        if looks and self.losses is not None:
            low, high = _conformal(self.losses, looks, self._level)
            return Rule(self, n_seed, looks, (low,) * len(looks), (high,) * len(looks))
        factors = tuple(student(1 - self._level / len(looks), count - 1) for count in looks)
        return Rule(self, n_seed, looks, factors, factors)

    def described(self) -> dict[str, Any]:
        """What of it decides scores, as JSON; arrays by their hash."""
        found: dict[str, Any] = {"confidence": self.confidence, "rounds": list(self.rounds)}
        if self.threshold is not None:
            found["threshold"] = self.threshold
        if self.calibration is not None:
            found |= {"calibration": _hash(self.calibration.scores), "tolerance": self.tolerance}
        if self.losses is not None:
            found["losses"] = _hash(self.losses)
        return found

    def __eq__(self, other: object) -> bool:
        """By what it decides."""
        return self.described() == other.described() if isinstance(other, Adaptive) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.threshold, self.confidence, self.rounds))


@dataclasses.dataclass(frozen=True)
class Rule:
    """An `Adaptive` for searches of so many starts.

    Attributes:
        looks: starts after which to look, rising, below n_seed.
        low, high: of each, how many standard errors the interval reaches below the mean and above it.
    """

    adaptive: Adaptive
    n_seed: int
    looks: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def settled(self, losses: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which images are settled by final losses (n, m) of their first m starts, m one of `looks`: (n,) bool.

        So is one with a loss that is NaN or Inf: it has no score, whatever others are.
        """
        given = np.asarray(losses, np.float64)
        count, look = given.shape[1], self.looks.index(given.shape[1])
        lost = np.logical_not(np.isfinite(given).all(1))
        mean, error = _sampled(np.where(np.isfinite(given), given, 0.0), count, self.n_seed)
        low, high = mean - self.low[look] * error, mean + self.high[look] * error
        if self.adaptive.threshold is not None:
            clear: npt.NDArray[np.bool_] = (high <= self.adaptive.threshold) | (low > self.adaptive.threshold)
        else:
            assert self.adaptive.calibration is not None
            p_values = self.adaptive.calibration.p_values
            clear = p_values(low) - p_values(high) <= self.adaptive.tolerance
        return lost | clear

    def starts_used(self, losses: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Of images whose n_seed final losses are all known, (n, n_seed), how many starts a search would use: (n,)."""
        given = np.asarray(losses, np.float64)
        used = np.full(len(given), self.n_seed)
        for count in reversed(self.looks):
            used[self.settled(given[:, :count])] = count
        return used


def level_of(confidence: float) -> float:
    """One minus a confidence, as it is written: 0.1 of 0.9."""
    return round(1 - confidence, 12)


def student(p: float, freedom: int) -> float:
    """The quantile of Student's t for p in [0.5, 1) and whole degrees of freedom.

    By bisection of its distribution function, a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < p and high < 2.0**200:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < p else (low, middle)
    return high


def _student_cdf(t: float, freedom: int) -> float:
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = cosine if odd else 1.0, 0.0
    for n in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (n - 1) / n
    within = (2 / math.pi) * (angle + sine * total) if odd else sine * total
    return (1 + within) / 2


def _sampled(losses: npt.NDArray[np.floating], count: int, n_seed: int) -> tuple[Array, Array]:
    """Of the first `count` losses of each image their mean, and its standard error as that of all n_seed."""
    first = np.ascontiguousarray(losses[:, :count])
    return first.mean(1), first.std(1, ddof=1) * math.sqrt((1 - count / n_seed) / count)


def _conformal(losses: npt.NDArray[np.floating], looks: tuple[int, ...], level: float) -> tuple[float, float]:
    """How many standard errors below the mean, and above it, hold the score at all looks but for a share of images.

    Of images like those of `losses` a share of at most `level` is beyond either one at any look.
    """
    score = losses.mean(1)
    beyond = []
    for count in looks:
        mean, error = _sampled(losses, count, losses.shape[1])
        off = score - mean
        beyond.append(np.divide(off, error, out=np.sign(off) * np.finfo(np.float64).max, where=error > 0))
    below, above = (Calibration(np.max(side, 0)).threshold(level) for side in (np.negative(beyond), beyond))
    return max(below, 0.0), max(above, 0.0)  # the mean itself lies within: what it decides is what is settled


def _hash(values: npt.NDArray[np.floating]) -> str:
    return hashlib.sha256(f"{values.shape}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()
