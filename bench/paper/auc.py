"""The area under the ROC curve as the package has it, and curves averaged over classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adgan_fast.metrics import NotFinite, auc

__all__ = ["NotFinite", "auc", "mean_curve"]


def mean_curve(
    curves: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], points: int = 201
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """ROC curves (false, true positive rates) averaged at equal false positive rates."""
    grid = np.linspace(0, 1, points)
    return grid, np.mean([np.interp(grid, false, true) for false, true in curves], axis=0)
