"""Times of what runs on a GPU, by CUDA events; on a CPU, by its clock."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Work = Callable[[], Any]

_SPIN = 2e9  # cycles a second, at least: what a GPU is told to wait is a little longer than asked
_LONGEST_SPIN = 0.2  # seconds
_FLUSH = 256 * 2**20  # bytes: several times any second-level cache


class Clock:
    """Medians are the caller's business: every method returns all times, in seconds.

    On a GPU all work of a round is put on the stream while the device spins, so that gaps between launches do not count
    as the launched work's time.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = device.type == "cuda"

    def whole(self, work: Work, *, about: float = 1.0, least: int = 3, most: int = 50, warm: int = 1) -> list[float]:
        """Times of `work` from the first launch to the last result, gaps included: at least `least` calls."""
        for _ in range(warm):
            self._once(work)
        times: list[float] = []
        while len(times) < least or (sum(times) < about and len(times) < most):
            times.append(self._once(work))
        return times

    def each(self, calls: Sequence[tuple[str, Work]], *, rounds: int, warm: int = 2) -> dict[str, list[float]]:
        """Times of each of `calls`, made in their order, round after round; calls of one name add up within a round."""
        times: dict[str, list[float]] = {name: [] for name, _ in calls}
        spin = 0.0
        for number in range(warm + rounds):
            took, host = self._round(calls, spin)
            spin = min(1.5 * host, _LONGEST_SPIN)  # the first round compiles: the second one's is right
            if number >= warm:
                for name in times:
                    times[name].append(sum(t for (called, _), t in zip(calls, took, strict=True) if called == name))
        return times

    def cold(self, work: Work, *, rounds: int, warm: int = 2) -> list[float]:
        """Times of `work` with nothing of its data in the caches."""
        if not self.cuda:
            return self.each([("work", work)], rounds=rounds, warm=warm)["work"]
        flush = torch.empty(_FLUSH, dtype=torch.int8, device=self.device)
        return self.each([("flush", flush.zero_), ("work", work)], rounds=rounds, warm=warm)["work"]

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def _once(self, work: Work) -> float:
        self.wait()
        if not self.cuda:
            begin = time.perf_counter()
            work()
            return time.perf_counter() - begin
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3

    def _round(self, calls: Sequence[tuple[str, Work]], spin: float) -> tuple[list[float], float]:
        """Seconds of each call, and of the host until all were launched."""
        self.wait()
        if not self.cuda:
            times = [self._once(work) for _, work in calls]
            return times, sum(times)
        begin = time.perf_counter()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(calls) + 1)]
        if spin:
            torch.cuda._sleep(int(spin * _SPIN))
        marks[0].record()
        for (_, work), mark in zip(calls, marks[1:], strict=True):
            work()
            mark.record()
        host = time.perf_counter() - begin
        marks[-1].synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(marks)], host
