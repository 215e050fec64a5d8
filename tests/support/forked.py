"""Work in a child of this process, which a test may kill."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def forked(work: Callable[[], object]) -> int:
    """Begin `work` in a child; its number. The child's exit status is 0, or 1 after an error, which it shows."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
        work()
    except BaseException as error:
        os.write(2, f"in the child: {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def ended(child: int, seconds: float = 60) -> int:
    """How the child ended: its exit status, or the negative number of the signal that killed it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the child did not end within {seconds} s")


def until_there(path: Path, seconds: float = 60) -> None:
    """Wait for a file."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.002)
