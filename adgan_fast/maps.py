"""Where an image is anomalous: maps of residuals, smoothed, and how well they find what masks say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .core.residuals import residual
from .given import is_number

Array = npt.NDArray[np.floating]

__all__ = ["per_region_overlap", "pixel_auroc", "residual", "smoothed"]

LIMIT = 0.3
"""Share of normal pixels flagged up to which the per-region overlap is integrated (Bergmann et al. 2020)."""
_LEVELS = 5000
"""Thresholds of the per-region overlap, at most: values of normal pixels, evenly by rank."""


def smoothed(maps: torch.Tensor | Array, sigma: float) -> Array:
    """Maps (N, H, W) through a Gaussian filter of standard deviation `sigma` pixels, edges mirrored: (N, H, W).

    A generator never draws a sharp edge exactly where the image has it: raw residuals are thin lines along edges, in
    normal images as well. sigma 0 changes nothing.

    Raises ValueError for another shape or a sigma that is negative or not finite.
    """
    given = _maps(maps)
    if not is_number(sigma) or not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma must be a finite number of at least 0, got {sigma!r}")
    if sigma == 0:
        return given
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(given, sigma=(0, sigma, sigma), mode="reflect")


def pixel_auroc(maps: torch.Tensor | Array, masks: npt.ArrayLike) -> float:
    """Area under the ROC curve of single pixels.

    Args:
        maps: (N, H, W), higher = more anomalous; finite.
        masks: bool (N, H, W), True where a pixel is anomalous; normal images have none.

    Raises:
        ValueError: shapes that differ, numbers that are not finite, pixels of one kind alone.
    """
    from sklearn.metrics import roc_auc_score

    found, truth = _with_masks(maps, masks)
    return float(roc_auc_score(truth.ravel(), found.ravel()))


def per_region_overlap(maps: torch.Tensor | Array, masks: npt.ArrayLike, limit: float = LIMIT) -> float:
    """PRO: the mean share of each anomalous region that is flagged, integrated over thresholds, from 0 to 1.

    A region is a connected part of a mask (by edges and corners); so a small one counts as much as a large one, unlike
    in `pixel_auroc`. Integrated over the share of normal pixels flagged, from 0 to `limit`, and divided by it (Bergmann
    et al. 2020, "Uninformed Students", Sect. 4.1); between two thresholds, and through ties, the curve is a line.

    Args, raises: as for `pixel_auroc`; limit lies in (0, 1].
    """
    from scipy.ndimage import label

    if not is_number(limit) or not 0 < limit <= 1:
        raise ValueError(f"limit must be a number above 0 and at most 1, got {limit!r}")
    found, truth = _with_masks(maps, masks)
    normal = np.sort(found[~truth])
    levels = np.unique(normal[np.linspace(0, len(normal) - 1, min(len(normal), _LEVELS)).astype(int)])[::-1]
    thresholds = np.concatenate([[np.nextafter(normal[-1], np.inf)], levels])  # falling; flagged: at least so high
    shares = 1 - np.searchsorted(normal, thresholds, side="left") / len(normal)
    overlaps = []
    for map_, mask in zip(found, truth, strict=True):
        regions, count = label(mask, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            values = np.sort(map_[regions == region])
            overlaps.append(1 - np.searchsorted(values, thresholds, side="left") / len(values))
    x, y = np.append(shares, 1.0), np.append(np.mean(overlaps, axis=0), 1.0)
    grid = np.append(x[x < limit], limit)
    mean = np.append(y[x < limit], np.interp(limit, x, y))
    return float(np.sum((mean[1:] + mean[:-1]) / 2 * np.diff(grid)) / limit)


def _maps(maps: torch.Tensor | Array) -> Array:
    given = maps.detach().cpu().double().numpy() if isinstance(maps, torch.Tensor) else np.asarray(maps, np.float64)
    if given.ndim != 3:
        raise ValueError(f"maps must have shape (N, H, W), got {given.shape}")
    return given


def _with_masks(maps: torch.Tensor | Array, masks: npt.ArrayLike) -> tuple[Array, npt.NDArray[np.bool_]]:
    found, truth = _maps(maps), np.asarray(masks).astype(bool)
    if found.shape != truth.shape:
        raise ValueError(f"maps have shape {found.shape}, masks {truth.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{np.sum(~np.isfinite(found).all((1, 2)))} of {len(found)} maps hold NaN or Inf")
    if truth.all() or not truth.any():
        raise ValueError("masks must have both anomalous and normal pixels")
    return found, truth
