"""CUDA graphs of a TileSearch: its launches are recorded once and replayed for every tile after.

The first pass and the search of a tile are two graphs, since a run of tiles with the same starts needs the first pass
only once. Autograd's graph of the first pass outlives its recording: the second recording goes backward through it, on
the same stream, as `torch.cuda.make_graphed_callables` does.

One buffer is enough for images. A block of them is on the device already, and to bring a tile's into place is a copy of
some hundred kilobytes there: microseconds, against the milliseconds of its search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from ...core import plan
from ...generator.look import first_line
from ...kernels.adam import tables_of_graph
from .search import TileResult, TileSearch

Result = TypeVar("Result")

_broken: list[torch.cuda.CUDAGraph] = []
"""Graphs whose recording failed: the allocator still counts them as being recorded, so they are never let go."""


class Graphed:
    """A TileSearch that has run once, by replay. To be used on the stream that `search` ran on, and no other."""

    def __init__(self, search: TileSearch):
        stream = torch.cuda.current_stream(search.images.device)
        self._first = capture(search.first, stream)
        self._run = capture(search.run, stream)

    def first(self) -> torch.Tensor:
        """See TileSearch.first."""
        return self._first.replay()

    def run(self) -> TileResult:
        """See TileSearch.run; the result is good until the next call."""
        return self._run.replay()


@dataclasses.dataclass(frozen=True)
class Recording(Generic[Result]):
    """A graph, what each replay of it fills anew, and what each replay reads: the tables of Adam's steps."""

    graph: torch.cuda.CUDAGraph
    result: Result
    tables: list[torch.Tensor]

    def replay(self) -> Result:
        self.graph.replay()
        return self.result


def capture(work: Callable[[], Result], stream: torch.cuda.Stream) -> Recording[Result]:
    """Record what `work` launches, and what it returns: tensors that each replay fills anew.

    `work` must have run on the stream before: what is compiled or initialised at a first call cannot be recorded.

    Raises:
        torch.OutOfMemoryError: as outside of a recording.
        RuntimeError: something in `work` cannot be recorded; by the name of the error, whatever its kind.
    """
    graph = torch.cuda.CUDAGraph()
    broken: list[BaseException] = []  # what `work` raised: to end a recording after it is an error too, and hides it
    try:
        # It waits for the device, and gives cached memory back. Other threads may use the device meanwhile.
        with tables_of_graph() as tables, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            try:
                result = work()
            except BaseException as error:
                broken.append(error)
                raise
    except BaseException as error:
        _broken.append(graph)
        first = broken.pop() if broken else error
        if not isinstance(first, Exception):  # an interrupt
            raise first from None
        memory, message = plan.out_of_memory(first), str(first)
        named = f"{type(first).__name__}: {first_line(first)}"
    else:
        return Recording(graph, result, tables)
    # Anew: the traceback of the first would keep the buffers alive.
    raise torch.OutOfMemoryError(message) if memory else RuntimeError(named)
