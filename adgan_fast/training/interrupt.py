"""An interrupt (Ctrl-C, SIGINT) that waits until the step in work is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupt:
    """Whether the user has asked for an end."""

    asked = False


@contextlib.contextmanager
def held_back(wanted: bool = True) -> Iterator[Interrupt]:
    """Within, a first SIGINT is only noted (``asked``); a second raises KeyboardInterrupt wherever the program is.

    One that was noted and not acted upon raises at the end. Nothing is held back where not ``wanted``, outside of the
    main thread (Python lets no other set this), and where the program has a handler of its own.
    """
    interrupt = Interrupt()
    main = threading.current_thread() is threading.main_thread()
    if not wanted or not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def note(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt.asked = True

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupt.asked:
        raise KeyboardInterrupt
