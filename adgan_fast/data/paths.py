"""What every loader is told: where a set lies, and which part of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

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
