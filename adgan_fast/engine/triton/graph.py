"""CUDA graphs of a TileSearch: its launches are recorded once and replayed for every tile after.

The first pass and the search of a tile are two graphs, since a run of tiles with the same starts needs the first pass
only once. Autograd's graph of the first pass outlives its recording: the second recording goes backward through it, on
the same stream, as `torch.cuda.make_graphed_callables` does.

One buffer is enough for images. A block of them is on the device already, and to bring a tile's into place is a copy of
some hundred kilobytes there: microseconds, against the milliseconds of its search.
"""

from __future__ import annotations

import torch

from ...core.recording import capture
from ...kernels.adam import tables_of_graph
from .search import TileResult, TileSearch


class Graphed:
    """A TileSearch that has run once, by replay. To be used on the stream that `search` ran on, and no other."""

    def __init__(self, search: TileSearch):
        stream = torch.cuda.current_stream(search.images.device)
        with tables_of_graph() as tables:
            self._tables = tables  # of Adam's steps: every replay reads them
            self._first = capture(search.first, stream)
            self._run = capture(search.run, stream)

    def first(self) -> torch.Tensor:
        """See TileSearch.first."""
        return self._first.replay()

    def run(self) -> TileResult:
        """See TileSearch.run; the result is good until the next call."""
        return self._run.replay()
