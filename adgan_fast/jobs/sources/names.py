"""`Names`: very many names in little memory, and names of files as text."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterable


class Names:
    """A list of file names as one run of bytes: eight bytes more than a name's own, where a list of str takes 60."""

    def __init__(self, names: Iterable[str]) -> None:
        data, ends = bytearray(), array("q", [0])
        for name in names:
            data += name.encode("utf-8", "surrogateescape")
            ends.append(len(data))
        self._data, self._ends = data, ends
        digest = hashlib.sha256(data)
        digest.update(ends)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._data[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")


def as_id(name: str) -> str:
    r"""`as_text`, and no two names have the same: a backslash of the name's own before ``xff`` becomes ``\x5c``."""
    return as_text(re.sub(r"\\(?=x[0-9a-f]{2})", r"\\x5c", name))


def as_text(name: str) -> str:
    r"""A file's name as text that any file can hold: bytes that are not UTF-8 as \xff, the rest as it is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
