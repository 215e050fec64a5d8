"""An interrupt (Ctrl-C, SIGINT), or a request to end (SIGTERM), that waits until the step in work is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupt:
    """Whether the user has asked for an end."""

    asked = False


_USUAL: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextlib.contextmanager
def held_back(wanted: bool = True) -> Iterator[Interrupt]:
    """Within, a first SIGINT or SIGTERM is only noted (``asked``); a second does at once what it does elsewhere.

    One that was noted and not acted upon raises KeyboardInterrupt at the end. Nothing is held back where not
    ``wanted``, nor outside of the main thread (Python lets no other set this), nor is a signal for which the program
    has a handler of its own.
    """
    interrupt = Interrupt()
    main = threading.current_thread() is threading.main_thread()
    if not wanted or not main:
        yield interrupt
        return
    held = [number for number, usual in _USUAL.items() if signal.getsignal(number) is usual]

    def let_go() -> None:
        for number in held:
            signal.signal(number, _USUAL[number])

    def note(number: int, frame: FrameType | None) -> None:
        let_go()
        interrupt.asked = True

    for number in held:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        let_go()
    if interrupt.asked:
        raise KeyboardInterrupt
