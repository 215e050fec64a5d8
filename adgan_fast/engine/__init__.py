"""The table of engines, and the choice of one for a job."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

from ..config import SearchConfig
from ..core import registry
from ..core.engine import Engine
from ..core.job import Job
from .eager import Eager
from .grouped import Grouped
from .native.engine import Native
from .reference import Reference
from .triton.engine import Triton

__all__ = ["EngineInfo", "choose", "engines", "named", "needs_program", "register", "table"]

log = logging.getLogger("adgan_fast")

_MEMBERS = [name for name in (*Engine.__annotations__, *vars(Engine)) if not name.startswith("_")]


def register(engine: Engine, *, before: str | None = None) -> None:
    """Add an engine of your own to the table: it then works by its name wherever an engine is named.

    Args:
        engine: an object with the members of `adgan_fast.core.engine.Engine`.
        before: the name of the engine that it is faster than: "auto" tries it before that one. None: it runs only
            where it is named.

    Raises:
        TypeError: it is a class, or lacks members, which are named.
        ValueError: its name is taken, or `before` names none.
    """
    if isinstance(engine, type):
        raise TypeError(f"an engine is an object, got the class {engine.__name__}: register({engine.__name__}())")
    if missing := [name for name in _MEMBERS if not hasattr(engine, name)]:
        raise TypeError(f"{type(engine).__name__} is not an engine: it has no {', '.join(missing)}")
    registry.add(engine, before)


for _engine in (Triton(), Native(), Grouped(), Eager(), Reference()):  # fastest first
    register(_engine)


def table() -> tuple[Engine, ...]:
    """Every engine, fastest first."""
    return registry.table()


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
    return [EngineInfo(e.name, (why_not := e.why_not()) is None, why_not or "", e.exact) for e in table()]


Verdict = Callable[[Engine, Job], str | None]
"""Why an engine that can run a job is not to be trusted with it, or None (admission, verify.py)."""


def choose(job: Job, verdict: Verdict) -> Engine:
    """The engine that the config names, or for "auto" the fastest that can run this job; a log line says which.

    Raises ValueError, with reason and remedy, where the engine that is named cannot run, or is not to be trusted.
    """
    if job.config.engine != registry.AUTO:
        return _asked(job, verdict)
    passed: list[str] = []
    for engine in table():
        reason = _cannot(engine, job)
        if reason is None and job.config.precision == "float32" and not engine.exact:
            reason = "it is less exact than float32"
        if reason is None and (reason := verdict(engine, job)):
            log.warning("engine %r %s. It is passed over; please report it", engine.name, reason)
        if reason is None:
            log.info("engine %r on %s%s", engine.name, job.device, "".join(f"; not {why}" for why in passed))
            return engine
        passed.append(f"{engine.name!r}: {reason}")
    raise ValueError("no engine can run this generator: " + "; ".join(passed))


def named(name: str) -> Engine:
    """The engine of this name; ValueError naming all where there is none."""
    for engine in table():
        if engine.name == name:
            return engine
    raise ValueError(f"engine {name!r} is not in this version, which has {', '.join(repr(e.name) for e in table())}")


def needs_program(config: SearchConfig) -> bool:
    """Whether an engine that the config may mean runs a job's Program."""
    return any(e.needs_program for e in (table() if config.engine == registry.AUTO else (named(config.engine),)))


def _asked(job: Job, verdict: Verdict) -> Engine:
    engine = named(job.config.engine)
    reason = _cannot(engine, job) or verdict(engine, job)
    if reason is None:
        return engine
    others = ", ".join(repr(e.name) for e in table() if e is not engine and not _cannot(e, job))
    raise ValueError(f"engine {engine.name!r} cannot run: {reason}. Use engine='auto', or one of {others}.")


def _cannot(engine: Engine, job: Job) -> str | None:
    """Why an engine cannot run a job; None if it can."""
    if reason := engine.why_not():
        return reason
    if engine.needs_program and job.program is None:
        return job.unlowered or "the generator was not captured as a program"
    return engine.refuses(job)
