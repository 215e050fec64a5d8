"""What runs on the machines of a cluster: the preparation of a job, and the actor that takes its shards."""

from __future__ import annotations

import hashlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ... import __version__
from ...calibration import Calibration
from ...scorer import Scorer
from ...window_settings import Windows
from ..batch import Arrays, ScoreBatch
from ..description import Description
from ..errors import JobError, WorkerDied
from ..manifest import Manifest, Shard
from ..prepare import prepared, score_batch
from ..source import Source, Unreadable
from ..windowed import KEPT
from ..work import worked
from .cluster import imported

SHARD, ROW = "shard", "row"
"""Columns that say whose the other columns of an actor's rows are."""
SECONDS = "seconds_"
"""Before the names of the columns that say what time was spent on: of a piece, all in its first row."""


class Probe(NamedTuple):
    """The first image that can be read: its place, shape and digest. Who reads another there sees other inputs."""

    row: int
    shape: tuple[int, ...]
    digest: str


class Place(NamedTuple):
    """Where work is done, and what has to be alike there: folder is that from which relative paths count."""

    device: str
    threads: int
    version: str
    folder: str

    def enter(self) -> None:
        if self.version != __version__:
            raise JobError(
                f"{socket.gethostname()} has adgan_fast {__version__}, the process that began the job {self.version}: "
                "install one version on all machines"
            )
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        torch.set_num_threads(self.threads)


class Work(NamedTuple):
    """All that an actor needs."""

    scorer: Scorer
    source: Source
    total: int
    keep: tuple[str, ...]
    windows: Windows | None
    known: Calibration | None
    place: Place
    engine: str | None
    probe: Probe | None
    attempts: Any
    most_attempts: int


class Attempts:
    """An actor that counts how often each shard was begun: Ray does one again that has ended its actor, for ever."""

    def __init__(self) -> None:
        self._of: Counter[int] = Counter()

    def begun(self, number: int) -> int:
        """One more, and how many that makes."""
        self._of[number] += 1
        return self._of[number]


def prepare(
    scorer: Scorer,
    source: Source,
    manifest: Manifest,
    keep: tuple[str, ...],
    shard: int | None,
    windows: Windows | None,
    known: Calibration | None,
    place: Place,
) -> tuple[Description, Probe | None]:
    """`prepare.prepared`, on a machine of the cluster: its kind of device and its engines decide."""
    place.enter()
    _, first, description = prepared(scorer.to(place.device), source, manifest, keep, shard, windows, known)
    return description, first and Probe(first.row, first.image.shape, digest(first.image))


class Worker:
    """An actor: shards in, their rows out. What goes wrong is raised by the first shard: Ray then says what it was."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._score: ScoreBatch | None = None

    def __call__(self, batch: dict[str, npt.NDArray]) -> Iterator[dict[str, Any]]:
        """Rows of the shards (number, first, stop), in pieces: what ScoreBatch gives, SHARD, ROW, SECONDS."""
        of = [Shard(*map(int, shard)) for shard in zip(batch["number"], batch["first"], batch["stop"], strict=True)]
        for shard in of:
            self._count(shard)
        for piece in worked(self._ready(), self._work.source, iter(of)):
            n = piece.stop - piece.first
            spent = {SECONDS + name: np.array([took] + [0.0] * (n - 1)) for name, took in piece.seconds.items()}
            whose = {SHARD: np.full(n, piece.shard.number), ROW: np.arange(piece.first, piece.stop)}
            yield sent(piece.rows) | whose | spent

    def _count(self, shard: Shard) -> None:
        most = self._work.most_attempts
        if imported().get(self._work.attempts.begun.remote(shard.number)) > most:
            raise WorkerDied(
                f"images {shard.first} to {shard.stop - 1} have ended their worker {most} times (killed, as for want "
                "of memory, or the machine went). Finished parts are kept: see to it (fewer workers on a machine, a "
                "smaller shard), and run again to go on"
            )

    def _ready(self) -> ScoreBatch:
        if self._score is None:
            work = self._work
            work.place.enter()
            _same_inputs(work.source, work.probe)
            scorer = work.scorer.to(work.place.device, work.engine)
            shape = work.probe and work.probe.shape
            self._score = score_batch(scorer, shape, work.total, work.keep, work.windows, work.known)
        return self._score


def sent(rows: Arrays) -> Arrays:
    """Rows as Ray takes them: the kept windows of each image as bytes."""
    return _windows_by(rows, lambda kept: kept.tobytes())


def received(rows: Arrays) -> Arrays:
    """Rows that were `sent`, as they were: the kept windows of each image KEPT (n,)."""
    return _windows_by(rows, lambda kept: np.frombuffer(kept, KEPT))


def _windows_by(rows: Arrays, change: Callable[[Any], Any]) -> Arrays:
    if "windows" not in rows:
        return rows
    found = np.empty(len(rows["windows"]), object)
    for place, kept in enumerate(rows["windows"]):
        found[place] = change(kept)
    return rows | {"windows": found}


def digest(image: npt.NDArray) -> str:
    return hashlib.sha256(f"{image.dtype} {image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


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
