"""Images in the rows of parquet files: encoded pictures in a column, or their paths."""

from __future__ import annotations

import bisect
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...data.paths import opened
from ..errors import InputsChanged
from ..source import Item, Unreadable
from .files import stamp
from .names import as_text
from .places import Places
from .shaping import Shaping

IMAGE_COLUMNS = ("image", "img", "bytes", "jpg", "png", "image_path", "path", "file", "filename", "file_name")
"""Where images are looked for, unless a column is named."""
LABEL_COLUMNS = ("label", "labels", "class", "y", "fine_label")
ROWS = 64
"""Read at once."""
KEPT = 32
"""So often so many rows are kept, for threads that are a little behind."""

Hold = Literal["pictures", "paths", "both"]
"""What the cells of a file's column are."""

_making = threading.Lock()  # of a reader, by the first of several threads


class Table:
    """The rows of a parquet file, or of all those in a folder in the order of their names.

    A cell holds an encoded picture (binary), a path (text, relative to the table's folder), or both, as Hugging Face's
    ``Image`` does (a struct of ``bytes`` and ``path``, which counts where there are no bytes). An id is the row's
    number, counted over all files.

    Args:
        name: the file or the folder.
        column: of the images; when None the first of IMAGE_COLUMNS that there is.
        labels: whether items have labels: the first of LABEL_COLUMNS.
        within: the folder that paths may not leave; None: the table's own. A row whose path does is Unreadable.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a file is damaged, no parquet file, or has no such column.
        ImportError: pyarrow is not installed, with the remedy.
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        shaping: Shaping | None = None,
        *,
        column: str | None = None,
        labels: bool = False,
        within: str | os.PathLike[str] | None = None,
    ) -> None:
        self.name, self.shaping, self.labels = os.fspath(name), shaping or Shaping(), labels
        if os.path.isdir(self.name):
            self.root, files = self.name, sorted(file for file in os.listdir(self.name) if is_parquet(file))
        else:
            self.root, files = os.path.dirname(self.name), [os.path.basename(self.name)]
        if not files or not os.path.exists(self.name):
            raise FileNotFoundError(f"{as_text(self.name)}: no parquet file")
        self._files, self._within = files, None if within is None else os.path.abspath(within)
        self._places = Places.of(self.root, within)
        self._stamps = [stamp(os.path.join(self.root, file)) for file in files]
        self._kept: Reader | None = None
        self._ends: list[int] = []  # rows up to the end of each file
        self._hold: list[Hold] = []  # of each file
        for file in files:
            with Opened(os.path.join(self.root, file)) as found:
                schema, rows = found.schema_arrow, found.metadata.num_rows
            if not self._ends:
                self.column = column or self._one_of(IMAGE_COLUMNS, schema, "images: name it by --column")
                self._label = self._one_of(LABEL_COLUMNS, schema, "labels") if labels else None
            for wanted in filter(None, (self.column, self._label)):
                if wanted not in schema.names:
                    raise ValueError(f"{as_text(file)}: no column {wanted!r}, but {', '.join(schema.names)}")
            self._hold.append(_held(as_text(file), self.column, schema.field(self.column).type))
            self._ends.append(rows + (self._ends[-1] if self._ends else 0))

    def items(self) -> Iterator[Item]:
        """The rows by their numbers; of a path, the size and the time of its file."""
        number = 0
        for file in range(len(self._files)):
            for row in self._rows(file):
                label = row[self._label] if self._label else None
                yield Item(
                    str(number), None if label is None else str(label), self._stamp(content(row.get(self.column)))
                )
                number += 1

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8 | np.float32] | Unreadable]:
        """(C, H, W) uint8 each, decoded as it is asked for. To read on is cheap, to go back is not."""
        while first < min(stop, self._ends[-1]):
            file = bisect.bisect_right(self._ends, first)
            begin = self._ends[file] - self._length(file)
            for cell in self._reader.cells(file, first - begin, min(stop, self._ends[file]) - begin):
                yield self._image(cell)
            first = self._ends[file]

    def fingerprint(self) -> dict[str, Any]:
        """Kind, absolute path, files with their sizes and times, column, labels or not, `within` if given, shaping."""
        files = {as_text(file): stamp for file, stamp in zip(self._files, self._stamps, strict=True)}
        about = {"kind": "table", "path": as_text(os.path.abspath(self.name)), "files": files}
        within = {} if self._within is None else {"within": as_text(self._within)}  # not there: as in older jobs
        return about | {"column": self.column, "labels": self.labels} | within | self.shaping.described()

    def require_same(self, first: int, stop: int) -> None:
        """InputsChanged where one of the files that hold these rows has changed."""
        for file in range(bisect.bisect_right(self._ends, first), len(self._files)):
            self._require_same(file)
            if self._ends[file] >= stop:
                break

    def _image(self, cell: Any) -> npt.NDArray[np.uint8] | Unreadable:
        found = content(cell)
        if not found:
            return Unreadable("the row holds no image")
        if isinstance(found, bytes):
            return self.shaping.of_picture("image", found)
        path = self._places.path(found)
        return path if isinstance(path, Unreadable) else self.shaping.of_picture(path)

    def _stamp(self, found: bytes | str | None) -> str:
        """Of the file that a cell names; "" where it names none that may be read."""
        path = self._places.path(found) if isinstance(found, str) else ""
        return stamp(path) if isinstance(path, str) and path else ""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}  # no open file is sent to another process

    @property
    def _reader(self) -> Reader:
        """This process's own: a file that is open in two would be read by both in turns."""
        with _making:
            if self._kept is None or self._kept.process != os.getpid():
                self._kept = Reader(self._checked, self.column)
            return self._kept

    def _length(self, file: int) -> int:
        return self._ends[file] - (self._ends[file - 1] if file else 0)

    def _rows(self, file: int) -> Iterator[dict[str, Any]]:
        """All rows of a file: the labels, and the images' column where it names files."""
        if self._label is None and self._hold[file] == "pictures":
            yield from ({} for _ in range(self._length(file)))
            return
        with self._checked(file) as found, damage_named(self._files[file]):
            for number in range(found.metadata.num_row_groups):
                group = found.metadata.row_group(number)
                wanted = [self._label, self.column if self._names_files(file, group) else None]
                if columns := [name for name in wanted if name]:
                    for batch in found.iter_batches(ROWS, row_groups=[number], columns=columns):
                        yield from batch.to_pylist()
                else:
                    yield from ({} for _ in range(group.num_rows))

    def _names_files(self, file: int, group: Any) -> bool:
        """Whether cells of a group of rows may name files. Of structs: unless it is said that none lacks its bytes."""
        if self._hold[file] != "both":
            return self._hold[file] == "paths"
        leaves = [group.column(number) for number in range(group.num_columns)]
        told = [leaf.statistics for leaf in leaves if leaf.path_in_schema == f"{self.column}.bytes"]
        return not told or told[0] is None or not told[0].has_null_count or told[0].null_count > 0

    def _checked(self, file: int) -> Opened:
        """A file, which has to be the one that it was in the beginning."""
        self._require_same(file)
        return Opened(os.path.join(self.root, self._files[file]))

    def _require_same(self, file: int) -> None:
        name = self._files[file]
        if stamp(os.path.join(self.root, name)) != self._stamps[file]:
            raise InputsChanged(f"{as_text(name)}: has changed since the job began to read it")

    def _one_of(self, known: tuple[str, ...], schema: Any, what: str) -> str:
        for name in known:
            if name in schema.names:
                return name
        listed = ", ".join(schema.names) or "none"
        raise ValueError(f"{as_text(self.name)}: no column is known to hold {what}; its columns are {listed}")


class Reader:
    """Cells of one column at any place of some parquet files, by several threads.

    A parquet file can only be read on from the beginning of a group of rows, which may hold all of them. So what was
    read last is kept, and the file stays open where it was left: who reads on in small steps reads nothing twice.
    """

    def __init__(self, opened: Callable[[int], Opened], column: str) -> None:
        self.process = os.getpid()
        self._opened, self._column, self._lock = opened, column, threading.Lock()
        self._batches: deque[tuple[int, int, Any]] = deque(maxlen=KEPT)  # file, first row, column
        self._at: tuple[int, int] = (-1, 0)  # file and row up to which has been read
        self._coming: Iterator[Any] = iter(())

    def cells(self, file: int, first: int, stop: int) -> Iterator[Any]:
        """Rows [first, stop) of a file."""
        while first < stop:
            with self._lock:
                begin, found = self._holding(file, first)
            part = found.slice(first - begin, stop - first)
            yield from part.to_pylist()
            first += len(part)

    def _holding(self, file: int, row: int) -> tuple[int, Any]:
        """The rows that were read together with this one, and the number of the first of them."""
        for kept, begin, found in self._batches:
            if kept == file and begin <= row < begin + len(found):
                return begin, found
        if self._at[0] != file or self._at[1] > row:
            self._coming, self._at = self._from(file, row), (file, -1)
        for begin, found in self._coming:
            self._batches.append((file, begin, found))
            self._at = (file, begin + len(found))
            if row < self._at[1]:
                return begin, found
        raise ValueError(f"row {row} of file {file} is missing")  # its head has announced it

    def _from(self, file: int, row: int) -> Iterator[tuple[int, Any]]:
        """What comes from the beginning of the group of rows that holds this row."""
        opened = self._opened(file)
        with opened as found:
            begin = 0
            for group in range(found.metadata.num_row_groups):
                rows = found.metadata.row_group(group).num_rows
                if begin + rows > row:
                    at = begin
                    with damage_named(opened.path):
                        for batch in found.iter_batches(ROWS, row_groups=[group], columns=[self._column]):
                            yield at, batch.column(0)
                            at += len(batch)
                begin += rows


class Opened:
    """A parquet file, open. By a file of Python: pyarrow opens no path that is not UTF-8."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Any:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise ImportError("parquet files need the package pyarrow: pip install pyarrow") from error
        try:
            self._file = opened(self.path)
        except OSError as error:
            raise FileNotFoundError(f"{as_text(self.path)}: cannot be read ({error.strerror})") from error
        try:
            return parquet.ParquetFile(self._file)
        except (pa.ArrowException, OSError, ValueError) as error:
            self._file.close()
            said = " ".join(str(error).split())
            raise ValueError(f"{as_text(self.path)}: not a parquet file, or a damaged one ({said})") from error

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextlib.contextmanager
def damage_named(path: str) -> Iterator[None]:
    """What pyarrow raises while it reads a file becomes a ValueError that names it."""
    try:
        yield
    except (OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{as_text(path)}: damaged ({' '.join(str(error).split())})") from error


def is_parquet(name: str) -> bool:
    """Whether a file is named like a parquet file, and not hidden."""
    base = os.path.basename(name)
    return base.lower().endswith((".parquet", ".pq")) and not base.startswith(("_", "."))


def content(cell: Any) -> bytes | str | None:
    """What a cell holds: an encoded picture, or a path. Of Hugging Face's struct the bytes, where there are any."""
    if isinstance(cell, dict):
        data = cell.get("bytes")
        return cell.get("path") if data is None else data
    return cell


def _held(file: str, column: str, kind: Any) -> Hold:
    """What a column holds; ValueError where that is no image."""
    from pyarrow import types

    if types.is_string(kind) or types.is_large_string(kind):
        return "paths"
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "pictures"
    if types.is_struct(kind) and {field.name for field in kind} & {"bytes", "path"}:
        return "both"
    raise ValueError(f"{file}: column {column!r} is of {kind}, expected encoded pictures (binary) or paths (text)")
