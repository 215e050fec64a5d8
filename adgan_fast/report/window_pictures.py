"""The gallery of a job by windows: images of any size made small, each in the middle of a square, and their maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..jobs.finished import Finished, SourceGone
from . import window_maps
from .overlays import overlays
from .sheets import Pixels, shown, thumbnails

_AROUND = 128
"""The grey around an image that is no square."""


class WindowPanels:
    """As `pictures._Panels`, image by image: one alone may be large.

    Attributes:
        scale: what is drawn at full colour.
        gone: why there are no images; empty where they are there.
    """

    def __init__(self, found: Finished, side: int, sigma: float) -> None:
        self.found, self.side, self.sigma = found, side, sigma
        self.scale, self.gone, self._floor = 0.0, "", 0.0

    def set_scale(self, rows: list[int]) -> None:
        """That of the largest value in these rows' maps."""
        if self.found.keeps_windows:
            self._floor = window_maps.usual(self.found)
            maps = window_maps.excesses(self.found, rows, self._floor, self.sigma)
            self.scale = max((float(map_.max()) for _, map_ in maps), default=0.0)

    def of(self, rows: list[int]) -> dict[str, Pixels]:
        """Thumbnails of rows that are "ok", (n, 1 or 3, side, side) for each panel that there is."""
        images = []
        for row in rows:
            try:
                images.append(None if self.gone else self.found.images([row])[0])
            except SourceGone as error:
                self.gone = str(error)
        if self.gone:
            return {}
        small = [thumbnails(shown(image[None]), self.side) for image in images if image is not None]
        panels = {"image": np.concatenate([_squared(each, self.side) for each in small])}
        if self.found.keeps_windows:
            drawn = window_maps.excesses(self.found, rows, self._floor, self.sigma)
            over = [self._over(each, map_) for each, (_, map_) in zip(small, drawn, strict=True)]
            panels["overlay"] = np.concatenate(over)
        return panels

    def _over(self, image: Pixels, map_: npt.NDArray[Any]) -> Pixels:
        sides = image.shape[2:]
        area = torch.nn.functional.interpolate(torch.from_numpy(map_)[None, None], size=sides, mode="area")[0]
        found = overlays(image / 127.5 - 1, area.numpy(), scale=self.scale or None)
        return _squared(found.transpose(0, 3, 1, 2), self.side)


def _squared(image: Pixels, side: int) -> Pixels:
    """(1, C, h, w) in the middle of (1, C, side, side)."""
    height, width = image.shape[2:]
    made = np.full((1, image.shape[1], side, side), _AROUND, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    made[:, :, top : top + height, left : left + width] = image
    return made
