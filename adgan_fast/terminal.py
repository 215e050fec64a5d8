"""What a terminal can show."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def any_text(errors: str) -> Iterator[None]:
    """Within, stdout and stderr take any text.

    What they cannot show (on ASCII alone the letters of a name, say) becomes what `errors` says: "replace" a question
    mark, "backslashreplace" an escape.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=errors)
    try:
        yield
    finally:
        for stream, was in zip(streams, before, strict=True):
            stream.reconfigure(errors=was)
