"""What runs on the machines of a cluster: the preparation of a job, and the actor that takes its shards."""

from __future__ import annotations

import hashlib
import socket
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ... import __version__
from ...scorer import Scorer
from ..batch import Arrays, ScoreBatch
from ..description import Description
from ..errors import JobError
from ..manifest import Manifest, Shard
from ..prepare import prepared
from ..source import Source, Unreadable
from ..work import worked

SHARD, ROW = "shard", "row"
"""Columns that say whose the other columns of an actor's rows are."""
SECONDS = "seconds_"
"""Before the names of the columns that say what time was spent on: of a shard, the same in all its rows."""


class Probe(NamedTuple):
    """The first image that can be read: its place, shape and digest. Who reads another there sees other inputs."""

    row: int
    shape: tuple[int, ...]
    digest: str


class Work(NamedTuple):
    """All that an actor needs."""

    scorer: Scorer
    source: Source
    total: int
    keep: tuple[str, ...]
    device: str
    threads: int
    engine: str | None
    probe: Probe | None
    version: str


def prepare(
    scorer: Scorer,
    source: Source,
    manifest: Manifest,
    keep: tuple[str, ...],
    shard: int | None,
    device: str,
    threads: int,
    version: str,
) -> tuple[Description, Probe | None]:
    """`prepare.prepared`, on a machine of the cluster: its kind of device and its engines decide."""
    _same_version(version)
    torch.set_num_threads(threads)
    _, first, description = prepared(scorer.to(device), source, manifest, keep, shard)
    return description, first and Probe(first.row, first.image.shape, digest(first.image))


class Worker:
    """An actor: shards in, their rows out. What goes wrong is raised by the first shard: Ray then says what it was."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._score: ScoreBatch | None = None

    def __call__(self, batch: dict[str, npt.NDArray]) -> dict[str, Any]:
        """Rows of the shards (number, first, stop): the columns of ScoreBatch, and SHARD, ROW and SECONDS."""
        score = self._ready()
        of = [Shard(*map(int, shard)) for shard in zip(batch["number"], batch["first"], batch["stop"], strict=True)]
        found: list[Arrays] = []
        for shard, rows, seconds in worked(score, self._work.source, iter(of)):
            n = shard.stop - shard.first
            about = {SHARD: np.full(n, shard.number), ROW: np.arange(shard.first, shard.stop)}
            found.append(rows | about | {SECONDS + name: np.full(n, took) for name, took in seconds.items()})
        return {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}

    def _ready(self) -> ScoreBatch:
        if self._score is None:
            work = self._work
            _same_version(work.version)
            torch.set_num_threads(work.threads)
            _same_inputs(work.source, work.probe)
            scorer = work.scorer.to(work.device, work.engine)
            self._score = ScoreBatch(scorer, work.probe and work.probe.shape, work.total, work.keep)
        return self._score


def digest(image: npt.NDArray) -> str:
    return hashlib.sha256(f"{image.dtype} {image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def _same_version(wanted: str) -> None:
    if wanted != __version__:
        raise JobError(
            f"{socket.gethostname()} has adgan_fast {__version__}, the process that began the job {wanted}: "
            "install one version on all machines"
        )


def _same_inputs(source: Source, probe: Probe | None) -> None:
    if probe is None:
        return
    image = next(iter(source.read(probe.row, probe.row + 1)), None)
    if image is None or isinstance(image, Unreadable) or digest(image) != probe.digest:
        what = f": {image}" if isinstance(image, Unreadable) else ""
        raise JobError(
            f"{socket.gethostname()} does not read image {probe.row} of {source.name} as another machine did{what}. "
            "All machines have to reach the same images by the same path: a shared file system, mounted alike"
        )
