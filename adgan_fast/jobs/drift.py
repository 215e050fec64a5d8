"""Drift: whether the images of a job still score as those that it was calibrated on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..calibration import Calibration, Drift
from .decision import NAME, digest
from .errors import JobDamaged
from .finished import Finished

MOST = 20_000
"""Scores that a test of drift takes; of more it takes so many, evenly by their places."""

FEW = 0.5
"""Too few are scores of which no smaller distance than this would be seen, of distances from 0 to 1."""


class JobDrift(NamedTuple):
    """The images of a job against its calibration.

    Attributes:
        test: see `adgan_fast.calibration.Drift`; its `n` is how many scores were compared.
        images: those that count as normal, and have a score.
        flagged: how many of them the job calls anomalous.
        level: the share of normal images that it may so call, on average.
        calibration: how many images it was calibrated on.
        known: whether labels say that they are normal; else all were taken for it.
    """

    test: Drift
    images: int
    flagged: int
    level: float
    calibration: int
    known: bool

    def has_drifted(self, alpha: float) -> bool:
        """Whether a test at this level says so."""
        return self.test.p_value <= alpha

    def counted(self) -> str:
        """In words, how many are flagged, and how many would be expected."""
        what = "normal images" if self.known else "images"
        share = f"{self.flagged:,} of {self.images:,} {what} ({100 * self.flagged / self.images:.1f} %)"
        return (
            f"{share} are called anomalous; of normal images it would be {100 * self.level:g} % at most, on average. "
            f"Calibrated on {self.calibration:,} images."
        )

    def detectable(self, alpha: float) -> float:
        """The distance from which on a test at this level rings, about; 1 is the largest that there is.

        By Smirnov's limit, sqrt((1/n + 1/m) ln(2/alpha) / 2) for n and m scores (Smirnov 1948).
        """
        return math.sqrt((1 / self.test.n + 1 / self.calibration) * math.log(2 / alpha) / 2)

    def too_few(self, alpha: float) -> bool:
        """Whether there are too few scores to say that nothing has drifted: see FEW."""
        return not self.has_drifted(alpha) and self.detectable(alpha) > FEW

    def said(self, alpha: float) -> str:
        """In words, with what to do."""
        p, n, of = f"p = {self.test.p_value:.3g}", self.test.n, f"{self.calibration:,} of the calibration"
        images = f"{n:,} image{'s' if n > 1 else ''}"
        if self.too_few(alpha):
            return (
                f"Too few to say: no drift is seen, but with {images} against the {of} only a drastic one would be "
                f"({p})."
            )
        if not self.has_drifted(alpha):
            return f"No drift is seen: {images} score{'' if n > 1 else 's'} as the {of} do ({p})."
        if self.test.above > 0.5:
            side, means = "higher", "more normal images may be flagged than was asked for"
        else:
            side, means = "lower", "anomalies may pass"
        moved = f"do not score as the {of}, but {side} on the whole ({images}, {p}), so that {means}"
        todo = "Find out what has changed, and calibrate anew."
        if self.known:
            return f"Drift: these normal images {moved}. {todo}"
        return (
            f"If these images are normal, there is drift: they {moved}. {todo} If there are anomalies among them, "
            "the test says nothing: give it normal images alone."
        )


def calibration_of(found: Finished) -> Calibration:
    """What a job with a decision was calibrated on. Raises JobDamaged where what lies there is another."""
    path = found.folder / NAME
    try:
        known = Calibration.load(path)
    except ValueError as error:
        raise JobDamaged(str(error)) from error
    if digest(known) != found.description["calibration"]["sha256"]:
        raise JobDamaged(f"{path} is not the calibration of the job: remove it, and run the job again")
    return known


def is_calibrated(found: Finished) -> bool:
    """Whether what it was calibrated on lies beside the job: not of one by an older version."""
    return "calibration" in found.description and (found.folder / NAME).exists()


def threshold_of(found: Finished) -> float:
    """The score above which a job that `is_calibrated` calls an image anomalous. Raises as `calibration_of`."""
    return calibration_of(found).threshold(_level_of(found))


def untestable(found: Finished, normal: Sequence[str] = ()) -> str:
    """Why `drift` cannot test a job, or ""."""
    if not is_calibrated(found):
        return "scored without a detector, or by an older version: adgan-fast score DETECTOR IMAGES"
    if "adaptive" in found.description.get("config", {}):
        return (
            "scored with adaptive=, so that many scores are of few starts, and those of the calibration of all: they "
            "differ where nothing has changed. Score without it, or take Detector.drift, which does so"
        )
    if not _taken(found, normal).any():
        return f"no image{' with such a label' if normal else ''} has a score"
    return ""


def drift(found: Finished, normal: Sequence[str] = ()) -> JobDrift:
    """Do the images of a job still score as those that it was calibrated on?

    Args:
        normal: labels of normal images, which alone are compared; without any, all images are taken for normal.

    Raises:
        JobDamaged: see `calibration_of`.
        ValueError: where it is `untestable`.
    """
    if why := untestable(found, normal):
        raise ValueError(f"{found.folder}: {why}")
    known, taken = calibration_of(found), _taken(found, normal)
    some = found.numbers("score")[taken]
    compared = some[np.linspace(0, len(some) - 1, min(len(some), MOST)).astype(int)]
    flagged = np.array(found.texts("anomalous"), object)[taken]
    return JobDrift(
        known.drift(compared), len(some), int(sum(map(bool, flagged))), _level_of(found), len(known), bool(normal)
    )


def _level_of(found: Finished) -> float:
    return float(found.description["calibration"]["level"])


def _taken(found: Finished, normal: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which images are compared, (N,)."""
    scored = np.isfinite(found.numbers("score"))
    return scored & np.isin(np.array(found.texts("label"), object), list(normal)) if normal else scored
