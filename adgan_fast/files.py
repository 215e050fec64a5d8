"""Files written so that each is the old one or the whole new one, whatever happens; and JSON that says what it is."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO


def replace(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` so that ``path`` holds the old bytes or all the new ones, whatever happens."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` at the end; after an error all is as it was.

    A process that is killed may leave the unfinished file: its name is that of ``temporary_names``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename itself must be on disk before the next file refers to it; not every system can open a folder for that.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def temporary_names(name: str) -> str:
    """A pattern of what a killed process may have left of a file of this name (itself a pattern, if wanted)."""
    return f".{name}.*.tmp"


def csv_writer(text: IO[str]) -> Any:
    """A `csv.writer` of lines that end in a line feed; a text with any kind of line end in it is quoted."""

    class Lines:
        def write(self, row: str) -> None:
            text.write(row.removesuffix("\r\n") + "\n")

    return csv.writer(Lines(), lineterminator="\r\n")  # Python 3.11 quotes what is in the line's end alone


def read_head(path: Path, format: str, version: int, what: str, error: type[ValueError] = ValueError) -> dict[str, Any]:
    """The JSON object in a file that says its ``format`` and its ``version``.

    Raises ``error`` naming the file, and ``what`` it is not, where it is damaged or of another format or version.
    """
    try:
        head = json.loads(path.read_bytes())
    except ValueError as reason:
        raise error(f"{path}: not JSON ({reason})") from reason
    if not isinstance(head, dict) or head.get("format") != format:
        raise error(f"{path}: not a {what} of adgan_fast")
    if head.get("version") != version:
        raise error(f"{path}: format version {head.get('version')!r}, this release reads version {version}")
    return head
