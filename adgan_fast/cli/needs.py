"""Packages that a command needs and that may not be there."""

from __future__ import annotations

import importlib.util

from .given import Mistake


def needs(extra: str, *modules: str) -> None:
    """Mistake, with the extra to install, where one of these modules is not there."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise Mistake(f"this needs {', '.join(missing)}: pip install 'adgan-fast[{extra}]'")
