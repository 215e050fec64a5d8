"""Independent pieces of work over the CPU's threads, each piece on one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

Item = TypeVar("Item")


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
    pool = ThreadPoolExecutor(lanes, "adgan_fast", torch.set_num_threads, (1,))
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
