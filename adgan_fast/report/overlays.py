"""Maps drawn over their images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .. import maps as of_residuals

Array = npt.NDArray[np.floating]

COLOURS = "inferno"
"""Of matplotlib: dark and faint where a map is low, so that the image is seen there."""


def residual_maps(
    images: npt.NDArray[np.float32], reconstructions: npt.NDArray[np.float32], loss: str = "l2", sigma: float = 0.0
) -> Array:
    """Where images differ from their reconstructions, (N, C, H, W) twice to (N, H, W): see `maps.residual`, `smoothed`.

    Raises ValueError for a sigma that is negative or not finite.
    """
    found = of_residuals.residual(torch.from_numpy(reconstructions), torch.from_numpy(images), loss)
    return of_residuals.smoothed(found, sigma)


def overlays(images: npt.ArrayLike, maps: npt.ArrayLike, *, scale: float | None = None) -> npt.NDArray[np.uint8]:
    """Each image in grey with its map over it in colour, the more opaque the higher: (N, H, W, 3) uint8.

    Args:
        images: (N, C, H, W) in [-1, 1], of any number of channels: their mean is shown.
        maps: (N, H, W), at least 0.
        scale: the value of a map that is drawn at full colour; the largest of all when None. One scale for all, so that
            what is normal in every image stays dark.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, a scale that is not positive.
    """
    from matplotlib import colormaps

    shown, heat = np.asarray(images, np.float64), np.asarray(maps, np.float64)
    if shown.ndim != 4 or heat.shape != (shown.shape[0], *shown.shape[2:]):
        raise ValueError(f"images must be (N, C, H, W) and maps (N, H, W), got {shown.shape} and {heat.shape}")
    if not (np.isfinite(shown).all() and np.isfinite(heat).all()):
        raise ValueError("images and maps must be finite")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be positive, got {scale!r}")
    most = scale or float(heat.max(initial=0.0)) or 1.0
    share = np.clip(heat / most, 0, 1)
    grey = np.repeat((np.clip(shown.mean(1), -1, 1)[..., None] + 1) / 2, 3, axis=-1)
    colour = colormaps[COLOURS](share)[..., :3]
    opacity = np.sqrt(share)[..., None]
    return np.rint(255 * (grey * (1 - opacity) + colour * opacity)).astype(np.uint8)
