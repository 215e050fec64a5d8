"""Overlays of a job as files: a PNG for each image, and a list of them."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from .. import files
from ..given import is_number, whole
from ..jobs.finished import Finished
from . import window_maps
from .overlays import Array, overlays, residual_maps

LIST = "maps.csv"
Drawn = tuple[int, Callable[[], npt.NDArray[np.uint8]], float]
"""A row, what draws it, and the largest value of its map."""
_AT_ONCE = 256
_UNSAFE = re.compile(r"[^\w.-]+", re.ASCII)
_LONGEST = 80


class MapFiles(NamedTuple):
    """Attributes: folder; how many PNG files were written; the residual that is drawn at full colour."""

    folder: Path
    written: int
    scale: float


def write_maps(
    job: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    most: int | None = None,
    sigma: float = 0.0,
    scale: float | None = None,
) -> MapFiles:
    """Draw where the images of a job are anomalous: `overlays`, of any number of channels.

    Drawn is where an image differs from its best reconstruction; of a job by windows how far the mean score of the
    windows over a pixel lies above what a window usually scores (`window_maps.usual`).

    A file is named by the image's number in the job and what of its id any system can have in a name; maps.csv has
    file, id, score, and the map's largest value.

    Args:
        job: its folder; it must have been kept with reconstructions, by windows with windows, and its images must still
            be there.
        out: the folder for the files, made where it is not there.
        most: only so many, of the highest scores; None: all that have a score.
        sigma: of the Gaussian filter that maps go through, in pixels.
        scale: the value of a map that is drawn at full colour, in all; None: the largest of all.

    Raises:
        FileNotFoundError, JobDamaged, OtherJob: as `jobs.read`.
        SourceGone: the images are not there any more.
        ValueError: no reconstructions, or windows, were kept; a number out of range.
    """
    if scale is not None and not (is_number(scale) and 0 < scale < float("inf")):
        raise ValueError(f"scale must be a positive number, got {scale!r}")
    found, folder = Finished(job), Path(out)
    scores = found.numbers("score")
    rows = np.flatnonzero(np.isfinite(scores))
    if most is not None:
        rows = np.sort(rows[np.argsort(-scores[rows], kind="stable")[: whole("most", most, 1)]])
    chosen = [int(row) for row in rows]
    if scale is None:
        scale = max((largest for _, _, largest in _drawn(found, chosen, sigma, 1.0)), default=0.0) or 1.0
    folder.mkdir(parents=True, exist_ok=True)
    ids, lines = found.texts("id"), io.StringIO()
    writer = files.csv_writer(lines)
    writer.writerow(["file", "id", "score", "largest"])
    for row, picture, largest in _drawn(found, chosen, sigma, scale):
        name, file = f"{row:06d}-{_safe(ids[row])}.png", io.BytesIO()
        Image.fromarray(picture()).save(file, "PNG")
        files.replace(folder / name, file.getvalue())
        writer.writerow([name, ids[row], f"{scores[row]:.9g}", f"{largest:.9g}"])
    files.replace(folder / LIST, lines.getvalue().encode())
    return MapFiles(folder, len(chosen), scale)


def _drawn(found: Finished, rows: list[int], sigma: float, scale: float) -> Iterator[Drawn]:
    return (_by_windows if found.windows else _by_residuals)(found, rows, sigma, scale)


def _by_windows(found: Finished, rows: list[int], sigma: float, scale: float) -> Iterator[Drawn]:
    floor = window_maps.usual(found)
    for row, map_ in window_maps.excesses(found, rows, floor, sigma):
        yield row, partial(_over_windows, found, row, map_, scale), float(map_.max())


def _over_windows(found: Finished, row: int, map_: Array, scale: float) -> npt.NDArray[np.uint8]:
    image = found.images([row])[0]
    assert image is not None  # it has a score
    return window_maps.drawn(image, map_, scale)


def _by_residuals(found: Finished, rows: list[int], sigma: float, scale: float) -> Iterator[Drawn]:
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        made = found.reconstructions(some)
        images = np.stack([image for image in found.images(some) if image is not None])
        maps = residual_maps(images, made, found.loss, sigma)
        for row, image, map_ in zip(some, images, maps, strict=True):
            yield row, partial(_overlay, image, map_, scale), float(map_.max())


def _overlay(image: Array, map_: Array, scale: float) -> npt.NDArray[np.uint8]:
    return overlays(image[None], map_[None], scale=scale)[0]


def _safe(name: str) -> str:
    """The end of an image's id, without its suffix, in letters that file names have everywhere."""
    return _UNSAFE.sub("_", name.rpartition(".")[0] or name)[-_LONGEST:].strip("._") or "image"
