"""CUDA graphs: what a piece of work launches is recorded once and replayed often."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from ..generator.look import first_line
from . import plan

Result = TypeVar("Result")

_broken: list[torch.cuda.CUDAGraph] = []
"""Graphs whose recording failed: the allocator still counts them as being recorded, so they are never let go."""


@dataclasses.dataclass(frozen=True)
class Recording(Generic[Result]):
    """A graph, and what each replay of it fills anew."""

    graph: torch.cuda.CUDAGraph
    result: Result

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
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
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
        return Recording(graph, result)
    # Anew: the traceback of the first would keep the buffers alive.
    raise torch.OutOfMemoryError(message) if memory else RuntimeError(named)
