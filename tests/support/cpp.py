"""C++ of csrc/core in tests, compiled in few pieces: headers are most of what a small file costs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

COMPILER = shlex.split(os.environ.get("CXX", "c++"))


def is_one_instruction_set(source: Path) -> bool:
    """Whether this file is of the kernels for one of them, which want a compilation each."""
    return source.stem.startswith("kernels_")


def together(sources: Iterable[Path], folder: Path) -> Path:
    """A file in `folder` that includes these: no two of them have a name of their own in common."""
    path = folder / "together.cpp"
    path.write_text("".join(f'#include "{source}"\n' for source in sources), encoding="utf-8")
    return path
