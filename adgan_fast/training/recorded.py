"""Steps of a training as a CUDA graph: recorded once, and replayed with new numbers.

The networks here are small, and launching a step's several hundred kernels takes longer than they do. What a step draws
(latents, the places of its images) reaches the device through `Feeds`, which knows where each number goes; all else of
a step is the same work every time.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch

from ..core.recording import Recording, capture

log = logging.getLogger("adgan_fast")

Draw = Callable[[np.random.Generator], npt.NDArray[np.generic]]
Losses = Mapping[str, torch.Tensor]
Update = Callable[[np.random.Generator], Losses]

LAUNCHED = 3
"""Steps before the recording: after them all is compiled and initialised, and every weight has its moments."""


class Feeds:
    """Brings what a step draws to the device: as new tensors, or into buffers that a recorded step reads.

    Args:
        device: where to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: list[tuple[Draw, torch.Tensor]] = []
        self._keeping = False
        self._given: Iterator[tuple[Draw, torch.Tensor]] | None = None

    def put(self, draw: Draw, stream: np.random.Generator) -> torch.Tensor:
        """What `draw` makes of the step's `stream`, on the device."""
        if self._given is not None:
            return next(self._given)[1]
        tensor = torch.from_numpy(draw(stream)).to(self.device)
        if self._keeping:
            self._buffers.append((draw, tensor))
        return tensor

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """What `put` gives inside is kept, as the buffers of a recording."""
        self._buffers, self._keeping = [], True
        try:
            yield
        finally:
            self._keeping = False

    @contextlib.contextmanager
    def buffers(self) -> Iterator[None]:
        """Inside `put` gives the buffers that were kept, in their order, and draws nothing."""
        self._given = iter(self._buffers)
        try:
            yield
        finally:
            self._given = None

    def fill(self, stream: np.random.Generator) -> None:
        """Draws a step's numbers into the buffers, in the order in which the step draws them."""
        for draw, buffer in self._buffers:
            buffer.copy_(torch.from_numpy(draw(stream)))


class RecordedSteps:
    """Steps on a CUDA device, of which the first are launched and all others replayed, on a stream of their own.

    Where a step cannot be recorded, a log line says why, and all are launched.

    Args:
        update: one step with the random numbers of a stream; what it launches must be the same each time.
        feeds: by which it brings them to the device.
    """

    def __init__(self, update: Update, feeds: Feeds) -> None:
        self._update, self._feeds = update, feeds
        self._stream = torch.cuda.Stream(feeds.device)
        self._launched = 0
        self._recording: Recording[Losses] | None = None

    def __call__(self, stream: np.random.Generator) -> Losses:
        """The losses of a step, good until the next one."""
        current = torch.cuda.current_stream(self._feeds.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            losses = self._step(stream)
        current.wait_stream(self._stream)
        return losses

    def _step(self, stream: np.random.Generator) -> Losses:
        if self._launched == LAUNCHED and self._recording is None:
            self._record(stream)
        if self._recording is not None:
            self._feeds.fill(stream)
            return self._recording.replay()
        self._launched += 1
        with self._feeds.keeping() if self._launched == LAUNCHED else contextlib.nullcontext():
            return self._update(stream)

    def _record(self, stream: np.random.Generator) -> None:
        try:
            with self._feeds.buffers():
                self._recording = capture(lambda: self._update(stream), self._stream)
        except RuntimeError as error:  # of memory too: a recording takes some of its own
            log.warning("training goes on without a CUDA graph: %s", error)
            self._launched += 1
