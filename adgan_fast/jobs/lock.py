"""One run at a time in a job's folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from .errors import FolderUnusable, JobError, JobLocked

log = logging.getLogger("adgan_fast")

NAME = "job.lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made where it is not there.

    The system gives a lock back when its process ends, however it ends: that of a dead process is taken over, and a log
    line says so. Raises JobLocked naming the process that holds it, and FolderUnusable where the folder cannot be
    written.
    """
    try:
        from filelock import FileLock, Timeout
    except ModuleNotFoundError as error:
        raise JobError("jobs need the package filelock: pip install 'adgan-fast[jobs]'") from error
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, preserve_lock_file=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise JobLocked(
            f"{folder} is in use by {_holder(path)}. Wait until it ends, or end it; or give this run another folder"
        ) from None
    except OSError as error:
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            raise FolderUnusable(f"{folder} is a file, or lies below one: a job is a folder") from error
        raise unusable(folder, error) from error
    try:
        if left := _holder(path, ""):
            log.warning("%s: %s ended without giving the folder back; it is taken over", folder, left)
        try:
            _say(path, {"pid": os.getpid(), "host": socket.gethostname()})
        except OSError as error:
            raise unusable(folder, error) from error
        yield
    finally:
        with contextlib.suppress(OSError):
            _say(path, None)
        lock.release()


def _say(path: Path, holder: dict[str, object] | None) -> None:
    path.write_text(json.dumps(holder) if holder else "")


def _holder(path: Path, otherwise: str = "another process") -> str:
    try:
        found = json.loads(path.read_text())
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return otherwise


def unusable(folder: Path, error: OSError) -> FolderUnusable:
    """What to say where a folder cannot be written."""
    return FolderUnusable(
        f"{folder} cannot be written: {error.strerror or error}. Finished parts are kept; see to its disk and its "
        "permissions, and run again to go on, or give another folder"
    )
