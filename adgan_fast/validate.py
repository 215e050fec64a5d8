"""Checks on the images that a user hands in; every error names what was given, what was expected, and the remedy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

RANGE_SLACK = 1e-3
SCAN_IMAGES = 1024


def as_images(images: Any, device: torch.device | None = None) -> torch.Tensor:
    """Images as a tensor (N, C, H, W) that shares the caller's memory where it can; dtype as given.

    Takes a tensor or ndarray of floats or uint8, (N, C, H, W) or (N, H, W). Raises TypeError or ValueError.
    """
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 and images.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
            raise TypeError(f"images must be floats in [-1, 1] or uint8, got an array of {images.dtype}")
        if any(stride < 0 for stride in images.strides) or not images.dtype.isnative:
            images = np.array(images, dtype=images.dtype.newbyteorder("="))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writ")  # nobody writes to it
            images = torch.from_numpy(images)
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a tensor or an ndarray, got {type(images).__name__}")
    if images.dtype not in (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"images must be floats in [-1, 1] or uint8, got {images.dtype}")
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4:
        raise ValueError(f"images must have shape (N, C, H, W) or (N, H, W), got {tuple(images.shape)}")
    return images.detach()


def to_range(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Images in `dtype`, scaled to [-1, 1] if uint8 (x / 127.5 − 1); images with NaN or Inf come back as zeros."""
    if images.dtype == torch.uint8:
        return images.to(dtype) / 127.5 - 1
    images = images.to(dtype)
    return torch.where(_finite(images)[:, None, None, None], images, torch.zeros_like(images))


def scan(images: torch.Tensor, strict: bool) -> torch.Tensor:
    """Whether each image is finite: (N,) bool. Reads a part at a time, so that a mapped file stays on disk.

    Raises ValueError if a finite value lies outside [-1, 1] by over 1e-3, or if `strict` and any image has NaN or Inf.
    """
    if images.dtype == torch.uint8:
        return torch.ones(len(images), dtype=torch.bool, device=images.device)
    finite = [torch.ones(0, dtype=torch.bool, device=images.device)]
    for part in images.split(SCAN_IMAGES) if images.numel() else ():
        good = _finite(part)
        finite.append(good)
        if bool(good.any()):
            _check_range(*(float(x) for x in torch.aminmax(part[good])))
    every = torch.cat(finite)
    bad = int((~every).sum())
    if bad and strict:
        raise ValueError(f"{bad} of {len(images)} images hold NaN or Inf (strict=True)")
    return every


def warn_of_not_finite(finite: torch.Tensor) -> None:
    """Count in a warning the images that are not `finite` (N,), if there are any."""
    bad = int((~finite).sum())
    if bad:
        warnings.warn(f"{bad} of {len(finite)} images hold NaN or Inf; they score NaN", RuntimeWarning, stacklevel=4)


def _finite(images: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(images).flatten(1).all(1)


def out_of_range(low: float, high: float) -> str:
    """What is wrong with images that leave [-1, 1], and the remedy."""
    return (
        f"images must lie in [-1, 1], they span [{low:.4g}, {high:.4g}]; scale them there "
        "(x * 2 - 1 from [0, 1]), or pass uint8, which is scaled as x / 127.5 - 1"
    )


def _check_range(low: float, high: float) -> None:
    if low < -1 - RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise ValueError(out_of_range(low, high))
