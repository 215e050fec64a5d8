"""Pictures in files: a folder with all its subfolders, what a pattern matches, or a single one."""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.folders import IMAGE_SUFFIXES
from ...data.paths import special
from ..errors import InputsChanged
from ..source import Item, Unreadable
from .names import Names, as_id, as_text
from .shaping import Shaping

log = logging.getLogger("adgan_fast")


class Files:
    """Pictures in files, in the order of their names, folder by folder.

    A folder is searched with its subfolders for files that are named like pictures, in small letters or capitals.
    Passed over are hidden files and folders (".x"), ``__MACOSX``, and, with a log line, links to folders: they may lead
    round for ever. A link that leads nowhere counts as a picture that cannot be read, and so does what is named like a
    picture but no regular file (a FIFO, a device). A pattern takes every file that it matches, whatever its name;
    ``**`` stands for folders in folders. A label is the first folder below the root.

    Args:
        name: the folder, the pattern, or one file.
        labels: whether items have labels.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a folder that may not be read; one name that is neither a folder nor a regular file.
        InputsChanged: while it is read, other files than there were before.
    """

    def __init__(self, name: str | os.PathLike[str], shaping: Shaping | None = None, *, labels: bool = False) -> None:
        self.name, self.shaping, self.labels = os.fspath(name), shaping or Shaping(), labels
        self._pattern, self._single = "", ""
        if os.path.isdir(self.name):
            self.root = self.name
        elif os.path.isfile(self.name):
            self.root, self._single = os.path.split(self.name)
        elif glob.has_magic(self.name):
            self.root, self._pattern = _parts(self.name)
        elif os.path.exists(self.name):
            raise ValueError(
                f"{as_text(self.name)}: {special(os.stat(self.name).st_mode)}, no file or folder of pictures"
            )
        else:
            raise FileNotFoundError(f"{as_text(self.name)}: no such file or folder")
        self._names: Names | None = None
        self._digest = ""

    def items(self) -> Iterator[Item]:
        """All, each with the size and the time of its file; "" of one that is not there any more."""
        names = self._listed()
        for index in range(len(names)):
            name = names[index]
            folder, _, _ = name.partition(os.sep)
            label = as_id(folder) if self.labels and folder != name else None
            yield Item(as_id(name.replace(os.sep, "/")), label, stamp(os.path.join(self.root, name)))

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8 | np.float32] | Unreadable]:
        """(C, H, W) uint8 each, decoded as it is asked for."""
        names = self._listed()
        for index in range(first, min(stop, len(names))):
            yield self.shaping.of_picture(os.path.join(self.root, names[index]))

    def fingerprint(self) -> dict[str, Any]:
        """Kind, absolute path, labels or not, shaping."""
        kind = "pattern" if self._pattern else "file" if self._single else "folder"
        path = os.path.abspath(os.path.join(self.root, self._pattern or self._single))
        return {"kind": kind, "path": as_text(path), "labels": self.labels, **self.shaping.described()}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_names": None}  # whoever reads it lists the files anew, and compares

    def _listed(self) -> Names:
        if self._names is None:
            names = Names([self._single] if self._single else self._matched() if self._pattern else below(self.root))
            if self._digest and names.digest != self._digest:
                raise InputsChanged(f"{as_text(self.name)}: files have come or gone since the job began to read it")
            self._names, self._digest = names, names.digest
        return self._names

    def _matched(self) -> Iterator[str]:
        found = glob.glob(self._pattern, root_dir=self.root or None, recursive=True)
        files = {name for name in found if not os.path.isdir(os.path.join(self.root, name))}
        yield from sorted(files, key=lambda name: name.split(os.sep))


def stamp(path: str) -> str:
    """ "size:mtime_ns" of a file; "" where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a null character, which no file's name holds
        return ""
    return f"{found.st_size}:{found.st_mtime_ns}"


def below(root: str, inner: str = "") -> Iterator[str]:
    """Files named like pictures in a folder and its subfolders, relative to `root`."""
    for name in _entries(os.path.join(root, inner)):
        path = os.path.join(inner, name)
        try:
            mode = os.stat(os.path.join(root, path)).st_mode
        except OSError:  # a link that leads nowhere, or round
            mode = stat.S_IFREG
        if stat.S_ISDIR(mode):
            if os.path.islink(os.path.join(root, path)):
                said = "passed over, a link to a folder: copy the pictures there, or link each of them"
                log.warning("%s: %s", as_text(os.path.join(root, path)), said)
            else:
                yield from below(root, path)
        elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            yield path


def _entries(folder: str) -> list[str]:
    """Names in a folder, sorted; without those that are passed over."""
    try:
        return sorted(name for name in os.listdir(folder) if not passed_over(name))
    except OSError as error:
        raise ValueError(f"{as_text(folder)}: cannot be read ({error.strerror})") from error


def passed_over(name: str) -> bool:
    """Whether a file or folder is hidden, or what systems and editors leave there."""
    return name.startswith(".") or name == "__MACOSX"


def _parts(pattern: str) -> tuple[str, str]:
    """A pattern as the folder before its first wildcard, and the rest."""
    parts = pattern.split(os.sep)
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root = os.sep.join(parts[:first])
    return (root or os.sep) if pattern.startswith(os.sep) else root, os.sep.join(parts[first:])
