"""The pictures of a report: which rows are shown, and their thumbnails on sheets, within a size."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ..jobs.finished import Finished, SourceGone
from .overlays import overlays, residual_maps
from .sheets import CELLS, COLUMNS, sheet, shown, thumbnails
from .window_pictures import WindowPanels

SIDE = 96
BUDGET = 20e6
"""Bytes of pictures and rows, about."""
_ROW = 200
"""Bytes of a row beside its pictures, about."""
_BAD = 500
"""Rows that are not "ok", at most."""

Array = npt.NDArray[Any]


@dataclasses.dataclass
class Pictures:
    """The gallery of a job.

    Attributes:
        rows: of the job, ascending, that are in it.
        places: of each its number among the cells of all sheets; None where there is no picture.
        panels: of "image", "reconstruction", "overlay" those that there are.
        sheets: for each panel its sheets as data URIs, CELLS pictures each.
        cell: (width, height) of a picture.
        enlarged: whether pictures have few pixels, and are shown with each of them seen.
        scale: residual that is drawn at full colour.
        gone: why there are no images; empty where they are there.
    """

    rows: list[int]
    places: list[int | None] = dataclasses.field(default_factory=list)
    panels: list[str] = dataclasses.field(default_factory=list)
    sheets: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    cell: tuple[int, int] = (0, 0)
    scale: float = 0.0
    gone: str = ""
    per_sheet: int = CELLS
    columns: int = COLUMNS

    @property
    def enlarged(self) -> bool:
        return max(self.cell) <= 64


class _Panels:
    """Of rows of a job, what is drawn of each."""

    def __init__(self, found: Finished, side: int, sigma: float) -> None:
        self.found, self.side, self.sigma = found, side, sigma
        self.scale, self.gone = 0.0, ""

    def of(self, rows: list[int]) -> dict[str, Array]:
        """Thumbnails of rows that are "ok", (n, 1 or 3, h, w) uint8 for each panel that there is."""
        images, made = self._images(rows), None
        drawn: dict[str, Array] = {}
        if images is not None:
            drawn["image"] = shown(images)
        if self.found.keeps_reconstructions:
            made = self.found.reconstructions(rows)
            drawn["reconstruction"] = shown(made)
        if images is not None and made is not None:
            drawn["overlay"] = overlays(images, self._residuals(images, made), scale=self.scale or None).transpose(
                0, 3, 1, 2
            )
        return {name: thumbnails(np.ascontiguousarray(pixels), self.side) for name, pixels in drawn.items()}

    def set_scale(self, rows: list[int]) -> None:
        """That of these rows' largest residual."""
        images = self._images(rows) if self.found.keeps_reconstructions else None
        if images is not None:
            residuals = self._residuals(images, self.found.reconstructions(rows))
            self.scale = float(residuals.max(initial=0.0))

    def _residuals(self, images: Array, made: Array) -> Array:
        return residual_maps(images, made, self.found.loss, self.sigma)

    def _images(self, rows: list[int]) -> Array | None:
        """(n, C, H, W); None, with the reason in `gone`, where they are not there any more."""
        if self.gone:
            return None
        try:
            read = self.found.images(rows)
        except SourceGone as error:
            self.gone = str(error)
            return None
        shape = tuple(self.found.description["image_shape"])
        return np.stack([np.full(shape, -1, np.float32) if image is None else image for image in read])


def pictures(found: Finished, scores: Array, count: int | None, side: int, sigma: float) -> Pictures:
    """Choose `count` rows (None: as many as BUDGET allows), and draw them; arguments as for `write_report`.

    Not all: half of them are the most anomalous, the others lie evenly over the rest of the order of scores.
    """
    ok = np.flatnonzero(np.isfinite(scores))
    bad = np.flatnonzero(~np.isfinite(scores))[:_BAD]
    panels = (WindowPanels if found.windows else _Panels)(found, side, sigma)
    order = ok[np.argsort(-scores[ok], kind="stable")]
    cost = 0.0
    if len(order) and count != 0:
        sample = sorted(order[np.unique(np.linspace(0, len(order) - 1, CELLS).astype(int))].tolist())
        panels.set_scale(sample)
        cost = sum(len(sheet(drawn)) for drawn in panels.of(sample).values()) / len(sample)
    wanted = len(order) if count is None else min(count, len(order))
    if count is None:
        wanted = min(wanted, int(BUDGET / (cost + _ROW)))
    chosen = _chosen(order, wanted)
    result = Pictures(sorted([*chosen.tolist(), *bad.tolist()]), scale=panels.scale)
    rows = sorted(chosen.tolist())
    for first in range(0, len(rows), CELLS):
        for name, drawn in panels.of(rows[first : first + CELLS]).items():
            result.sheets.setdefault(name, []).append(sheet(drawn))
            result.cell = (drawn.shape[3], drawn.shape[2])
    result.panels, result.gone = list(result.sheets), panels.gone
    numbers = {row: place for place, row in enumerate(rows)} if result.panels else {}
    result.places = [numbers.get(row) for row in result.rows]
    return result


def _chosen(order: Array, count: int) -> Array:
    """So many rows of those in falling order of score."""
    if count >= len(order):
        return order
    top = (count + 1) // 2
    rest = order[top:]
    evenly = np.linspace(0, len(rest) - 1, count - top).round().astype(int) if count > top else np.empty(0, int)
    return np.concatenate([order[:top], rest[evenly]])
