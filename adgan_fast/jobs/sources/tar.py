"""Pictures in a tar file, as webdataset has them: the members that are named like pictures. Nothing is unpacked."""

from __future__ import annotations

import logging
import os
import tarfile
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.folders import IMAGE_SUFFIXES
from ..errors import InputsChanged
from ..source import Item, Unreadable
from .files import passed_over, stamp
from .names import Names, as_id, as_text
from .shaping import Shaping

log = logging.getLogger("adgan_fast")

MOST_LABEL = 1 << 10
"""Bytes of a label at most."""


class Tar:
    """Pictures in an uncompressed tar file, in its order. An id is a member's name, which is a name alone: no path.

    A name's ``.`` counts for nothing: of ``./a/b.png`` the id is ``a/b.png``, as in a folder. Hidden files and folders
    and ``__MACOSX`` are passed over, too.

    Args:
        name: the file.
        labels: whether items have labels: what the ``.cls`` file of the same key holds (webdataset's rule: a key is a
            name up to the first dot of its last part).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is compressed, damaged, cut short, or no tar file.
    """

    def __init__(self, name: str | os.PathLike[str], shaping: Shaping | None = None, *, labels: bool = False) -> None:
        self.name, self.shaping, self.labels = os.fspath(name), shaping or Shaping(), labels
        if not os.path.isfile(self.name):
            raise FileNotFoundError(f"{as_text(self.name)}: no such file")
        self._stamp = stamp(self.name)
        self._members: _Members | None = None

    def items(self) -> Iterator[Item]:
        """All members that are named like pictures."""
        members = self._listed()
        for index in range(len(members.names)):
            name = members.names[index]
            yield Item(as_id(name), members.labels.get(_key(name)), "")

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8 | np.float32] | Unreadable]:
        """(C, H, W) uint8 each, decoded as it is asked for."""
        members = self._listed()
        with open(self.name, "rb") as file:
            self.require_same(first, stop)
            for index in range(first, min(stop, len(members.names))):
                file.seek(members.starts[index])
                yield self.shaping.of_picture(members.names[index], file.read(members.sizes[index]))

    def fingerprint(self) -> dict[str, Any]:
        """Kind, absolute path, size and time of the file, labels or not, shaping."""
        path = as_text(os.path.abspath(self.name))
        return {"kind": "tar", "path": path, "stamp": self._stamp, "labels": self.labels, **self.shaping.described()}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_members": None}

    def _listed(self) -> _Members:
        if self._members is None:
            self.require_same(0, 0)
            self._members = _Members(self.name, self.labels)
        return self._members

    def require_same(self, first: int, stop: int) -> None:
        """InputsChanged where the file has changed."""
        if stamp(self.name) != self._stamp:
            raise InputsChanged(f"{as_text(self.name)}: has changed since the job began to read it")


class _Members:
    """Where the pictures of a tar file lie in it."""

    def __init__(self, path: str, labels: bool) -> None:
        self.starts, self.sizes, self.labels = array("q"), array("q"), dict[str, str]()
        said = as_text(path)
        names: list[str] = []
        try:
            with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
                whole = os.fstat(file.fileno()).st_size
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                    if member.isreg() and member.offset_data + member.size > whole:
                        raise ValueError(f"{said}: cut short in {as_text(member.name)}")
                    name = "/".join(part for part in member.name.split("/") if part != ".")
                    suffix = os.path.splitext(name)[1].lower()
                    if any(passed_over(part) for part in name.split("/") if part != ".."):
                        continue
                    if not member.isreg():
                        if suffix in IMAGE_SUFFIXES and not member.isdir():
                            log.warning("%s: passed over %s, which is no file", said, as_text(name))
                    elif labels and suffix == ".cls":
                        self.labels[_key(name)] = _label(file, member, said)
                    elif suffix in IMAGE_SUFFIXES:
                        names.append(name)
                        self.starts.append(member.offset_data)
                        self.sizes.append(member.size)
                # The reader takes damage after the first member for the end.
                file.seek(tar.offset)
                end = file.read(tarfile.BLOCKSIZE)
        except tarfile.TarError as error:
            packed = _compressed(path)
            remedy = f"compressed ({packed}): unpack it, for images are read from its middle" if packed else str(error)
            raise ValueError(f"{said}: not a tar file, or a damaged one ({remedy})") from error
        if end != bytes(tarfile.BLOCKSIZE):
            raise ValueError(f"{said}: damaged, or cut short, after {names[-1] if names else 'its beginning'}")
        self.names = Names(names)


def _label(file: Any, member: tarfile.TarInfo, said: str) -> str:
    if member.size > MOST_LABEL:
        raise ValueError(f"{said}: {as_text(member.name)} is no label, but {member.size} bytes")
    place = file.tell()
    file.seek(member.offset_data)
    text = file.read(member.size).decode("utf-8", "backslashreplace").strip()
    file.seek(place)
    return text


def _key(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _compressed(path: str) -> str:
    with open(path, "rb") as file:
        head = file.read(6)
    packings = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    return next((name for magic, name in packings.items() if head.startswith(magic)), "")
