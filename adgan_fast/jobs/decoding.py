"""Images read ahead of the search, by threads, in batches that follow the manifest."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.plan import BLOCK_IMAGES
from .manifest import Shard
from .source import Source, Unreadable

Decoded = npt.NDArray | Unreadable

BATCH_BYTES = 64 * 2**20
"""Of a batch's images as float32, at most, but for one image's."""
AHEAD = 2
"""Batches that are read while another is searched, at most."""
MOST_THREADS = 8


class Batch(NamedTuple):
    """Images [first, first + n) of the manifest, all of one shard."""

    shard: Shard
    first: int
    images: list[Decoded]


def threads() -> int:
    """That read: as many as there are processors, up to MOST_THREADS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, cores)


def batch_size(image_shape: tuple[int, ...] | None) -> int:
    """Images in a batch: those of a block of the search, or fewer where they are large."""
    size = 4 * int(np.prod(image_shape)) if image_shape else 1
    return max(1, min(BLOCK_IMAGES, BATCH_BYTES // max(1, size)))


def decoded(source: Source, shards: Iterator[Shard], size: int) -> Iterator[Batch]:
    """The images of all shards in batches of at most `size`, read ahead of whoever takes them."""
    with ThreadPoolExecutor(threads(), "adgan_fast_decode") as pool:
        waiting: deque[tuple[Shard, int, list[Future[list[Decoded]]]]] = deque()
        try:
            for shard in shards:
                for first in range(shard.first, shard.stop, size):
                    stop = min(first + size, shard.stop)
                    piece = -(-size // threads())
                    pieces = [(at, min(at + piece, stop)) for at in range(first, stop, piece)]
                    waiting.append((shard, first, [pool.submit(_read, source, *piece) for piece in pieces]))
                    if len(waiting) > AHEAD:
                        yield _whole(*waiting.popleft())
            while waiting:
                yield _whole(*waiting.popleft())
        finally:
            for _, _, pieces_left in waiting:
                for future in pieces_left:
                    future.cancel()


def _whole(shard: Shard, first: int, pieces: list[Future[list[Decoded]]]) -> Batch:
    return Batch(shard, first, [image for piece in pieces for image in piece.result()])


def _read(source: Source, first: int, stop: int) -> list[Decoded]:
    found = list(source.read(first, stop))
    if len(found) != stop - first:
        raise RuntimeError(f"{source.name} gave {len(found)} images of [{first}, {stop}): a fault of its Source")
    return found
