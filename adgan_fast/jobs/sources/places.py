"""`Places`: where the paths lead that a table names."""

from __future__ import annotations

import os
from typing import NamedTuple

from ..source import Unreadable
from .names import as_text


class Places(NamedTuple):
    """Relative paths count from `folder`; no path may lead out of `within`.

    What a table names is read, and a table may come from anybody: unbounded, it could have any file of the machine
    read. Names are compared, with each ``..`` resolved, and not where links lead: who has linked something into the
    folder has meant it, as in a folder of pictures.

    Attributes:
        folder, within: absolute.
        known_as: `within` with links followed: absolute paths may name it so.
    """

    folder: str
    within: str
    known_as: str

    @classmethod
    def of(cls, folder: str, within: str | os.PathLike[str] | None) -> Places:
        """within: None for the folder itself."""
        folder = os.path.abspath(folder)
        within = folder if within is None else os.path.abspath(within)
        return cls(folder, within, os.path.realpath(within))

    def path(self, cell: str) -> str | Unreadable:
        """The file that a cell names."""
        if not cell or "\0" in cell:
            return Unreadable("the row holds no path")
        path = os.path.normpath(os.path.join(self.folder, cell))
        if any(os.path.normcase(path).startswith(os.path.normcase(os.path.join(at, ""))) for at in self[1:]):
            return path
        return Unreadable(
            f"its path {cell!r} leads out of {as_text(self.within)}: --within DIR (within=) reads what lies in DIR"
        )
