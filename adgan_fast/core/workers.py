"""Independent pieces of work over the CPU's threads, each piece on one thread."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

Item = TypeVar("Item")

log = logging.getLogger("adgan_fast")

_here = threading.local()
_one_at_a_time = threading.Lock()  # a search uses every thread, and settings of PyTorch that all threads share
_forked = False


def _begin_child() -> None:
    """In the child of a fork: another thread of the parent may have held the lock, and is not there to give it back."""
    global _here, _one_at_a_time, _forked
    _here, _one_at_a_time, _forked = threading.local(), threading.Lock(), True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)


@contextlib.contextmanager
def search_here() -> Iterator[None]:
    """Hold the process for one search, on the calling thread; others wait.

    In the child of a fork PyTorch has one thread meanwhile: of those it had in the parent, OpenMP waits for ever.
    Raises RuntimeError in a loss or a generator that a search calls, which would wait for itself.
    """
    if getattr(_here, "searching", False):
        raise RuntimeError("score and search cannot be called by a loss or a generator while a search runs these")
    with _one_at_a_time:
        threads = torch.get_num_threads()
        _here.searching = True
        try:
            if _forked and threads > 1:
                log.info("one thread, since this process is a fork of another")
                torch.set_num_threads(1)
            yield
        finally:
            _here.searching = False
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def _begin_worker() -> None:
    _here.searching = True
    torch.set_num_threads(1)


def run_items(
    function: Callable[[Item], None],
    items: Sequence[Item],
    device: torch.device,
    threads: int,
    cancel: Callable[[], None],
) -> None:
    """Call `function` on each item: on a GPU in order, on a CPU over `threads` threads.

    On a CPU PyTorch's own operations then use one thread each, so a result does not depend on the number of threads.
    After an error or an interrupt no item begins; `cancel` is called, for those at work to stop, before it is raised.
    """
    if device.type != "cpu":
        for item in items:
            function(item)
        return
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "adgan_fast", _begin_worker)
    try:
        futures = [pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            future.result()
    except BaseException:
        cancel()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # a worker's own setting is also what threads made later begin with
