"""Hands times measured elsewhere to pytest-benchmark, whose own rounds run one contender after the other.

``@pytest.mark.benchmark(timer=CLOCK)`` makes the fixture read a clock that stands still but for what is played on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ReplayClock:
    """A timer for pytest-benchmark, in seconds."""

    __name__ = "bench.race.replay.CLOCK"

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def play(self, seconds: float) -> None:
        self.now += seconds


CLOCK = ReplayClock()


def replay(benchmark: Any, seconds: Sequence[float]) -> None:
    """Give the fixture one round for each of `seconds`; its test is marked with CLOCK as the timer."""
    rounds = iter(seconds)
    benchmark.pedantic(CLOCK.play, setup=lambda: ((next(rounds),), {}), rounds=len(seconds), iterations=1)
