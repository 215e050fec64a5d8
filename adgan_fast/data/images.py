"""Pictures of pictures: a batch of images as one PNG."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from .. import files
from ..given import whole


def grid(
    images: torch.Tensor | npt.NDArray[np.generic], columns: int | None = None, *, pad: int = 1
) -> npt.NDArray[np.uint8]:
    """N images side by side, row by row, as one picture.

    Args:
        images: (N, C, H, W) with C = 1 or 3; float in [-1, 1] (clipped to it; NaN shows black) or uint8.
        columns: images in a row; about the square root of N when None.
        pad: width of the grey lines between and around them, in pixels.

    Returns:
        (height, width) for C = 1, else (height, width, 3), uint8.
    """
    if isinstance(images, torch.Tensor):
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()  # NumPy has no bfloat16
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or len(array) == 0:
        raise ValueError(f"images must have shape (N, 1 or 3, H, W) with N at least 1, got {array.shape}")
    if array.dtype != np.uint8:
        array = np.nan_to_num(array.astype(np.float32), nan=-1.0)
        array = np.rint((array.clip(-1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    count, channels, height, width = array.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else min(whole("columns", columns, 1), count)
    pad = whole("pad", pad, 0)
    rows = math.ceil(count / columns)
    picture = np.full((pad + rows * (height + pad), pad + columns * (width + pad), channels), 128, dtype=np.uint8)
    for index, image in enumerate(array):
        top, left = pad + index // columns * (height + pad), pad + index % columns * (width + pad)
        picture[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return picture[..., 0] if channels == 1 else picture


def save_grid(
    images: torch.Tensor | npt.NDArray[np.generic],
    path: str | os.PathLike[str],
    columns: int | None = None,
    *,
    pad: int = 1,
    scale: int = 1,
) -> Path:
    """Writes ``grid(images, columns, pad=pad)``, every pixel ``scale`` times as large, as a PNG file."""
    scale, path, png = whole("scale", scale, 1), Path(path), io.BytesIO()
    picture = Image.fromarray(grid(images, columns, pad=pad))
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(png, format="PNG")
    files.replace(path, png.getvalue())
    return path
