"""Jobs: many images through one search, into files, in a way that may be killed at any moment and gone on with."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from . import parts
from .batch import KEEPABLE, STATUSES, ScoreBatch
from .decision import Decision
from .errors import (
    FolderUnusable,
    InputsChanged,
    InputUnusable,
    JobDamaged,
    JobError,
    JobInterrupted,
    JobLocked,
    OtherJob,
    WorkerDied,
)
from .runner import JobResult, run
from .source import Item, Source, Unreadable

__all__ = [
    "KEEPABLE",
    "STATUSES",
    "Decision",
    "FolderUnusable",
    "InputUnusable",
    "InputsChanged",
    "Item",
    "JobDamaged",
    "JobError",
    "JobInterrupted",
    "JobLocked",
    "JobResult",
    "OtherJob",
    "ScoreBatch",
    "Source",
    "Unreadable",
    "WorkerDied",
    "plain_columns",
    "read",
    "run",
    "tables",
]

tables, plain_columns = parts.tables, parts.plain_columns


def read(out: str | os.PathLike[str]) -> pa.Table:
    """The rows of a finished job in manifest order, as one table; `tables` gives the parts one after another.

    Raises FileNotFoundError where there is no job, JobDamaged where a part is missing or damaged, OtherJob where one is
    of another job.
    """
    found = list(tables(Path(out)))
    return pa.concat_tables(found) if found else pa.table({})
