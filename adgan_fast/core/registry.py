"""The table of engines by name, fastest first: those of the package and those that a user registers.

It knows no more of an engine than its name. So `SearchConfig`, which every engine knows, can ask it for the names.
"""

from __future__ import annotations

from typing import Any

AUTO = "auto"
"""What SearchConfig.engine says where any engine may run."""

_engines: dict[str, Any] = {}


def add(engine: Any, before: str | None = None) -> None:
    """Add an engine ahead of the one called `before`, or at the end.

    Raises ValueError where its name is no text, or is taken, or no engine is called `before`.
    """
    global _engines
    name = engine.name
    if not isinstance(name, str) or not name:
        raise ValueError(f"an engine's name must be a text, got {name!r}")
    if name in names():
        raise ValueError(f"the name {name!r} is taken; the engines are {', '.join(map(repr, _engines))}")
    if before is not None and before not in _engines:
        raise ValueError(f"there is no engine {before!r}; the engines are {', '.join(map(repr, _engines))}")
    order = list(_engines)
    order.insert(len(order) if before is None else order.index(before), name)
    known = _engines | {name: engine}
    _engines = {each: known[each] for each in order}  # at once: another thread may be looking


def table() -> tuple[Any, ...]:
    """Every engine, fastest first."""
    return tuple(_engines.values())


def names() -> tuple[str, ...]:
    """What SearchConfig.engine may say."""
    return (AUTO, *_engines)
