"""Timing: all contenders in one process, warm, one call each in turn, round after round.

So whatever slows the machine for a while slows everybody, and a ratio is taken within a round. A call that gave losses
out of the gate's bounds, in any round, is no result.

Each contender searches as many pairs as fill about the same time: whole images where it is fast, the first starts of
one image where it is slow (a plain loop takes seconds an image); times are scaled to an image of all starts. What is
paid once a call whatever the number of images (a generator's capture) is timed beside, on a call without images, and
subtracted: the peers have done theirs before the clock starts.
"""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import torch

from adgan_fast.testing import Losses

from ..peers.base import Searcher
from . import gate, memory
from .cases import Case
from .contenders import Contender


@dataclasses.dataclass(frozen=True)
class Load:
    """The first `images` images, searched from the first `starts` starts each."""

    images: int
    starts: int

    @property
    def pairs(self) -> int:
        return self.images * self.starts


@dataclasses.dataclass
class Entry:
    """What is known of one contender after the race.

    Attributes:
        why_not: why it could not run; None if it could.
        error: what it raised, to be raised again by its test.
        gate: the worst of its gates; None if it never ran.
        load: what one timed call searched.
        of_starts: starts of a whole image.
        calls: seconds of the timed call of each round.
        setups: for each round, seconds of a call without images (none for a peer: its setup is not in its calls).
        peak_bytes: peak memory of one call in a process of its own, beyond generator and images; None if not measured.
    """

    contender: Contender
    why_not: str | None = None
    error: BaseException | None = None
    gate: gate.Gate | None = None
    load: Load | None = None
    of_starts: int = 0
    calls: list[float] = dataclasses.field(default_factory=list)
    setups: list[float] = dataclasses.field(default_factory=list)
    peak_bytes: int | None = None

    @property
    def setup(self) -> float:
        """Least seconds of a call without images: what disturbs it only adds to it."""
        return min(self.setups, default=0.0)

    @property
    def seconds(self) -> list[float]:
        """For each round, seconds of an image of all starts."""
        assert self.load is not None
        return [(call - self.setup) / self.load.pairs * self.of_starts for call in self.calls]

    @property
    def valid(self) -> bool:
        """Whether its speed may be shown."""
        return self.error is None and self.gate is not None and self.gate.green and bool(self.calls)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def race(
    case: Case,
    among: Iterable[Contender],
    *,
    rounds: int,
    seconds: float,
    with_memory: bool,
    gate_starts: Sequence[int] = (64, 8),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Entry]:
    """Race `among` on `case`, calls of about `seconds`, and return what is known of each by name.

    `gate_starts`: of the first images, how many starts the gate compares."""
    entries = {
        contender.name: Entry(contender, contender.why_not(case), of_starts=len(case.starts)) for contender in among
    }
    say("the float64 reference")
    wanted = gate.reference(case, gate_starts)
    runs: dict[str, Searcher] = {}
    for entry in entries.values():
        if entry.why_not is None:
            say(f"warming up {entry.contender.name}")
            try:
                runs[entry.contender.name] = run = entry.contender.start(case)
                entry.load, losses = _fitting_load(case, entry.contender, run, seconds)
                entry.gate = gate.check(losses, wanted, case.config.precision)
            except Exception as error:
                entry.error = error  # raised again by the contender's own test; the others still race
    racing = [entry for entry in entries.values() if entry.error is None and entry.gate and entry.gate.green]
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for entry in racing:
            try:
                _one_round(case, entry, runs[entry.contender.name], wanted)
            except Exception as error:
                entry.error = error
    if with_memory:
        for entry in racing:
            if entry.valid and entry.load is not None:
                say(f"memory of {entry.contender.name}")
                entry.peak_bytes = memory.peak_of_search(
                    case, entry.contender.name, entry.load.images, entry.load.starts
                )
    return entries


def ratio(entries: dict[str, Entry], name: str, to: str | None) -> float | None:
    """How many times faster `name` is than `to`: median over the rounds of their ratio within a round."""
    if to is None or to not in entries or not (entries[to].valid and entries[name].valid):
        return None
    return statistics.median(
        theirs / ours for theirs, ours in zip(entries[to].seconds, entries[name].seconds, strict=True)
    )


def best_peer(entries: dict[str, Entry]) -> str | None:
    """The peer with the least median time, the plain loop included."""
    peers = [entry for entry in entries.values() if entry.valid and entry.contender.kind == "peer"]
    return min(peers, key=lambda entry: entry.median).contender.name if peers else None


def _loads(case: Case, least_pairs: int) -> list[Load]:
    """Growing loads: part of the starts of one image, doubled up to all, then one image, two, four ... up to all."""
    s, loads = len(case.starts), []
    if case.config.weights != "per_sample":  # its starts share their weights: an image is one piece of work
        part = least_pairs
        while part < s:
            loads.append(Load(1, part))
            part *= 2
    images = max(1, -(-least_pairs // s))
    while images < len(case.images):
        loads.append(Load(images, s))
        images *= 2
    return [*loads, Load(len(case.images), s)]


def _fitting_load(case: Case, contender: Contender, run: Searcher, seconds: float) -> tuple[Load, Losses]:
    """The first load, of growing ones, that takes at least half of `seconds` warm; and its losses."""
    for load in _loads(case, contender.least_pairs(case)):
        losses = timed_call(case, run, load)[1]  # warm-up: compilation, caches, the allocator
        took, losses = timed_call(case, run, load)
        if contender.kind == "engine":
            took -= setup_seconds(case, run)
        if took >= seconds / 2:
            break
    return load, losses


def _one_round(case: Case, entry: Entry, run: Searcher, wanted: gate.ReferenceLosses) -> None:
    assert entry.load is not None and entry.gate is not None
    if entry.contender.kind == "engine":
        entry.setups.append(setup_seconds(case, run))
    took, losses = timed_call(case, run, entry.load)
    entry.calls.append(took)
    found = gate.check(losses, wanted, case.config.precision)
    if not found.green or found.rms > entry.gate.rms:
        entry.gate = found if entry.gate.green else entry.gate


def setup_seconds(case: Case, run: Searcher) -> float:
    """Seconds of a call without images."""
    return timed_call(case, run, Load(0, len(case.starts)))[0]


def timed_call(case: Case, run: Searcher, load: Load) -> tuple[float, Losses]:
    """Seconds of one call, and its losses (N, S)."""
    images, starts = case.images[: load.images], case.starts[: load.starts]
    gc.collect()
    _wait(case)
    begin = time.perf_counter()
    losses = run(images, starts)
    _wait(case)
    return time.perf_counter() - begin, losses


def _wait(case: Case) -> None:
    if case.starts.device.type == "cuda":
        torch.cuda.synchronize(case.starts.device)
