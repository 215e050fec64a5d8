"""How an engine's time grows with one size of the job, the others held: sizes in turn, and a fitted exponent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import torch

from adgan_fast.config import SearchConfig

from . import cases, gate
from .contenders import Contender
from .race import Load, setup_seconds, timed_call
from .rows import cores

SHAPE = "dcgan16x1"
BASE = {"n_seed": 16, "steps": 5, "images": 2, "width": 16}
"""A small job: a generator for 16 x 16 pixels, latent 64."""
BESIDE = {"threads": {"n_seed": 64, "images": 8}}
"""By variable, what is not as in BASE: enough work that starting threads is nothing beside it."""

THREADS = tuple(2**i for i in range(cores().bit_length()))
SIZES = {
    "n_seed": (16, 32, 64, 128),
    "steps": (3, 6, 12, 24),
    "images": (2, 4, 8, 16),
    "width": (16, 32, 64),
    "threads": THREADS,
}
MOST = {"n_seed": 1.25, "steps": 1.25, "images": 1.25, "width": 2.4, "threads": 0.1}
"""Exponents that no engine may exceed: linear in the work, at most quadratic in the width (a convolution's work is
width²), with room for noise and for caches that overflow. More threads make nothing slower: at best it is -1."""


@dataclasses.dataclass(frozen=True)
class Growth:
    """Least seconds at each size, a call's setup taken off, and the gate of the smallest job."""

    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    gate: gate.Gate

    @property
    def exponent(self) -> float:
        return exponent(self.sizes, self.seconds)


def base(variable: str) -> dict[str, int]:
    """What is held while a variable grows."""
    return BASE | BESIDE.get(variable, {})


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """b of the least-squares fit log(seconds) = a + b·log(size)."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def measure(
    variable: str,
    among: Iterable[Contender],
    *,
    device: str,
    rounds: int,
    most_rounds: int,
    build: Callable[..., cases.Case] = cases.build,
) -> dict[str, Growth]:
    """Growth of each contender that can run, by name: every round visits every size of every contender.

    The least of the rounds counts, not the median, since what disturbs a call only adds to it. While an exponent is out
    of bounds there are more rounds, up to `most_rounds`: a disturbance passes, a bad exponent stays.
    """
    jobs = []
    threads = torch.get_num_threads()
    for size in SIZES[variable]:
        sizes = base(variable) | {variable: size}
        config = SearchConfig(n_seed=sizes["n_seed"], steps=sizes["steps"])
        jobs.append(build(SHAPE, config, images=sizes["images"], device=device, width=sizes["width"], latent=64))
    clocks = [_Clock(contender, variable, jobs) for contender in among if contender.why_not(jobs[0]) is None]
    wanted = gate.reference(jobs[0])
    try:
        gates = {clock.name: clock.gate(wanted) for clock in clocks}
        for number in range(most_rounds):
            for clock in clocks:
                clock.visit()
            if number + 1 >= rounds and all(clock.exponent() <= MOST[variable] for clock in clocks):
                break
    finally:
        torch.set_num_threads(threads)
    for clock in clocks:
        if math.isinf(clock.exponent()):
            raise RuntimeError(
                f"{clock.name}, {variable}: a call took no longer than one without images: {clock.calls}"
            )
    return {clock.name: Growth(SIZES[variable], tuple(clock.seconds()), gates[clock.name]) for clock in clocks}


class _Clock:
    """The least times of one contender on jobs of growing size."""

    def __init__(self, contender: Contender, variable: str, jobs: Sequence[cases.Case]):
        self.name, self.variable, self.sizes, self.jobs = contender.name, variable, SIZES[variable], jobs
        self.runs = [contender.start(job) for job in jobs]
        self.calls, self.setups = ([math.inf] * len(jobs) for _ in range(2))

    def gate(self, wanted: gate.ReferenceLosses) -> gate.Gate:
        """One call of each job, and the gate of the smallest; where only threads differ, the worst."""
        losses = []
        for i, (job, run) in enumerate(zip(self.jobs, self.runs, strict=True)):
            self.set_threads(i)
            losses.append(timed_call(job, run, _whole(job))[1])
        found = [gate.check(each, wanted) for each in (losses if self.variable == "threads" else losses[:1])]
        return next((one for one in found if not one.green), found[0])

    def set_threads(self, i: int) -> None:
        if self.variable == "threads":
            torch.set_num_threads(self.sizes[i])

    def visit(self) -> None:
        for i, (job, run) in enumerate(zip(self.jobs, self.runs, strict=True)):
            self.set_threads(i)
            self.setups[i] = min(self.setups[i], setup_seconds(job, run))
            self.calls[i] = min(self.calls[i], timed_call(job, run, _whole(job))[0])

    def seconds(self) -> list[float]:
        return [call - setup for call, setup in zip(self.calls, self.setups, strict=True)]

    def exponent(self) -> float:
        """Infinite while a difference is lost in what disturbs the calls."""
        seconds = self.seconds()
        return exponent(self.sizes, seconds) if min(seconds) > 0 else math.inf


def _whole(job: cases.Case) -> Load:
    return Load(len(job.images), len(job.starts))
