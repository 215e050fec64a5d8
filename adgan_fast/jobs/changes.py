"""Which images are others than those that a job began with, as far as its finished parts tell."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from . import parts
from .description import Description
from .manifest import shards
from .source import Source


def first_other(folder: Path, before: Description, source: Source) -> str:
    """The first row of a finished part whose id or label the source has otherwise, in words.

    Parts hold no sizes and times: where ids and labels are the same it is said that these have changed, or later rows.
    """
    coming, rows = source.items(), 0
    for shard in shards(before["manifest"]["items"], before["shard"]):
        now = [(item.id, item.label) for item in itertools.islice(coming, shard.stop - shard.first)]
        try:
            table = pq.read_table(parts.path_of(folder, shard.number), columns=["id", "label"])
        except (pa.ArrowException, OSError, ValueError):  # not finished, or damaged: it tells nothing
            continue
        then = zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
        for row, (mine, theirs) in enumerate(itertools.zip_longest(now, then), shard.first):
            if mine != theirs:
                return f"the first in row {row}, {_said(theirs)} there and {_said(mine)} here"
        rows += len(table)
    if not rows:
        return "no finished part tells which"
    return f"ids and labels of the {rows} in finished parts are the same, so sizes or times have changed, or later ones"


def _said(row: tuple[str, str | None] | None) -> str:
    if row is None:
        return "none"
    name, label = row
    return repr(name) if label is None else f"{name!r} (label {label!r})"
