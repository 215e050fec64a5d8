"""What a command tells a person, on stderr: the log, warnings, what could not be read. Results go to stdout."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

SHOWN = 5
"""Images that are named one by one; of the others the number is told."""


def line(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def aloud(quiet: bool) -> Iterator[None]:
    """Within, the package's log (warnings alone where quiet) and Python's warnings are lines on stderr."""
    log, handler = logging.getLogger("adgan_fast"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warning
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def _warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    line(f"warning: {' '.join(str(message).split())}")


class Bad:
    """Images that could not be read: the first are told, all are counted."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, name: str, reason: str) -> None:
        """One more."""
        self.count += 1
        if self.count <= SHOWN:
            line(f"could not be read: {name!r}: {reason}")

    def tell(self, more: str = "") -> None:
        """How many others there are; `more` says where they are listed."""
        if self.count > SHOWN:
            line(f"and {self.count - SHOWN} more could not be read{more}")
