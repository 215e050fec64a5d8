"""Images in the rows of parquet files: encoded pictures in a column, or their paths."""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..source import Item, Unreadable
from .files import stamp
from .names import as_text
from .shaping import Shaping

IMAGE_COLUMNS = ("image", "img", "bytes", "jpg", "png", "image_path", "path", "file", "filename", "file_name")
"""Where images are looked for, unless a column is named."""
LABEL_COLUMNS = ("label", "labels", "class", "y", "fine_label")
ROWS = 256
"""Read at once."""


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
        self._ends: list[int] = []  # rows up to the end of each file
        for file in files:
            with self._opened(file) as found:
                schema, rows = found.schema_arrow, found.metadata.num_rows
            if not self._ends:
                self.column = column or self._one_of(IMAGE_COLUMNS, schema, "images: name it by --column")
                self._label = self._one_of(LABEL_COLUMNS, schema, "labels") if labels else None
            for wanted in filter(None, (self.column, self._label)):
                if wanted not in schema.names:
                    raise ValueError(f"{as_text(file)}: no column {wanted!r}, but {', '.join(schema.names)}")
            _require_images(as_text(file), self.column, schema.field(self.column).type)
            self._ends.append(rows + (self._ends[-1] if self._ends else 0))

    def items(self) -> Iterator[Item]:
        """The rows by their numbers; of a path, the size and the time of its file."""
        number, columns = 0, [*filter(None, (self._label,))]
        by_path = self._by_path()
        for file in range(len(self._files)):
            for row in self._rows(file, 0, self._length(file), columns + ([self.column] if by_path else [])):
                label = row[self._label] if self._label else None
                path = row[self.column] if by_path else None
                yield Item(str(number), None if label is None else str(label), stamp(self._path(path)) if path else "")
                number += 1

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8 | np.float32] | Unreadable]:
        """(C, H, W) uint8 each, decoded as it is asked for. A group of rows is read from its beginning."""
        while first < min(stop, self._ends[-1]):
            file = bisect.bisect_right(self._ends, first)
            begin = self._ends[file] - self._length(file)
            for row in self._rows(file, first - begin, min(stop, self._ends[file]) - begin, [self.column]):
                yield self._image(row[self.column])
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

    def _by_path(self) -> bool:
        from pyarrow import types

        with self._opened(self._files[0]) as file:
            kind = file.schema_arrow.field(self.column).type
        return types.is_string(kind) or types.is_large_string(kind)

    def _length(self, file: int) -> int:
        return self._ends[file] - (self._ends[file - 1] if file else 0)

    def _rows(self, file: int, first: int, stop: int, columns: list[str]) -> Iterator[dict[str, Any]]:
        """Rows [first, stop) of a file: only the groups of rows that hold them are read."""
        if not columns:
            yield from ({} for _ in range(first, stop))
            return
        name = self._files[file]
        if stamp(os.path.join(self.root, name)) != self._stamps[file]:
            raise ValueError(f"{as_text(name)}: has changed since the job began to read it")
        with self._opened(name) as found:
            begin = 0
            try:
                for group in range(found.metadata.num_row_groups):
                    rows = found.metadata.row_group(group).num_rows
                    if begin < stop and first < begin + rows:
                        at = begin
                        for batch in found.iter_batches(ROWS, row_groups=[group], columns=columns):
                            if at >= stop:
                                break
                            if at + len(batch) > first:
                                yield from batch.slice(max(0, first - at), stop - max(at, first)).to_pylist()
                            at += len(batch)
                    begin += rows
            except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors are of these
                raise ValueError(f"{as_text(name)}: damaged ({' '.join(str(error).split())})") from error

    def _opened(self, file: str) -> Any:
        return _Opened(os.path.join(self.root, file))

    def _one_of(self, known: tuple[str, ...], schema: Any, what: str) -> str:
        for name in known:
            if name in schema.names:
                return name
        listed = ", ".join(schema.names) or "none"
        raise ValueError(f"{as_text(self.name)}: no column is known to hold {what}; its columns are {listed}")


class _Opened:
    """A parquet file, open. By a file of Python: pyarrow opens no path that is not UTF-8."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> Any:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise ImportError("parquet files need the package pyarrow: pip install pyarrow") from error
        try:
            self._file = open(self._path, "rb")
        except OSError as error:
            raise FileNotFoundError(f"{as_text(self._path)}: cannot be read ({error.strerror})") from error
        try:
            return parquet.ParquetFile(self._file)
        except (pa.ArrowException, OSError, ValueError) as error:
            self._file.close()
            said = " ".join(str(error).split())
            raise ValueError(f"{as_text(self._path)}: not a parquet file, or a damaged one ({said})") from error

    def __exit__(self, *_: object) -> None:
        self._file.close()


def is_parquet(name: str) -> bool:
    """Whether a file is named like a parquet file, and not hidden."""
    base = os.path.basename(name)
    return base.lower().endswith((".parquet", ".pq")) and not base.startswith(("_", "."))


def _require_images(file: str, column: str, kind: Any) -> None:
    from pyarrow import types

    tests = (types.is_binary, types.is_large_binary, types.is_string, types.is_large_string)
    fields = {field.name for field in kind} if types.is_struct(kind) else set()
    if not any(test(kind) for test in tests) and not fields & {"bytes", "path"}:
        raise ValueError(f"{file}: column {column!r} is of {kind}, expected encoded pictures (binary) or paths (text)")
