"""Loading of the C++ extension, whose kernels register themselves for the operators of this package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

PACKAGE = Path(__file__).parents[1]
"""Where setup.py leaves the library, or a note of why there is none."""

_REMEDY = (
    "To get it, install a C++ compiler and torch>=2.11, then reinstall adgan-fast from source with "
    "ADGAN_FAST_BUILD_EXT=1 pip install --no-build-isolation ."
)


@cache
def load_extension() -> str | None:
    """Load the compiled CPU kernels, once.

    Returns:
        None when they are loaded; else one sentence that says why they are not and what to do about it. Later calls
        return the same answer and cost nothing.
    """
    libraries = sorted(PACKAGE.glob("_C.*so"))
    if not libraries:
        note = PACKAGE / "_C.unbuilt.txt"  # left by setup.py when it went on without a compiler
        cause = ""
        if note.is_file():
            cause = f": {note.read_text(encoding='utf-8').strip()}"
        elif (PACKAGE.parent / "setup.py").is_file():
            cause = (
                f": Python took adgan_fast from its sources in {PACKAGE.parent}, where nothing was compiled. If it is "
                "installed elsewhere, start from another folder"
            )
        return f"the C++ extension was not built with this installation{cause}. {_REMEDY}"
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError as error:
        return f"the C++ extension {libraries[0].name} cannot be loaded ({error}). {_REMEDY}"
    return None
