"""Images in the rows of parquet files: encoded pictures in a column, or their paths."""

from __future__ import annotations

import bisect
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputsChanged
from ..source import Item, Unreadable
from .files import stamp
from .names import as_text
from .shaping import Shaping

IMAGE_COLUMNS = ("image", "img", "bytes", "jpg", "png", "image_path", "path", "file", "filename", "file_name")
"""Where images are looked for, unless a column is named."""
LABEL_COLUMNS = ("label", "labels", "class", "y", "fine_label")
ROWS = 64
"""Read at once."""
KEPT = 32
"""So often so many rows are kept, for threads that are a little behind."""

_making = threading.Lock()  # of a reader, by the first of several threads


class Table:
    """The rows of a parquet file, or of all those in a folder in the order of their names.

    A cell holds an encoded picture (binary), a path (text, relative to the table's folder), or both, as Hugging Face's
    ``Image`` does (a struct of ``bytes`` and ``path``). An id is the row's number, counted over all files.

    Args:
        name: the file or the folder.
        column: of the images; when None the first of IMAGE_COLUMNS that there is.
        labels: whether items have labels: the first of LABEL_COLUMNS.

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
    ) -> None:
        self.name, self.shaping, self.labels = os.fspath(name), shaping or Shaping(), labels
        if os.path.isdir(self.name):
            self.root, files = self.name, sorted(file for file in os.listdir(self.name) if is_parquet(file))
        else:
            self.root, files = os.path.dirname(self.name), [os.path.basename(self.name)]
        if not files or not os.path.exists(self.name):
            raise FileNotFoundError(f"{as_text(self.name)}: no parquet file")
        self._files = files
        self._stamps = [stamp(os.path.join(self.root, file)) for file in files]
        self._kept: Reader | None = None
        self._ends: list[int] = []  # rows up to the end of each file
        for file in files:
            with Opened(os.path.join(self.root, file)) as found:
                schema, rows = found.schema_arrow, found.metadata.num_rows
            if not self._ends:
                self.column = column or self._one_of(IMAGE_COLUMNS, schema, "images: name it by --column")
                self._label = self._one_of(LABEL_COLUMNS, schema, "labels") if labels else None
            for wanted in filter(None, (self.column, self._label)):
                if wanted not in schema.names:
                    raise ValueError(f"{as_text(file)}: no column {wanted!r}, but {', '.join(schema.names)}")
            self._paths = _are_paths(as_text(file), self.column, schema.field(self.column).type)
            self._ends.append(rows + (self._ends[-1] if self._ends else 0))

    def items(self) -> Iterator[Item]:
        """The rows by their numbers; of a path, the size and the time of its file."""
        number, columns = 0, [*filter(None, (self._label,))]
        for file in range(len(self._files)):
            for row in self._rows(file, columns + ([self.column] if self._paths else [])):
                label = row[self._label] if self._label else None
                path = row[self.column] if self._paths else None
                yield Item(str(number), None if label is None else str(label), stamp(self._path(path)) if path else "")
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
        """Kind, absolute path, files with their sizes and times, column, labels or not, shaping."""
        files = {as_text(file): stamp for file, stamp in zip(self._files, self._stamps, strict=True)}
        about = {"kind": "table", "path": as_text(os.path.abspath(self.name)), "files": files}
        return about | {"column": self.column, "labels": self.labels} | self.shaping.described()

    def _image(self, cell: Any) -> npt.NDArray[np.uint8] | Unreadable:
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if cell is None or not len(cell):
            return Unreadable("the row holds no image")
        if isinstance(cell, bytes):
            return self.shaping.of_picture("image", cell)
        if "\0" in cell:
            return Unreadable("the row holds no path")
        return self.shaping.of_picture(self._path(cell))

    def _path(self, cell: str) -> str:
        return os.path.join(self.root, cell)

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

    def _rows(self, file: int, columns: list[str]) -> Iterator[dict[str, Any]]:
        """All rows of a file, of these columns alone."""
        if not columns:
            yield from ({} for _ in range(self._length(file)))
            return
        with self._checked(file) as found, damage_named(self._files[file]):
            for batch in found.iter_batches(ROWS, columns=columns):
                yield from batch.to_pylist()

    def _checked(self, file: int) -> Opened:
        """A file, which has to be the one that it was in the beginning."""
        name = self._files[file]
        if stamp(os.path.join(self.root, name)) != self._stamps[file]:
            raise InputsChanged(f"{as_text(name)}: has changed since the job began to read it")
        return Opened(os.path.join(self.root, name))

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
            self._file = open(self.path, "rb")
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


def _are_paths(file: str, column: str, kind: Any) -> bool:
    """Whether a column holds paths, and not pictures; ValueError where it holds neither."""
    from pyarrow import types

    if types.is_string(kind) or types.is_large_string(kind):
        return True
    fields = {field.name for field in kind} if types.is_struct(kind) else set()
    if types.is_binary(kind) or types.is_large_binary(kind) or fields & {"bytes", "path"}:
        return False
    raise ValueError(f"{file}: column {column!r} is of {kind}, expected encoded pictures (binary) or paths (text)")
