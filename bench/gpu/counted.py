"""Rows that count.py made, as they are kept: bench/results/count/<target>-<case>.jsonl."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adgan_fast.kernels.maps.choices import Tiles

Row = dict[str, Any]
RESULTS = Path(__file__).resolve().parents[1] / "results" / "count"


def file_of(target: str, shape: str) -> Path:
    """Of a GPU's architecture and a case."""
    return RESULTS / f"{target}-{shape}.jsonl"


def load(file: Path) -> list[Row]:
    """The rows of a file; none where it is not."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def name_of(row: Row) -> tuple[Any, ...]:
    """Layer, precision, kernel, and its tiles or None: no two rows of a file have the same."""
    return tuple(row[field] for field in ("layer", "precision", "kernel", "tiles"))


def instructions(row: Row) -> float:
    """That the warps of a pair issue in a search."""
    return sum(row["issued"].values())


def favoured(rows: Sequence[Row], layer: str, precision: str, kernel: str, most: int) -> list[Tiles]:
    """The tiles with the fewest instructions, the fewest first; at most so many."""
    mine = [row for row in rows if name_of(row)[:3] == (layer, precision, kernel) and "issued" in row]
    return [Tiles(**row["tiles"]) for row in sorted(mine, key=instructions)[:most]]


def row_for(rows: Sequence[Row], layer: str, precision: str, kernel: str, tiles: Tiles | None) -> Row | None:
    """The row of that kernel with those tiles, if it was counted."""
    wanted = (layer, precision, kernel, None if tiles is None else dataclasses.asdict(tiles))
    return next((row for row in rows if name_of(row) == wanted and "issued" in row), None)
