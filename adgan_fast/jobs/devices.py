"""Several devices of one machine: a process each, that takes shard after shard."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from .batch import ScoreBatch
from .decoding import AHEAD
from .errors import WorkerDied
from .manifest import Shard
from .source import Source
from .work import Piece, worked

IN_HAND = AHEAD + 1
"""Shards that a process has at once: as many as it may begin to read before it has searched one."""


def worked_on(
    score: ScoreBatch, source: Source, shards: Iterator[Shard], devices: list[str]
) -> Generator[Piece, None, None]:
    """`work.worked`, with pieces in the order in which they are done: those of several shards in turns.

    Raises what a process raised; WorkerDied where one ended before its work was done. The processes end with it.
    """
    context = multiprocessing.get_context("spawn")
    tasks = [context.Queue() for _ in devices]
    threads = max(1, torch.get_num_threads() // len(devices))
    workers, done = [], {}
    try:
        for number, device in enumerate(devices):
            # A pipe for each: one that several write to may stay locked, or cut off, by a process that is killed.
            receiver, sender = context.Pipe(duplex=False)
            made, read = pickle.dumps(score.on(device)), pickle.dumps(source)
            given = (made, read, threads, tasks[number], sender)
            worker = context.Process(target=_work, args=given, name=f"adgan_fast {device}", daemon=True)
            worker.start()
            sender.close()  # the process alone holds it now: its end is the end of the pipe
            workers.append(worker)
            done[receiver] = number
        in_hand = 0
        for _ in range(IN_HAND):
            for mine in tasks:
                in_hand += _hand_out(shards, mine)
        while in_hand:
            number, piece, error = _took(done, workers)
            if error is not None:
                raise error
            if piece.last:
                in_hand += _hand_out(shards, tasks[number]) - 1
            yield piece
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
        for receiver in done:
            receiver.close()
        for each in tasks:
            each.cancel_join_thread()


def _hand_out(shards: Iterator[Shard], tasks: Any) -> int:
    """Give a process its next shard, or word that there is none; how many it was given."""
    shard = next(shards, None)
    tasks.put(shard)
    return int(shard is not None)


def _took(done: dict[Connection, int], workers: list[Any]) -> tuple[int, Any, BaseException | None]:
    """What the next process to say something says: its number, and a piece or an error.

    A process that has ended well is taken out of `done`; WorkerDied for one that has not, if in the middle of a word.
    """
    while True:
        for receiver in wait(list(done)):
            assert isinstance(receiver, Connection)
            number = done[receiver]
            try:
                piece, error = receiver.recv()
            except (EOFError, OSError):
                receiver.close()
                del done[receiver]
                workers[number].join()
                if workers[number].exitcode or not done:
                    raise _died(workers[number]) from None
            else:
                return number, piece, error


def _died(worker: Any) -> WorkerDied:
    return WorkerDied(
        f"the process of {worker.name.split()[-1]} ended with exit code {worker.exitcode} (-9: killed, as for want of "
        "memory). Finished parts are kept: run again to go on"
    )


def _work(score: bytes, source: bytes, threads: int, tasks: Any, done: Connection) -> None:
    """The process of a device."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keyboard's goes to all; the parent ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        made: ScoreBatch = pickle.loads(score)
        read: Source = pickle.loads(source)
        for piece in worked(made, read, iter(tasks.get, None)):
            done.send((piece, None))
    except BaseException as error:  # of any kind: it is raised again by the parent
        done.send((None, _portable(error)))
    done.close()


def _portable(error: BaseException) -> BaseException:
    with contextlib.suppress(Exception):
        pickle.loads(pickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
