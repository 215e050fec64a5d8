"""Arrays of NumPy's own files, .npy and .npz; pickled ones are refused."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .image_set import ImageSet, to_model_range
from .paths import PathLike, existing_file


def load_arrays(
    path: PathLike,
    *,
    images: str | None = None,
    labels: str | None = None,
    layout: Literal["auto", "NCHW", "NHWC"] = "auto",
) -> ImageSet:
    """Images, and labels where there are any, from a ``.npy`` or ``.npz`` file.

    Args:
        path: the file. Images in it: (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 or float in [-1, 1].
        images: name of the images in an ``.npz``; needed where more than one array has three or four dimensions.
        labels: name of the labels in an ``.npz``, whole numbers (N,); when None, ``labels`` or ``y`` if there is one,
            or for images ``x_test`` (``x_...``) those named ``y_test``.
        layout: which axis holds the channels; ``"auto"`` takes the one of length 1 or 3.
    """
    pixels, classes = open_arrays(path, images=images, labels=labels, layout=layout)
    try:
        if pixels.dtype != np.uint8:
            pixels = to_model_range(pixels)
        # In memory, whatever becomes of the file.
        pixels = np.array(pixels) if isinstance(pixels, np.memmap) else np.ascontiguousarray(pixels)
        return ImageSet(pixels, None if classes is None else classes.astype(np.int64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def open_arrays(
    path: PathLike,
    *,
    images: str | None = None,
    labels: str | None = None,
    layout: Literal["auto", "NCHW", "NHWC"] = "auto",
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Images (N, C, H, W) as a file has them, those of an ``.npy`` left on disk (a memory map), and labels (N,) if any.

    Arguments and errors are those of ``load_arrays``; values are not looked at.
    """
    path = existing_file(path)
    if layout not in ("auto", "NCHW", "NHWC"):
        raise ValueError(f"layout must be 'auto', 'NCHW' or 'NHWC', got {layout!r}")
    classes = None
    if zipfile.is_zipfile(path):
        with Npz(path) as file:
            if images is None:
                candidates = [name for name in file.names if file.array(name).ndim in (3, 4)]
                if len(candidates) != 1:
                    listed = ", ".join(candidates) or "none"
                    raise ValueError(
                        f"{path}: one array has to be the images, candidates: {listed}: name it by images= (--column)"
                    )
                images = candidates[0]
            if labels is None:
                beside = f"y{images[1:]}"  # as Keras names them
                known = images.startswith("x_") and beside in file.names and file.array(beside).ndim == 1
                names = (beside, "labels", "y") if known else ("labels", "y")
                labels = next((name for name in names if name in file.names), None)
            pixels = file.array(images)
            classes = None if labels is None else file.array(labels)
    else:
        try:
            pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path}: not a .npy or .npz file of plain numbers: {error}") from error
    if classes is not None and (classes.ndim != 1 or classes.dtype.kind not in "iu"):
        found = f"{classes.dtype} {classes.shape}"
        raise ValueError(f"{path}: {labels} is {found}, expected whole numbers ({len(pixels)},)")
    try:
        return _channels_first(pixels, layout), classes
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _channels_first(images: npt.NDArray[Any], layout: str) -> npt.NDArray[Any]:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise ValueError(f"images of shape {images.shape}, expected (N, H, W), (N, C, H, W) or (N, H, W, C)")
    if layout == "auto":
        first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if first == last:
            which = "does not tell which axis holds the channels: give layout='NCHW' or 'NHWC'"
            raise ValueError(f"shape {images.shape} {which}")
        layout = "NCHW" if first else "NHWC"
    return images.transpose(0, 3, 1, 2) if layout == "NHWC" else images


class Npz:
    """An .npz file of plain arrays, each read when asked for, and once."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, dict[str, npt.NDArray[Any]]()
        try:
            file = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not an .npz file ({error})") from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError(f"{path}: not an .npz file")
        self._file = file
        self.names = list(file.files)

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def array(self, name: str) -> npt.NDArray[Any]:
        if name not in self.names:
            raise ValueError(f"{self.path}: holds no {name}, but {', '.join(self.names) or 'nothing'}")
        if name not in self._read:
            try:
                self._read[name] = self._file[name]
            except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{self.path}: {name} is damaged, or no array of plain numbers ({error})") from error
        return self._read[name]
