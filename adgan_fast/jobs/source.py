"""`Source`: what a job reads its images from, image by image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Item(NamedTuple):
    """One line of a manifest.

    Attributes:
        id: path relative to IMAGES, or row number as text.
        label: where there is one.
        stamp: what changes when the item's content may have: "size:mtime_ns" of a file, "" for a row.
    """

    id: str
    label: str | None
    stamp: str


class Unreadable(Exception):
    """One input that is no image, with the reason."""


class Misfit(Unreadable):
    """One that was read, and is not what is searched: of another shape, or out of range. An option may mend it."""


class Source(Protocol):
    """Where images come from. Picklable and cheap to send to a worker; holds no open file.

    ``read(first, stop)`` may be called from several threads or processes at once. One whose fingerprint tells of files
    by their stamps, and not its items, also has ``require_same(first, stop)``: see `require_same`.
    """

    name: str  # as the user gave it, for messages and job.json

    def items(self) -> Iterator[Item]:
        """All, in manifest order, again the same when called again; a million need flat memory."""

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8 | np.float32] | Unreadable]:
        """(C, H, W) each, decoded, in manifest order."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON: kind, path, settings of shaping."""


def require_same(source: Source, first: int, stop: int) -> None:
    """InputsChanged where the files that hold items [first, stop) are not those of the fingerprint any more.

    Asked after these are read, and before anything is written of them: what lies open, or is mapped into memory, may
    change under its reader.
    """
    check = getattr(source, "require_same", None)
    if check is not None:
        check(first, stop)
