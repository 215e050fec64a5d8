"""Images of a job by their windows: of each one score, whatever its size, in memory that does not grow with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from .. import validate
from .. import windows as of_windows
from ..adaptive import NOT_BY_WINDOWS
from ..calibration import Calibration
from ..outcome import Status
from ..scorer import Scorer
from ..window_settings import Windows
from .batch import DIVERGED, NOT_FINITE, NUMBERS, UNREADABLE, Arrays, ScoreBatch, beyond, fault_of
from .source import Unreadable

COUNT = "n_windows"
"""The column that says how many windows an image has."""
KEPT = np.dtype([("row", "<i4"), ("column", "<i4"), ("score", "<f4")])
"""A window that is kept: its upper left corner, and its score."""
_TRIED = 256
"""Windows by which the time of an image is told."""

Row = dict[str, Any]


class WindowBatch(ScoreBatch):
    """Scores images of any size by the windows of a grid, block after block.

    Args:
        scorer, total: as for ScoreBatch. `total` decides nothing: every window has the same starts.
        image_shape: (C, H, W) of an image of the run, of which C alone counts; None where none can be read.
        keep: ("windows",) hands out the windows' scores.
        windows: how images are cut and put together.
        known: window scores of normal images, by which an image's are ranked (`adgan_fast.windows.surprise`); None: its
            score is a quantile of them.

    Raises:
        ValueError: settings that windows have no meaning for; of starts by `prepare`.
    """

    def __init__(
        self,
        scorer: Scorer,
        image_shape: tuple[int, ...] | None,
        total: int,
        keep: tuple[str, ...],
        windows: Windows,
        known: Calibration | None = None,
    ) -> None:
        if "reconstructions" in keep:
            raise ValueError("reconstructions are of whole images: of a job by windows keep ['windows']")
        if scorer.config.adaptive is not None:
            raise ValueError(NOT_BY_WINDOWS)
        shape = None if image_shape is None else (image_shape[0], windows.size, windows.size)
        super().__init__(scorer, shape, total, keep)
        self.windows, self.known = windows, known

    def prepare(self) -> None:
        """As ScoreBatch. ValueError where starts are of single images."""
        super().prepare()
        if self.scorer.job is not None and self.scorer.job.starts.common is None:
            raise ValueError("starts go by the place of an image, and windows have the same ones: give (S, *latent)")

    def on(self, device: str) -> WindowBatch:
        """The same on another device."""
        scorer = self.scorer.to(device)
        return WindowBatch(scorer, self.image_shape, self.total, self.keep, self.windows, self.known)

    def rows(self, images: Sequence[npt.NDArray | Unreadable]) -> Arrays:
        """The columns of ScoreBatch for some images, in their order, and the number of windows of each.

        "score" is the image's one; "score_std" and "score_min" are of its windows' scores, "initial_loss" the mean of
        theirs. With keep "windows": of each image KEPT (n,).
        """
        rows = [self._row(image) for image in images]
        job = self.scorer.job
        dtype = job.dtype_name if job else "float32"
        found: Arrays = {name: np.array([row.get(name, np.nan) for row in rows], dtype) for name in NUMBERS}
        found[COUNT] = np.array([row.get(COUNT, 0) for row in rows], np.int64)
        for name in ("status", "error"):
            found[name] = np.array([row[name] for row in rows], object)
        if "windows" in self.keep:
            kept = np.empty(len(rows), object)
            for place, row in enumerate(rows):
                kept[place] = row.get("windows", np.empty(0, KEPT))
            found["windows"] = kept
        return found

    def _row(self, image: npt.NDArray | Unreadable) -> Row:
        if fault := self.fault(image):
            return {"status": UNREADABLE, "error": fault}
        assert isinstance(image, np.ndarray)
        if image.dtype != np.uint8 and not np.isfinite(image).all():
            validate.scan(torch.from_numpy(image[None]), self.scorer.config.strict)  # which raises where it is strict
            return {"status": Status.not_finite.name, "error": NOT_FINITE}
        at, scores, initial = [], [], []
        for some, windows, _ in of_windows.in_blocks(image, self.windows):
            found = self.scorer.part(windows, ["scores", "initial_losses"]).tensors
            at.append(some)
            scores.append(found["scores"].numpy())
            initial.append(found["initial_losses"].double().mean(1).numpy())
        corners, of_each = np.concatenate(at), np.concatenate(scores)
        count: Row = {COUNT: len(of_each)}
        if lost := int(np.sum(~np.isfinite(of_each))):
            more = f"{lost} of {len(of_each)} windows: {DIVERGED}"
            return count | {"status": Status.diverged.name, "error": more}
        row: Row = count | {
            "status": Status.ok.name, "error": "",
            "score": of_windows.image_score(of_each, self.windows, self.known),
            "score_std": of_each.astype(np.float64).std(), "score_min": of_each.min(),
            "initial_loss": np.concatenate(initial).mean(),
        }  # fmt: skip
        if "windows" in self.keep:
            kept = np.empty(len(of_each), KEPT)
            kept["row"], kept["column"], kept["score"] = corners[:, 0], corners[:, 1], of_each
            row["windows"] = kept
        return row

    def fault(self, image: npt.NDArray | Unreadable) -> str:
        """Why an image cannot be searched, or ""."""
        if why := fault_of(image):
            return why
        assert isinstance(image, np.ndarray)
        if why := of_windows.too_small(image, self.windows.size):
            return why
        assert self.image_shape is not None  # this one could be read
        if len(image) != self.image_shape[0]:
            return f"it has {len(image)} channels, the generator makes {self.image_shape[0]}"
        return beyond(image[None]).get(0, "")

    def searches(self, image: npt.NDArray) -> bool:
        """Whether an image is searched: it has no fault, and is finite."""
        return not self.fault(image) and bool(np.isfinite(image).all())


def seconds_of(score: WindowBatch, image: npt.NDArray) -> float:
    """That an image which it `searches` takes about, by the time of some windows."""
    side, step = score.windows.size, score.windows.step
    grid = of_windows.corners(image.shape[1], image.shape[2], side, step)
    tried = np.repeat(image[None, :, :side, :side], min(_TRIED, len(grid)), 0)
    took = []
    for _ in range(2):  # the first one also loads and compiles
        began = time.perf_counter()
        score.scorer.part(tried, ["scores", "initial_losses"])
        took.append(time.perf_counter() - began)
    return min(took) / len(tried) * len(grid)


def lists(kept: npt.NDArray) -> pa.Array:
    """Kept windows of some images, each KEPT (n,), as a column of lists."""
    ends = np.cumsum([0, *(len(each) for each in kept)]).astype(np.int64)
    flat = np.concatenate([np.empty(0, KEPT), *kept])
    columns = [pa.array(np.ascontiguousarray(flat[name])) for name in KEPT.names or ()]
    return pa.LargeListArray.from_arrays(ends, pa.StructArray.from_arrays(columns, list(KEPT.names or ())))


def unpacked(value: pa.Scalar) -> npt.NDArray:
    """KEPT (n,) of one cell of such a column."""
    flat = value.values
    found = np.empty(len(flat), KEPT)
    for name in KEPT.names or ():
        found[name] = flat.field(name).to_numpy()
    return found
