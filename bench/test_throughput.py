"""Throughput of every engine beside every peer, each behind the correctness gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .race.race import Entry
from .race.replay import CLOCK, replay


@pytest.mark.benchmark(timer=CLOCK)
def test_seconds_per_image(shape: str, contender: str, races: Callable[[str], dict[str, Entry]], request: Any) -> None:
    """Seconds for an image of all starts; fails where the losses are not the reference's."""
    entry = races(shape)[contender]
    if entry.error is not None:
        raise entry.error
    if entry.why_not is not None:
        pytest.skip(f"{contender}: {entry.why_not}")
    assert entry.gate is not None and entry.load is not None
    if not entry.gate.green:
        pytest.fail(f"{contender}: gate red, no speed: {entry.gate.failures}")
    benchmark = request.getfixturevalue("benchmark")  # not before: a fixture that is not used warns
    benchmark.group = f"{shape}, seconds an image"
    benchmark.extra_info |= {
        "kind": entry.contender.kind,
        "images": entry.load.images,
        "starts": entry.load.starts,
        "peak_bytes": entry.peak_bytes,
        "gate_rms": entry.gate.rms,
        "seconds_per_call": entry.setup,
    }
    replay(benchmark, entry.seconds)
