"""The parts of a job: one parquet file for each shard, whole or not there."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..core.processor import processor
from ..files import replacing, temporary_names
from . import decision, windowed
from . import description as descriptions
from .batch import KEEPABLE, NUMBERS, STATUSES, Arrays
from .description import Description
from .errors import JobDamaged, OtherJob
from .lock import unusable
from .manifest import Shard, shards
from .source import Item

PATTERN = "part-*.parquet"
KEY = b"adgan_fast"
"""Of the footer's entry: JSON with the job's description, the shard, how many rows have which status, and what made
them: when, where, in what time."""

Counts = dict[str, int]


class Unfinished(Exception):
    """A part's file is not whole."""


def path_of(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def write(
    folder: Path,
    shard: Shard,
    items: list[Item],
    found: Arrays,
    description: Description,
    seconds: dict[str, float] | None = None,
) -> Counts:
    """Write a part, on disk when this returns; how many rows have which status. FolderUnusable where it cannot be.

    `seconds` that it took, by what they were spent on, are kept in the footer, as `made` has it.
    """
    rows = shard.stop - shard.first
    assert len(items) == rows and all(len(values) == rows for values in found.values())
    counts = {name: count for name in STATUSES if (count := Counter(found["status"].tolist())[name])}
    meta = {"job": description, "shard": list(shard), "counts": counts, "made": made(seconds or {}, description)}
    table = _table(items, found).replace_schema_metadata({KEY: json.dumps(meta, ensure_ascii=False)})
    try:
        with replacing(path_of(folder, shard.number)) as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    except OSError as error:
        raise unusable(folder, error) from error
    return counts


def made(seconds: dict[str, float], description: Description) -> dict[str, Any]:
    """When and where a part was made, and in what time: it decides no row, and is in no description."""
    here = description.get("device") == "cuda" and torch.cuda.is_initialized()  # else other processes have searched
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": {name: round(took, 6) for name, took in seconds.items()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if here else None,
        "threads": torch.get_num_threads(),
    }


def _table(items: list[Item], found: Arrays) -> pa.Table:
    well = found["status"] == "ok"
    columns: dict[str, Any] = {
        "id": pa.array([item.id for item in items], pa.string()),
        "label": pa.array([item.label for item in items], pa.string()),
    }
    columns |= {name: pa.array(found[name], mask=~well) for name in NUMBERS}
    columns |= {name: pa.array(found[name], pa.string()) for name in ("status", "error")}
    columns |= {name: pa.array(found[name], mask=~well) for name in decision.COLUMNS if name in found}
    if windowed.COUNT in found:
        columns[windowed.COUNT] = pa.array(found[windowed.COUNT])
    if "windows" in found:
        columns["windows"] = windowed.lists(found["windows"])
    for name in KEEPABLE:
        if name in found and name not in columns:
            columns[name] = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(found[name]))
    return pa.table(columns)


def counts_of(path: Path, shard: Shard, description: Description) -> Counts:
    """How many rows of a part have which status, by its footer.

    Raises Unfinished where the file is damaged, and OtherJob, naming the difference, where it is of another job.
    """
    refuse_foreign([path])
    try:
        meta = json.loads(pq.read_metadata(path).metadata[KEY])
        job, at, counts, rows = meta["job"], meta["shard"], meta["counts"], pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise Unfinished(str(error).splitlines()[0]) from error
    if wrong := descriptions.differences(description, job):
        raise OtherJob(other(path, wrong))
    if at != list(shard) or rows != shard.stop - shard.first:
        raise Unfinished(f"it holds {rows} rows of the shard {at}, and is to hold those of {list(shard)}")
    return counts


def other(path: Path, wrong: list[str]) -> str:
    return (
        f"{path} is of another job: {'; '.join(wrong)}. Give this job a folder of its own, set what differs as it was, "
        "or begin anew with overwrite=True (--overwrite)"
    )


def refuse_foreign(paths: Iterable[Path]) -> None:
    """OtherJob where one of these is a parquet file that no job has written: it is not replaced, nor removed."""
    for path in paths:
        try:
            ours = KEY in (pq.read_metadata(path).metadata or {})
        except (pa.ArrowInvalid, OSError):  # cut short: what a job's part may be
            continue
        if not ours:
            raise OtherJob(f"{path} is a parquet file of something else: give the job a folder of its own")


def description_in(folder: Path) -> Description | None:
    """What the first part whose footer can be read says of its job; None where there is none."""
    for path in sorted(folder.glob(PATTERN)):
        try:
            found: Description = json.loads(pq.read_metadata(path).metadata[KEY])["job"]
            return found
        except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError):
            continue
    return None


def clear(folder: Path, whole: bool = False) -> None:
    """Remove what a killed process left unfinished; `whole`: every part, and the description last.

    OtherJob where a part would be a file of something else: then nothing is removed.
    """
    if whole:
        refuse_foreign(folder.glob(PATTERN))
    gone = [*folder.glob(temporary_names(PATTERN)), *folder.glob(temporary_names(descriptions.NAME))]
    if whole:
        gone += [*folder.glob(PATTERN), folder / decision.NAME, folder / descriptions.NAME]
    try:
        for path in gone:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise unusable(folder, error) from error


def tables(folder: Path) -> Iterator[pa.Table]:
    """The parts of a finished job in order, each checked: footer, description, and the checksums of its pages.

    Raises FileNotFoundError where there is no job; JobDamaged where a part is missing or damaged; OtherJob where one is
    of another job.
    """
    description = descriptions.read(folder)
    if description is None:
        raise FileNotFoundError(f"{folder} holds no job: there is no {descriptions.NAME} in it")
    for shard in shards(description["manifest"]["items"], description["shard"]):
        yield table_of(folder, shard, description)


def table_of(folder: Path, shard: Shard, description: Description, columns: Sequence[str] | None = None) -> pa.Table:
    """One part of a finished job, checked; of its columns these alone. Raises JobDamaged and OtherJob as `tables`."""
    path = path_of(folder, shard.number)
    if not path.exists():
        raise JobDamaged(f"{path} is not there: the job is not finished. Run it again, and it goes on")
    try:
        counts_of(path, shard, description)
        table = pq.read_table(path, columns=columns, page_checksum_verification=True)
    except (Unfinished, pa.ArrowInvalid, OSError) as error:
        raise JobDamaged(
            f"{path} is damaged: {str(error).splitlines()[0]}. Remove it and run the job again: it is computed anew"
        ) from error
    return table.replace_schema_metadata(None)


def made_in(path: Path) -> dict[str, Any]:
    """What the footer of a part says of how it was made, see `made`; empty where it says nothing."""
    return dict(json.loads(pq.read_metadata(path).metadata[KEY]).get("made", {}))
