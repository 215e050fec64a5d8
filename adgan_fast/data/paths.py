"""What every loader is told: where a set lies, and which part of it; and files that can be read to their end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

Split = Literal["train", "test"]
PathLike = str | os.PathLike[str]


def checked_split(split: str) -> str:
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return split


def existing_file(path: PathLike) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path


def existing_folder(path: PathLike) -> Path:
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    return path


def opened(path: PathLike) -> BinaryIO:
    """A regular file, to be read.

    Raises OSError, as `open`; and for a FIFO, a device and the like, which may have no end, or wait for ever to begin.
    """
    if kind := special(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, f"{kind}, no regular file", os.fspath(path))
    return open(path, "rb")


def special(mode: int) -> str:
    """What a file is that is no regular one, in words, by its mode; "" for a regular one."""
    kinds = {
        stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "something else")
