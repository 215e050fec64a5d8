"""Tiles: how the pairs of a block are cut into chunks, and who owns weights inside one."""

from __future__ import annotations

from typing import NamedTuple

from .job import Job


class Tile(NamedTuple):
    """Images [first, last) × starts [start, stop) of a block: one chunk."""

    first: int
    last: int
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """(images, starts)"""
        return self.last - self.first, self.stop - self.start


def tiles_by_starts(job: Job, n: int, chunk: int) -> list[list[Tile]]:
    """Cut n images × S starts into tiles of `chunk` pairs (images for weights="per_sample").

    The tiles of a list have the same starts, which are shared by the images or else the list has one tile.
    """
    n_seed = job.n_seed
    if job.config.weights == "per_sample":
        starts, images = n_seed, chunk
    else:
        starts, images = min(chunk, n_seed), max(1, chunk // n_seed)
    lists = [
        [
            Tile(first, min(first + images, n), start, min(start + starts, n_seed))
            for first in range(0, n, images)
        ]
        for start in range(0, n_seed, starts)
    ]  # fmt: skip
    return lists if job.starts.common is not None else [[tile] for tiles in lists for tile in tiles]


def layout(weights: str, images: int, starts: int) -> tuple[int, int]:
    """(G, B) of images × starts: G groups that own weights (frozen: one that does not move), of B samples each."""
    return {"per_seed": (images * starts, 1), "per_sample": (images, starts), "frozen": (1, images * starts)}[weights]


def on_cpu(job: Job, bytes_of_pair: int, cache: int) -> int:
    """Pairs to compute at once on a CPU: as many as keep a thread's working set within `cache` bytes, at least one.

    It follows from the generator and n_seed alone, never from the batch or config.chunk, so that they cannot change a
    bit: BLAS rounds a product differently by the number and alignment of its neighbours. Such a group is small (or one
    pair), so there is no need of less.
    """
    return 1 if job.config.weights == "per_sample" else max(1, min(job.n_seed, cache // max(1, bytes_of_pair)))
