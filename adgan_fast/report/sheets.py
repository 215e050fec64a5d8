"""Very many small pictures as few: sheets of thumbnails, each one PNG or JPEG, in text."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..data.images import grid

CELLS, COLUMNS = 64, 8
"""Pictures on a sheet, and in a row of it."""
_EXACT = 32
"""Longest side up to which pictures are kept to the bit: they are shown large, where one sees what JPEG leaves."""
_QUALITY = 85

Pixels = npt.NDArray[np.uint8]


def shown(images: npt.NDArray[Any]) -> Pixels:
    """What can be looked at of images (N, C, H, W) in [-1, 1], or uint8: (N, 1 or 3, H, W) uint8.

    Of other numbers of channels than 1 and 3 the mean is shown; what is not finite is black.
    """
    if images.dtype != np.uint8:
        images = np.rint((np.nan_to_num(images, nan=-1.0).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return images if images.shape[1] in (1, 3) else np.rint(images.mean(1, keepdims=True)).astype(np.uint8)


def thumbnails(pictures: Pixels, side: int) -> Pixels:
    """(N, C, H, W) with the longer side at most `side`: each pixel the mean of those that it stands for."""
    height, width = pictures.shape[2:]
    longest = max(height, width)
    if longest <= side:
        return pictures
    to = max(1, height * side // longest), max(1, width * side // longest)
    smaller = torch.nn.functional.interpolate(torch.from_numpy(pictures).float(), size=to, mode="area")
    return smaller.round().to(torch.uint8).numpy()


def sheet(pictures: Pixels) -> str:
    """Up to CELLS pictures (n, 1 or 3, h, w), row by row, COLUMNS in a row, as a data URI."""
    picture, file = Image.fromarray(grid(pictures, COLUMNS, pad=0)), io.BytesIO()
    exact = max(pictures.shape[2:]) <= _EXACT
    if exact:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"
