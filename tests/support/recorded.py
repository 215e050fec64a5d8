"""CUDA graphs, or what a test puts in their place, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adgan_fast.core.job import Job
from adgan_fast.engine.triton import engine as triton


def recorded_by(monkeypatch: pytest.MonkeyPatch, graphed: Callable[[Any], object]) -> None:
    """Searches record graphs on a CPU too, by `graphed`, given a TileSearch, in place of what takes a GPU."""
    from adgan_fast.engine.triton import graph

    made = triton.Runner.__init__

    def with_graphs(self: triton.Runner, job: Job, chunk: int, n: int, graphs: bool) -> None:
        made(self, job, chunk, n, graphs)
        self._graphs = graphs

    monkeypatch.setattr(graph, "Graphed", graphed)
    monkeypatch.setattr(triton.Runner, "__init__", with_graphs)
