"""Verdicts of admissions, kept in the user's cache: one small JSON file, replaced whole.

Two processes that try the same machine at once both write it, and the last one's file stays; what the other had found
is then asked for again. Without the file, or with one that cannot be read, nothing has been seen.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .. import files
from .machine import Machine

log = logging.getLogger("adgan_fast")

MOST = 64  # verdicts; the oldest go


class Settings(NamedTuple):
    """What of a search decides which kernels run; `engine` is its name."""

    engine: str
    precision: str
    weights: str

    def __str__(self) -> str:
        return f"engine {self.engine!r} ({self.precision}, {self.weights})"


class Verdict(NamedTuple):
    """What an admission found.

    Attributes:
        wrong: what is wrong, with the figures; "" where nothing is.
        note: what could not be tried; "" where all was.
        seconds: that it took.
        when: in UTC, ISO 8601.
    """

    wrong: str
    note: str
    seconds: float
    when: str

    @property
    def word(self) -> str:
        return "WRONG" if self.wrong else "right"

    def __str__(self) -> str:
        return self.word + "".join(f": {each}" for each in (self.wrong, self.note) if each)


Entry = tuple[Machine, Settings, Verdict]


def path() -> Path:
    """admissions.json in the folder that the platform has for a user's cache. OSError where there is no home."""
    return _cache() / "adgan_fast" / "admissions.json"


def _cache() -> Path:
    asked = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(asked):  # the specification says to pass over others
        return Path(asked)
    local = os.environ.get("LOCALAPPDATA", "") if sys.platform == "win32" else ""
    if local:
        return Path(local)
    try:
        home = Path.home()
    except RuntimeError as error:
        raise OSError(f"no home folder: {error}") from error
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def find(machine: Machine, settings: Settings) -> Verdict | None:
    """The last verdict for these, or None."""
    return next((found for here, of, found in reversed(read()) if (here, of) == (machine, settings)), None)


def read() -> list[Entry]:
    """All that are kept, oldest first; [] where there is no file, or with a log line one that cannot be read."""
    try:
        text = path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        _say(f"the verdicts on GPUs cannot be read, engines are tried anew: {error}")
        return []
    try:
        return [_entry(row) for row in json.loads(text)]
    except (KeyError, TypeError, ValueError) as error:
        _say(f"{path()} is damaged, engines are tried anew: {type(error).__name__}: {error}")
        return []


@functools.cache
def _say(line: str) -> None:
    log.warning(line)


def _entry(row: Any) -> Entry:
    """KeyError or TypeError for a row that is none."""
    machine, settings, verdict = Machine(**row["machine"]), Settings(**row["settings"]), Verdict(**row["verdict"])
    texts = (*machine, *settings, verdict.wrong, verdict.note, verdict.when)
    if not all(isinstance(text, str) for text in texts) or not isinstance(verdict.seconds, (int, float)):
        raise TypeError(f"not a verdict: {row}")
    return machine, settings, verdict


def keep(machine: Machine, settings: Settings, verdict: Verdict) -> str:
    """Write a verdict in place of an older one for the same; where, or "" with a log line where that cannot be."""
    others = [entry for entry in read() if entry[:2] != (machine, settings)]
    rows = [
        {"machine": here._asdict(), "settings": of._asdict(), "verdict": found._asdict()}
        for here, of, found in [*others, (machine, settings, verdict)][-MOST:]
    ]
    try:
        where = path()
        where.parent.mkdir(parents=True, exist_ok=True)
        files.replace(where, json.dumps(rows, indent=1).encode())
    except OSError as error:
        _say(f"the verdict on this GPU is not kept, so that each process tries it anew: {error}")
        return ""
    return str(where)
