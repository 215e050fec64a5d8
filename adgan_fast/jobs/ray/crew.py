"""Cluster: the crew of a job on Ray."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from ... import __version__
from ...calibration import Calibration
from ...scorer import Scorer
from ...window_settings import Windows
from ..batch import Arrays
from ..description import Description
from ..errors import WorkerDied
from ..manifest import Manifest, Shard
from ..source import Source
from ..work import Piece
from .cluster import Share, imported
from .worker import ROW, SECONDS, SHARD, Attempts, Place, Probe, Work, Worker, prepare, received

ATTEMPTS = 4
"""At a shard whose actor dies: what ends every actor ends the job at last."""
IN_HAND = 2
"""Shards that an actor has at once: one to search, one that waits, so that the actor never does."""


class Cluster:
    """Prepares on one of the cluster's machines, and searches by `share.workers` actors of Ray Data.

    Args:
        scorer: not ready, on the CPU: the actors take it to their device.
        share: of each actor.
        windows, known: see `prepare.prepared`.
    """

    def __init__(
        self, scorer: Scorer, share: Share, windows: Windows | None = None, known: Calibration | None = None
    ) -> None:
        self._scorer, self._share = scorer, share
        self._windows = windows, known
        self._found: tuple[Description, Probe | None] | None = None

    def prepare(self, source: Source, manifest: Manifest, keep: tuple[str, ...], shard: int | None) -> Description:
        """See Crew."""
        ray, share = imported(), self._share
        with _raised_here():
            task = ray.remote(prepare).options(num_cpus=share.threads, num_gpus=share.gpus)
            self._found = ray.get(
                task.remote(self._scorer, source, manifest, keep, shard, *self._windows, self._place())
            )
        assert self._found is not None
        return self._found[0]

    def pieces(self, source: Source, shards: Sequence[Shard]) -> Generator[Piece, None, None]:
        """See Crew. Raises what an actor raised; WorkerDied where a shard has ended actor after actor."""
        if not shards:
            return
        assert self._found is not None
        description, probe = self._found
        ray, share = imported(), self._share
        work = Work(
            self._scorer, source, description["manifest"]["items"], tuple(description["keep"]), *self._windows,
            self._place(), description.get("engine"), probe, ray.remote(Attempts).options(num_cpus=0).remote(),
            ATTEMPTS,
        )  # fmt: skip
        with _raised_here(), contextlib.closing(_blocks(work, share, shards)) as blocks:
            yield from gathered(blocks, shards)

    def _place(self) -> Place:
        return Place(self._share.device, self._share.threads, __version__, os.getcwd())


def _blocks(work: Work, share: Share, shards: Sequence[Shard]) -> Generator[Arrays, None, None]:
    """What the actors give back, as it comes."""
    ray = imported()
    with _plain_errors(ray):
        # A block of its own for each shard: blocks are what Ray hands out, and does again.
        rows = ray.data.from_items([shard._asdict() for shard in shards], override_num_blocks=len(shards))
        found = rows.map_batches(
            Worker, fn_constructor_args=(work,), batch_size=None, batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(
                size=min(share.workers, len(shards)), max_tasks_in_flight_per_actor=IN_HAND
            ),
            num_cpus=share.threads, num_gpus=share.gpus,
        )  # fmt: skip
    yield from found.iter_batches(batch_size=None, batch_format="numpy")


def gathered(blocks: Iterator[Arrays], shards: Sequence[Shard]) -> Iterator[Piece]:
    """Pieces of shards in order, of blocks of rows that come in any order, cut anywhere, and perhaps twice."""
    open_ = {shard.number: shard for shard in shards}
    next_ = {shard.number: shard.first for shard in shards}  # row
    held: dict[int, Arrays] = {}  # what has come before its turn
    for block in blocks:
        for number in np.unique(block[SHARD]).tolist():
            if number not in open_:
                continue  # it was whole before
            rows = _of_shard(block, number)
            if number in held:
                rows = {name: np.concatenate([values, rows[name]]) for name, values in held.pop(number).items()}
            at, seen = np.unique(rows[ROW], return_index=True)
            seen = seen[at >= next_[number]]
            ready = int((rows[ROW][seen] == next_[number] + np.arange(len(seen))).sum())
            if len(seen) > ready:
                held[number] = {name: values[seen[ready:]] for name, values in rows.items()}
            if ready:
                piece = _piece(
                    open_[number], next_[number], {name: values[seen[:ready]] for name, values in rows.items()}
                )
                next_[number] = piece.stop
                if piece.last:
                    del open_[number]
                yield piece
    if open_:
        raise WorkerDied(f"Ray gave no rows of {len(open_)} shards. Finished parts are kept: run again to go on")


def _of_shard(block: Arrays, number: int) -> Arrays:
    mine = block[SHARD] == number
    return block if mine.all() else {name: values[mine] for name, values in block.items()}


def _piece(shard: Shard, first: int, rows: Arrays) -> Piece:
    spent = {name.removeprefix(SECONDS): float(took.sum()) for name, took in rows.items() if name.startswith(SECONDS)}
    about = {SHARD, ROW, *(SECONDS + name for name in spent)}
    mine = {name: values for name, values in rows.items() if name not in about}
    return Piece(shard, first, received(mine), spent)


@contextlib.contextmanager
def _plain_errors(ray: Any) -> Iterator[None]:
    """Data sets made within raise what was raised in them, and draw no bars: the job has its own."""
    context = ray.data.DataContext.get_current()
    wanted = {
        "raise_original_map_exception": True, "enable_progress_bars": False, "print_on_execution_start": False,
        "execution_no_progress_timeout_s": -1,  # a shard may take longer, and machines may be still to come
    }  # fmt: skip
    before = {name: getattr(context, name) for name in wanted}
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


@contextlib.contextmanager
def _raised_here() -> Iterator[None]:
    """Errors of Ray within become those of the job."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, RayError) or not isinstance(error.cause, BaseException):
            raise _died(error) from error
        raise error.cause from error
    except RayError as error:
        raise _died(error) from error


def _died(error: BaseException) -> WorkerDied:
    said = " ".join(str(error).split())
    return WorkerDied(f"the cluster has failed: {said[:500]}. Finished parts are kept: run again to go on")
