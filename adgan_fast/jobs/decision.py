"""Whether an image is anomalous, as columns of a job: by scores of normal images, and a share of them to be flagged."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from ..calibration import Calibration
from .batch import Arrays

COLUMNS = ("p_value", "anomalous")


@dataclasses.dataclass(frozen=True)
class Decision:
    """By what a job decides.

    Attributes:
        calibration: scores of normal images by the job's generator and config.
        level: the share of normal images that is flagged at most, on average, see `Calibration.threshold`.

    Raises:
        ValueError: a calibration of too few images for the level; it says how many it takes.
    """

    calibration: Calibration
    level: float

    def __post_init__(self) -> None:
        self.calibration.threshold(self.level)

    def described(self) -> dict[str, Any]:
        """What of it decides the columns, for a job's description."""
        digest = hashlib.sha256(np.ascontiguousarray(self.calibration.scores).tobytes()).hexdigest()
        return {"calibration": {"images": len(self.calibration), "sha256": digest, "level": float(self.level)}}

    def columns(self, found: Arrays) -> Arrays:
        """Of rows with a "score": "p_value" (float64) and "anomalous" (bool); of no meaning where it is NaN."""
        scores = np.asarray(found["score"], np.float64)
        return {
            "p_value": self.calibration.p_values(scores),
            "anomalous": scores > self.calibration.threshold(self.level),
        }
