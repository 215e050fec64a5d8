"""Independent pieces of work over the CPU's threads, each piece on one thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

Item = TypeVar("Item")

_here = threading.local()


def searching() -> bool:
    """Whether the calling thread is at work on a search: true in a loss or a generator that a search calls."""
    return getattr(_here, "searching", False)


@contextlib.contextmanager
def search_here() -> Iterator[None]:
    """Mark the calling thread as at work on a search."""
    _here.searching = True
    try:
        yield
    finally:
        _here.searching = False


def _begin_worker() -> None:
    _here.searching = True
    torch.set_num_threads(1)


def run_items(
    function: Callable[[Item], None],
    items: Sequence[Item],
    device: torch.device,
    lanes: int,
    cancel: Callable[[], None],
) -> None:
    """Call `function` on each item: on a GPU in order, on a CPU over `lanes` threads.

    On a CPU PyTorch's own operations then use one thread each, so a result does not depend on the number of threads.
    After an error or an interrupt no item begins; `cancel` is called, for those at work to stop, before it is raised.
    """
    if device.type != "cpu":
        for item in items:
            function(item)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(lanes, "adgan_fast", _begin_worker)
    try:
        futures = [pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            future.result()
    except BaseException:
        cancel()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a worker's own setting is also what threads made later begin with
