"""Whether an image is anomalous, as columns of a job: by scores of normal images, and a share of them to be flagged."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration import Calibration
from .batch import Arrays
from .lock import unusable

COLUMNS = ("p_value", "anomalous")
NAME = "calibration.json"
"""Of the file beside the parts that has the calibration's scores."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """By what a job decides.

    Attributes:
        calibration: scores of normal images by the job's generator and config.
        level: the share of normal images that is flagged at most, on average, see `Calibration.threshold`.
        windows: of a job by windows, window scores of normal images, by which those of an image are ranked; None: its
            score is a quantile of them.

    Raises:
        ValueError: a calibration of too few images for the level; it says how many it takes.
    """

    calibration: Calibration
    level: float
    windows: Calibration | None = None

    def __post_init__(self) -> None:
        self.calibration.threshold(self.level)

    def described(self) -> dict[str, Any]:
        """What of it decides the columns, for a job's description."""
        found: dict[str, Any] = {"images": len(self.calibration), "sha256": digest(self.calibration)}
        if self.windows is not None:
            found |= {"windows": len(self.windows), "sha256_of_windows": digest(self.windows)}
        return {"calibration": found | {"level": float(self.level)}}

    def keep(self, folder: Path) -> None:
        """The calibration beside a job's parts, unless it is there. FolderUnusable where it cannot be written."""
        if not (folder / NAME).exists():
            try:
                self.calibration.save(folder / NAME)
            except OSError as error:
                raise unusable(folder, error) from error

    def columns(self, found: Arrays) -> Arrays:
        """Of rows with a "score": "p_value" (float64) and "anomalous" (bool); of no meaning where it is NaN."""
        scores = np.asarray(found["score"], np.float64)
        return {
            "p_value": self.calibration.p_values(scores),
            "anomalous": scores > self.calibration.threshold(self.level),
        }


def digest(calibration: Calibration) -> str:
    """SHA-256 of its scores."""
    return hashlib.sha256(np.ascontiguousarray(calibration.scores).tobytes()).hexdigest()
