"""Sources that do something to the actors that read them. Of a module, so that these can load them."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.runs import Given, Listed

PATIENCE = 60.0
"""Seconds that an actor waits for another one."""


@dataclasses.dataclass
class Deadly(Listed):
    """As many processes as `readers` read it, all but the first images; one is killed on image 8, `times` times.

    What they did is in `folder`: "pid-N" of each that has read, "killed-N" of each that was killed.
    """

    folder: str = ""
    times: int = 1
    readers: int = 2

    def read(self, first: int, stop: int) -> Iterator[Given]:
        if first >= 2:  # image 0 is also read to prepare
            (Path(self.folder) / f"pid-{os.getpid()}").touch()
            self._together()
        if first <= 8 < stop and first and len(self.killed()) < self.times:
            (Path(self.folder) / f"killed-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(first, stop)

    def killed(self) -> list[Path]:
        return list(Path(self.folder).glob("killed-*"))

    def read_by(self) -> list[Path]:
        return list(Path(self.folder).glob("pid-*"))

    def _together(self) -> None:
        until = time.monotonic() + PATIENCE
        while len(self.read_by()) < self.readers:
            if time.monotonic() > until:
                raise TimeoutError("no second actor has come")
            time.sleep(0.05)


class Wrong(Listed):
    def read(self, first: int, stop: int) -> Iterator[Given]:
        if first >= 4:
            raise OSError("the disk is gone")
        return super().read(first, stop)
