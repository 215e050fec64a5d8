"""What is found out before the first shard: images' shape, engine, size of shards, and so the description."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..calibration import Calibration
from ..scorer import Scorer
from ..window_settings import Windows
from . import description as descriptions
from .batch import ScoreBatch
from .description import Description
from .manifest import Manifest
from .source import Source, Unreadable
from .windowed import WindowBatch, seconds_of

MOST_IMAGES, LEAST_IMAGES = 4096, 16
"""Of a shard, where its size is not given."""
PART_SECONDS = 60.0
"""That a part is to take about, where its size is not given: what an end without warning costs, at most."""


class First(NamedTuple):
    """The first image that can be read, and its place in the manifest: its shape is that of all."""

    row: int
    image: npt.NDArray


class Prepared(NamedTuple):
    """score: ready; first: None where no image can be read; description: of the job."""

    score: ScoreBatch
    first: First | None
    description: Description


def prepared(
    scorer: Scorer,
    source: Source,
    manifest: Manifest,
    keep: tuple[str, ...],
    shard: int | None,
    windows: Windows | None = None,
    known: Calibration | None = None,
) -> Prepared:
    """Make the search ready, and describe the job; `shard`: images of a part, None for as many as suit.

    With `windows`, and `known` scores of some, images are searched by them: see `windowed.WindowBatch`.

    Raises ValueError, TypeError and MemoryError as `adgan_fast.score`.
    """
    first = first_image(source, manifest.items)
    shape = first.image.shape if first else None
    score = score_batch(scorer, shape, manifest.items, keep, windows, known)
    score.prepare()
    if shard is None:
        # Windows of the first image that has some: one that has none takes no time, and says nothing of the others.
        timed = first_image(source, manifest.items, score.searches) if isinstance(score, WindowBatch) else first
        shard = shard_size(score, timed.image if timed else None)
    description = descriptions.describe(source, manifest, shard, keep, scorer.job, scorer.engine)
    return Prepared(score, first, description | ({} if windows is None else {"windows": windows.described()}))


def score_batch(
    scorer: Scorer,
    shape: tuple[int, ...] | None,
    total: int,
    keep: tuple[str, ...],
    windows: Windows | None,
    known: Calibration | None,
) -> ScoreBatch:
    """What scores the images of a job, whole or by windows; `shape`: of one. ValueError where settings clash."""
    if windows is not None:
        return WindowBatch(scorer, shape, total, keep, windows, known)
    if "windows" in keep:
        raise ValueError("--keep windows (keep=['windows']) is for a job by windows: give --windows (windows=)")
    return ScoreBatch(scorer, shape, total, keep)


def first_image(source: Source, items: int, fits: Callable[[npt.NDArray], bool] = lambda _: True) -> First | None:
    """The first image that can be read, and `fits`."""
    if not items:
        return None
    read = enumerate(source.read(0, items))
    return next((First(row, image) for row, image in read if not isinstance(image, Unreadable) and fits(image)), None)


def shard_size(score: ScoreBatch, image: npt.NDArray | None) -> int:
    """So many that a part takes about PART_SECONDS: a power of two, by the time of one image."""
    if isinstance(score, WindowBatch):  # one image may take longer than a part is to take
        seconds = 0.0 if image is None else seconds_of(score, image)
        return min(MOST_IMAGES, 1 << int(np.log2(max(1.0, PART_SECONDS / max(seconds, 1e-6)))))
    if image is None or score.total <= LEAST_IMAGES:
        return MOST_IMAGES
    # Not its own pixels: what holds NaN is for its shard to say.
    batch = {"image": np.zeros_like(image)[None], "index": np.zeros(1, int)}
    took = []
    for _ in range(2):  # the first one also loads and compiles
        began = time.perf_counter()
        score(batch)
        took.append(time.perf_counter() - began)
        if took[0] > PART_SECONDS / LEAST_IMAGES:
            break
    images = PART_SECONDS / max(min(took), 1e-6)
    return min(MOST_IMAGES, max(LEAST_IMAGES, 1 << int(np.log2(max(1, images)))))
