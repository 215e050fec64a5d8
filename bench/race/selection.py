"""Which contenders a run of pytest asks for: by the options, and by the tests that were not deselected."""

from __future__ import annotations

from typing import Any

import pytest

from .contenders import contenders


def chosen(config: pytest.Config) -> list[str]:
    """Names of the contenders that the options leave in."""
    everybody = contenders()

    def wanted(option: str, kind: str) -> list[str]:
        known = [name for name, contender in everybody.items() if contender.kind == kind]
        given = config.getoption(option)
        if given is None:
            quick = config.getoption("--quick")
            return [name for name in known if not (quick and name == "compiled_vmap")]
        names = [] if given == "none" else given.split(",")
        if unknown := sorted(set(names) - set(known)):
            raise pytest.UsageError(f"{option}: no {kind} is called {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return wanted("--engines", "engine") + wanted("--peers", "peer")


def parameters(item: pytest.Item) -> dict[str, Any]:
    """The parameters of a collected test; {} if it has none."""
    spec = getattr(item, "callspec", None)
    return {} if spec is None else dict(spec.params)
