"""The parts of a job: one parquet file for each shard, whole or not there."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from .batch import KEEPABLE, NUMBERS, STARTS_USED, STATUSES, Arrays
from .description import Description
from .errors import JobDamaged, OtherJob
from .lock import unusable
from .manifest import Shard, shards
from .source import Item

PATTERN = "part-*.parquet"
KEY = b"adgan_fast"
"""Of the footer's entry: JSON with the job's description, the shard, how many rows have which status, and what made
them: when, where, in what time."""

GROUP_BYTES = 64 * 2**20
"""Of reconstructions in a group of rows, at most, but for one row's: as much of a part lies in memory at once."""

Counts = dict[str, int]


class Unfinished(Exception):
    """A part's file is not whole."""


def path_of(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


class Unwritten(Exception):
    """A part is given up before it is whole."""


class Writer:
    """A part that is being written, its rows in groups: on disk when `close` returns, and else not there.

    Args:
        items: gives the items of so many rows that come next.

    Raises:
        FolderUnusable: by every method, where the folder cannot be written.
    """

    def __init__(
        self, folder: Path, shard: Shard, description: Description, items: Callable[[int], list[Item]]
    ) -> None:
        self._folder, self._shard, self._description, self._items = folder, shard, description, items
        self._counts, self._seconds = Counter[str](), defaultdict[str, float](float)
        self._waiting: list[Arrays] = []
        self._rows = self._rows_waiting = 0
        self._writer: pq.ParquetWriter | None = None
        self._replacing = replacing(path_of(folder, shard.number))
        with self._writable():
            self._file = self._replacing.__enter__()

    def add(self, rows: Arrays, seconds: dict[str, float]) -> None:
        """Rows that come next, and the seconds that they took, by what these were spent on: they go into the footer."""
        self._counts.update(rows["status"].tolist())
        for what, took in seconds.items():
            self._seconds[what] += took
        self._waiting.append(rows)
        self._rows_waiting += len(rows["status"])
        at_once, left = self._group(rows), self._shard.stop - self._shard.first - self._rows - self._rows_waiting
        while self._rows_waiting >= at_once or (self._rows_waiting and not left):
            self._write(min(at_once, self._rows_waiting))

    def close(self) -> Counts:
        """Call the file by its name, once all rows are there; how many rows have which status."""
        assert self._writer is not None and self._rows == self._shard.stop - self._shard.first
        counts = {name: self._counts[name] for name in STATUSES if self._counts[name]}
        seconds = made(dict(self._seconds), self._description)
        meta = {"job": self._description, "shard": list(self._shard), "counts": counts, "made": seconds}
        with self._writable():
            self._writer.add_key_value_metadata({KEY.decode(): json.dumps(meta, ensure_ascii=False)})
            self._writer.close()
            self._replacing.__exit__(None, None, None)
        return counts

    def give_up(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # of a full disk: it would write its footer
                self._writer.close()
        with contextlib.suppress(Unwritten, OSError):
            self._replacing.__exit__(Unwritten, Unwritten(), None)

    def _group(self, rows: Arrays) -> int:
        """Rows of a group."""
        kept = sum(rows[name][:1].nbytes for name in KEEPABLE if name in rows)
        return max(1, GROUP_BYTES // kept) if kept else self._shard.stop - self._shard.first

    def _write(self, count: int) -> None:
        """The first `count` rows of those that wait."""
        whole = {name: _joined([rows[name] for rows in self._waiting]) for name in self._waiting[0]}
        table = _table(self._items(count), {name: values[:count] for name, values in whole.items()})
        with self._writable():
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd", write_page_checksum=True)
            self._writer.write_table(table, row_group_size=count)
        self._rows, self._rows_waiting = self._rows + count, self._rows_waiting - count
        # Copied, so that what has been written is let go.
        rest = {name: values[count:].copy() for name, values in whole.items()}
        self._waiting = [rest] if self._rows_waiting else []

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unusable(self._folder, error) from error


def _joined(pieces: list[Any]) -> Any:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


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
    columns |= {name: pa.array(found[name], mask=~well) for name in (*NUMBERS, STARTS_USED) if name in found}
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


def tables(
    folder: str | os.PathLike[str], columns: Sequence[str] | None = None, *, pieces: bool = False
) -> Iterator[pa.Table]:
    """The parts of a finished job in order, each checked: footer, description, and the checksums of its pages.

    Args:
        folder: of the job.
        columns: these alone; None: all. Of reconstructions a part may hold gigabytes.
        pieces: each part in pieces, of about GROUP_BYTES at most.

    Raises FileNotFoundError where there is no job; JobDamaged where a part is missing or damaged; OtherJob where one is
    of another job.
    """
    folder = Path(folder)
    description = descriptions.read(folder)
    if description is None:
        raise FileNotFoundError(f"{folder} holds no job: there is no {descriptions.NAME} in it")
    for shard in shards(description["manifest"]["items"], description["shard"]):
        if pieces:
            yield from groups_of(folder, shard, description, columns)
        else:
            yield table_of(folder, shard, description, columns)


def table_of(folder: Path, shard: Shard, description: Description, columns: Sequence[str] | None = None) -> pa.Table:
    """One part of a finished job, checked; of its columns these alone. Raises JobDamaged and OtherJob as `tables`."""
    return pa.concat_tables(list(groups_of(folder, shard, description, columns)))


def groups_of(
    folder: Path,
    shard: Shard,
    description: Description,
    columns: Sequence[str] | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[pa.Table]:
    """`table_of`, one group of rows after the other. rows: of the part, ascending, those alone that are given."""
    path = path_of(folder, shard.number)
    if not path.exists():
        raise JobDamaged(f"{path} is not there: the job is not finished. Run it again, and it goes on")
    try:
        counts_of(path, shard, description)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            first = 0
            for number in range(file.num_row_groups):
                stop = first + file.metadata.row_group(number).num_rows
                mine = None if rows is None else [row - first for row in rows if first <= row < stop]
                if mine is None or mine:
                    table = file.read_row_group(number, columns).replace_schema_metadata(None)
                    yield table if mine is None else table.take(mine)
                first = stop
    except (Unfinished, pa.ArrowInvalid, OSError) as error:
        raise JobDamaged(
            f"{path} is damaged: {str(error).splitlines()[0]}. Remove it and run the job again: it is computed anew"
        ) from error


def plain_columns(folder: str | os.PathLike[str]) -> list[str]:
    """The columns of a job's parts but for KEEPABLE, by the first part; none where there is no part yet."""
    first = path_of(Path(folder), 0)
    try:
        names = pq.read_schema(first).names if first.exists() else []
    except (pa.ArrowInvalid, OSError) as error:
        raise JobDamaged(f"{first} is damaged: {str(error).splitlines()[0]}") from error
    return [name for name in names if name not in KEEPABLE]


def made_in(path: Path) -> dict[str, Any]:
    """What the footer of a part says of how it was made, see `made`; empty where it says nothing."""
    return dict(json.loads(pq.read_metadata(path).metadata[KEY]).get("made", {}))
