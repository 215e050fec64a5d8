"""How far a long piece of work is, on stderr: a bar on a terminal or in a notebook, elsewhere one line a minute."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import Any, TextIO

from tqdm.auto import tqdm

EVERY = 60.0
"""Seconds between lines."""


def bar(total: int, unit: str, *, done: int = 0, about: str = "", shown: bool = True) -> Any:
    """A context manager with ``update(n)`` and ``set_postfix_str(note)``, as tqdm's bars have them.

    Args:
        total: units in all.
        unit: what is counted, in the singular.
        done: units that an earlier run has done; not counted in the rate.
        about: what is being done, before the numbers.
        shown: False for a silent one.
    """
    if not shown or sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(total=total, initial=done, desc=about or None, unit=unit, disable=not shown)
    return Lines(total, unit, done, about, sys.stderr)


class Lines:
    """A line with the first unit, each minute and in the end: for logs, which a bar would fill with thousands."""

    def __init__(self, total: int, unit: str, done: int, about: str, out: TextIO) -> None:
        self._total, self._unit, self._about, self._out = total, unit, f"{about}: " if about else "", out
        self._done, self._before, self._note = done, done, ""
        self._began, self._said = time.monotonic(), -math.inf

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._say()

    def update(self, n: int = 1) -> None:
        """So many units more."""
        self._done += n
        if time.monotonic() - self._said >= EVERY:
            self._say()

    def set_postfix_str(self, note: str, refresh: bool = True) -> None:
        """What stands behind the numbers, from the next line on."""
        self._note = note

    def _say(self) -> None:
        self._said = time.monotonic()
        seconds, new = self._said - self._began, self._done - self._before
        rate = new / seconds if seconds > 0 else 0.0
        parts = [f"{self._done} of {self._total} {self._unit}s"]
        if rate > 0:
            parts.append(f"{rate:.3g} {self._unit}s/s")
        if rate > 0 and self._done < self._total:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        if self._note:
            parts.append(self._note)
        print(f"{self._about}{', '.join(parts)}", file=self._out, flush=True)


def duration(seconds: float) -> str:
    """As a person says it: 40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
