"""The table of engines, and the choice of one for a job."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from ..core.job import Engine, Job
from .eager import Eager
from .grouped import Grouped
from .native.engine import Native
from .reference import Reference
from .triton.engine import Triton

__all__ = ["TABLE", "EngineInfo", "choose", "engines", "named"]

log = logging.getLogger("adgan_fast")

TABLE: tuple[Engine, ...] = (Triton(), Native(), Grouped(), Eager(), Reference())
"""Fastest first; every engine is here."""


@dataclasses.dataclass(frozen=True)
class EngineInfo:
    """An engine as `adgan_fast.engines()` lists it.

    Attributes:
        name: for SearchConfig.engine.
        available: whether it can run on this machine.
        why_not: the reason and the remedy where it cannot, else "".
        exact: whether precision="float32" is within the float32 bound of the reference.
    """

    name: str
    available: bool
    why_not: str
    exact: bool


def engines() -> list[EngineInfo]:
    """Every engine, fastest first, and whether it can run on this machine."""
    return [EngineInfo(engine.name, engine.why_not() is None, engine.why_not() or "", engine.exact) for engine in TABLE]


Verdict = Callable[[Engine, Job], str | None]
"""Why an engine that can run a job is not to be trusted with it, or None (verify.py)."""


def choose(job: Job, verdict: Verdict) -> Engine:
    """The engine that the config names, or for "auto" the fastest that can run this job; a log line says which.

    Raises ValueError, with reason and remedy, where the engine that is named cannot run, or is not to be trusted.
    """
    if job.config.engine != "auto":
        return _asked(job, verdict)
    passed: list[str] = []
    for engine in TABLE:
        reason = engine.why_not() or engine.refuses(job)
        if reason is None and (reason := verdict(engine, job)):
            log.warning("engine %r %s. It is passed over; please report this generator", engine.name, reason)
        if reason is None:
            log.info("engine %r on %s%s", engine.name, job.device, "".join(f"; not {why}" for why in passed))
            return engine
        passed.append(f"{engine.name!r}: {reason}")
    raise ValueError("no engine can run this generator: " + "; ".join(passed))


def named(name: str) -> Engine:
    """The engine of this name; ValueError naming all where there is none."""
    for engine in TABLE:
        if engine.name == name:
            return engine
    raise ValueError(f"engine {name!r} is not in this version, which has {', '.join(repr(e.name) for e in TABLE)}")


def _asked(job: Job, verdict: Verdict) -> Engine:
    engine = named(job.config.engine)
    reason = engine.why_not() or engine.refuses(job) or verdict(engine, job)
    if reason is None:
        return engine
    others = ", ".join(repr(e.name) for e in TABLE if e is not engine and not (e.why_not() or e.refuses(job)))
    raise ValueError(f"engine {engine.name!r} cannot run: {reason}. Use engine='auto', or one of {others}.")
