"""Calibration: scores of normal images, and by them how unusual another score is: p-values, thresholds, drift.

Split conformal prediction (Vovk, Gammerman, Shafer 2005; for outliers Bates, Candès, Lei, Romano, Sesia 2023): of n
scores of normal images that the generator was not trained on, and one more of the same kind, every order is as likely
as any other. So the rank of a score among them says how unusual it is, whatever scores look like.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import files
from .given import is_number

FORMAT = "adgan_fast.calibration"
VERSION = 1
PERMUTATIONS = 999
CONTAMINATION = 0.1
"""The share of normal images that a detector flags at most, on average, where none is given."""


class Drift(NamedTuple):
    """Whether scores of today are those of a calibration.

    Attributes:
        p_value: how likely a difference of this size is where nothing has changed. A small one says that the normal
            images, or what takes them, are no longer what was calibrated on: calibrate anew.
        distance: the largest difference between the two distribution functions (Kolmogorov and Smirnov), 0 to 1.
        above: how likely a score of today is above one of the calibration, ties by half: 0.5 where nothing has moved,
            1 where all of today's are above.
        n: how many scores of today were compared.
    """

    p_value: float
    distance: float
    above: float
    n: int


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of normal images that the generator was not trained on.

    It holds for the generator and the settings that they were scored with, and for no other.

    Attributes:
        scores: (n,) float64, ascending. Given in any order.
        about: what it is of, as JSON: free to choose, and kept in the file.

    Raises:
        ValueError: no score, or one that is NaN or Inf.
    """

    scores: npt.NDArray[np.float64]
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        scores = _finite("calibration", self.scores)
        scores.sort()
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.scores)

    def p_values(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Conformal p-values of scores (N,): (1 + number of calibration scores at least as high) / (n + 1).

        Of normal images a share of at most α has one of at most α, on average over calibrations. The least that there
        is is 1 / (n + 1). NaN for NaN.
        """
        given = np.asarray(scores, np.float64)
        above = len(self) - np.searchsorted(self.scores, given, side="left")
        return np.where(np.isnan(given), np.nan, (1 + above) / (len(self) + 1))

    def threshold(self, alpha: float) -> float:
        """The score beyond which (>) an image is flagged at level `alpha`: where its p-value is at most alpha.

        Raises ValueError for an alpha outside (0, 1), or too small for so few scores: see `images_needed`.
        """
        return float(self.scores[len(self) - self._flags(alpha)])

    def false_alarms(self, alpha: float, confidence: float = 0.95) -> tuple[float, float]:
        """Between which rates the false alarms of `threshold(alpha)` lie, for this one calibration: (low, high).

        On average over calibrations they are alpha; those of one are distributed as Beta(k, n + 1 - k), k the whole
        part of alpha (n + 1), where scores have no ties (Vovk 2012). With ties they are fewer. Needs SciPy.

        Args:
            confidence: in (0, 1): with this probability the rate lies between the two.
        """
        from scipy.stats import beta

        k = self._flags(alpha)
        low, high = beta.interval(_share("confidence", confidence), k, len(self) + 1 - k)
        return float(low), float(high)

    def drift(self, scores: npt.ArrayLike) -> Drift:
        """Are scores (N,) of images that are known to be normal still those of the calibration?

        A two-sample test. The p-value comes from random permutations (always the same), and so holds for any numbers
        of scores, and with ties: (1 + those with a distance at least as large) / 1000.

        Raises ValueError for no score, or one that is NaN or Inf.
        """
        today = np.sort(_finite("scores of today", scores))
        n, m = len(self), len(today)
        pooled = np.concatenate([self.scores, today])
        order = np.argsort(pooled, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(pooled[order])), n + m - 1)  # of groups of equal scores
        steps = np.where(order < n, m, -n)  # whole numbers, n · m times the two steps: sums of them are exact
        random = np.random.Generator(np.random.Philox(0))
        observed = _distance(steps, ends)
        as_large = sum(_distance(random.permutation(steps), ends) >= observed for _ in range(PERMUTATIONS))
        below, up_to = (np.searchsorted(self.scores, today, side=side) for side in ("left", "right"))
        above = (below.sum() + up_to.sum()) / (2 * n * m)
        return Drift((1 + as_large) / (1 + PERMUTATIONS), observed / (n * m), float(above), m)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes it to one JSON file, whole or not at all; every bit of a score is kept."""
        head = {"format": FORMAT, "version": VERSION, "about": self.about, "scores": self.scores.tolist()}
        files.replace(Path(path), json.dumps(head, allow_nan=False).encode())
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """What `save` wrote. ValueError naming the file where it is damaged, or is something else."""
        head = files.read_head(Path(path), FORMAT, VERSION, "calibration")
        scores, about = head.get("scores"), head.get("about")
        if not isinstance(about, dict) or not isinstance(scores, list) or not all(map(is_number, scores)):
            raise ValueError(f"{path}: its scores or its about entry is missing or malformed")
        try:
            return cls(np.array(scores, np.float64), about)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _flags(self, alpha: float) -> int:
        """k, how many of n + 1 alike scores are flagged at level alpha: the largest k with k / (n + 1) <= alpha."""
        require(alpha, len(self))
        k = math.floor(alpha * (len(self) + 1))
        while (k + 1) / (len(self) + 1) <= alpha:  # in the arithmetic of p_values, not only in exact numbers
            k += 1
        while k / (len(self) + 1) > alpha:
            k -= 1
        return k


def images_needed(alpha: float) -> int:
    """The least number n of calibration images for level `alpha`, the least with 1 / (n + 1) <= alpha.

    It makes the false alarms alpha on average, and those of one calibration anything between near 0 and some times
    alpha; `Calibration.false_alarms` says between what. With ten times as many they are near alpha.
    """
    alpha = _share("alpha", alpha)
    n = max(1, math.floor(1 / alpha) - 2)
    while 1 / (n + 1) > alpha:
        n += 1
    return n


def require(alpha: float, n: int) -> None:
    """ValueError where n calibration images are too few for level `alpha`, or that is outside (0, 1)."""
    if n < images_needed(alpha):
        raise ValueError(
            f"{n} calibration images are too few for a level of {alpha:g}, which needs {images_needed(alpha)} at "
            f"least: with {n} no level is below {1 / (n + 1):.3g}. Give more, or take a higher level"
        )


def _share(name: str, value: Any) -> float:
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} must be a number between 0 and 1, got {value!r}")
    return float(value)


def _distance(steps: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> int:
    return int(np.abs(np.cumsum(steps)[ends]).max())


def _finite(name: str, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A copy, (n,) float64, n > 0, all finite."""
    found = np.array(scores, np.float64).ravel()
    lost = int(np.sum(~np.isfinite(found)))
    if lost or not len(found):
        what = f"{lost} of {len(found)} are NaN or Inf: leave those images out" if lost else "got none"
        raise ValueError(f"{name} must be one or more finite scores, {what}")
    return found
