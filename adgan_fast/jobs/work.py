"""The rows of shards, computed: read ahead, searched, handed out in pieces."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .batch import NUMBERS, STARTS_USED, UNREADABLE, Arrays, ScoreBatch, fault_of
from .decoding import Batch, batch_size, decoded
from .manifest import Shard
from .source import Source, Unreadable, require_same
from .windowed import WindowBatch

Seconds = dict[str, float]
"""Seconds by what they were spent on."""


class Piece(NamedTuple):
    """Rows [first, stop) of a shard. Those of one shard come in order; a whole shard may be more than memory holds."""

    shard: Shard
    first: int
    rows: Arrays
    seconds: Seconds

    @property
    def stop(self) -> int:
        return self.first + len(self.rows["status"])

    @property
    def last(self) -> bool:
        """Whether it is the last one of its shard."""
        return self.stop == self.shard.stop


def worked(score: ScoreBatch, source: Source, shards: Iterator[Shard]) -> Generator[Piece, None, None]:
    """The rows of each shard, batch after batch, while the images of the next ones are read.

    Their seconds: "wait" for images, "search" for the rest. Raises InputsChanged before the last piece of a shard whose
    images lie in a file that has changed.
    """
    score.prepare()
    began = time.perf_counter()
    # Images that are cut into windows are of any size, and may be large.
    size = 1 if isinstance(score, WindowBatch) else batch_size(score.image_shape)
    for batch in decoded(source, shards, size):
        ready = time.perf_counter()
        rows = rows_of(score, batch)
        seconds = {"wait": ready - began, "search": time.perf_counter() - ready}
        piece = Piece(batch.shard, batch.first, rows, seconds)
        if piece.last:
            require_same(source, batch.shard.first, batch.shard.stop)
        yield piece
        began = time.perf_counter()


def rows_of(score: ScoreBatch, batch: Batch) -> Arrays:
    """The rows of a batch; one that cannot be read, or is of another shape, has its reason.

    Others are searched with a black image in its place, so that a batch stays a part of the run.
    """
    if isinstance(score, WindowBatch):
        return score.rows(batch.images)
    shape = score.image_shape
    faults = {row: fault for row, image in enumerate(batch.images) if (fault := _fault(image, shape))}
    index = np.arange(batch.first, batch.first + len(batch.images))
    found = _nothing(len(batch.images), score)
    for dtype in {image.dtype for row, image in enumerate(batch.images) if row not in faults}:  # type: ignore[union-attr]
        images = np.zeros((len(batch.images), *(shape or ())), dtype)
        mine = [row for row, image in enumerate(batch.images) if row not in faults and image.dtype == dtype]  # type: ignore[union-attr]
        for row in mine:
            images[row] = batch.images[row]
        for name, values in score({"image": images, "index": index}).items():
            found[name][mine] = values[mine]
    for row, fault in faults.items():
        found["error"][row] = fault
    return found


def _fault(image: npt.NDArray | Unreadable, shape: tuple[int, ...] | None) -> str:
    """Why an image cannot be searched, or ""."""
    if why := fault_of(image):
        return why
    assert isinstance(image, np.ndarray)
    return "" if image.shape == shape else f"its shape is {image.shape}, the generator makes {shape}"


def _nothing(n: int, score: ScoreBatch) -> Arrays:
    """Rows of which nothing is known."""
    dtype = job.dtype_name if (job := score.scorer.job) else "float32"
    found: Arrays = {name: np.full(n, np.nan, dtype) for name in NUMBERS}
    found |= {name: np.full((n, *(score.image_shape or (1, 1, 1))), np.nan, dtype) for name in score.keep}
    if score.scorer.config.adaptive is not None:
        found[STARTS_USED] = np.zeros(n, np.int64)
    return found | {"status": np.full(n, UNREADABLE, object), "error": np.full(n, "", object)}
