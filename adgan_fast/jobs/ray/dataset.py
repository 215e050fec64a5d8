"""DatasetSource: the rows of a ray.data.Dataset as the source of a job."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..source import Item, Unreadable
from ..sources import Shaping
from ..sources.files import stamp
from ..sources.places import Places
from ..sources.table import IMAGE_COLUMNS, LABEL_COLUMNS, content
from .cluster import imported

ID = "id"
PICTURE, PATH, NONE = "picture", "path", "none"
"""What a cell's bytes may be; else they are those of an array, and "dtype channels height width" says which."""


def is_dataset(data: object) -> bool:
    return isinstance(data, imported().data.Dataset)


class DatasetSource:
    """The rows of a data set in its order. It is computed once, and stays in Ray's object store.

    A cell of the images holds an encoded picture (bytes), a path, or an array: (C, H, W), (H, W), or (H, W, C) where
    the last axis alone is 1 or 3, of uint8 or of floats in [-1, 1]. An item's stamp is the digest of its bytes, or the
    size and the time of the file. A path counts from the current folder. To go on with a job, the data set has to have
    the same rows in the same order.

    Args:
        ds: the data set; its column "id" names the rows.
        column: of the images; when None the first of `sources.table.IMAGE_COLUMNS` that there is.
        labels: whether items have labels: the first of `sources.table.LABEL_COLUMNS`.
        within: the folder that paths may not leave; None: the current one. A row whose path does is Unreadable.

    Raises:
        ValueError: no such column, or a row without an id.
    """

    name = "ray.data.Dataset"

    def __init__(
        self,
        ds: Any,
        shaping: Shaping | None = None,
        *,
        column: str | None = None,
        labels: bool = False,
        within: str | os.PathLike[str] | None = None,
    ) -> None:
        ray = imported()
        self.shaping, self.labels = shaping or Shaping(), labels
        there = ds.columns() or []
        _one_of((ID,), there, "the ids of the rows, without which no row can be told from another")
        self.column = _one_of((column,) if column else IMAGE_COLUMNS, there, "images: name it by column")
        label = _one_of(LABEL_COLUMNS, there, "labels") if labels else None
        self._places = Places.of("", within)
        packed = ds.map_batches(_packed, fn_args=(self.column, label, self._places), batch_format="numpy")
        options = packed.context.execution_options
        before, options.preserve_order = options.preserve_order, True
        try:
            self._tables = packed.materialize().to_arrow_refs()
        finally:
            options.preserve_order = before
        about = ray.remote(_about)
        self._about = [about.remote(table) for table in self._tables]
        self._ends = list(itertools.accumulate(ray.get(each).num_rows for each in self._about))

    def items(self) -> Iterator[Item]:
        """The rows by their ids."""
        for each in self._about:
            for row in imported().get(each).to_pylist():
                yield Item(row[ID], row["label"], row["stamp"])

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8 | np.float32] | Unreadable]:
        """(C, H, W) uint8 or float32 each, decoded as it is asked for."""
        while first < min(stop, self._ends[-1] if self._ends else 0):
            number = bisect.bisect_right(self._ends, first)
            begin = self._ends[number - 1] if number else 0
            table = imported().get(self._tables[number]).slice(first - begin, stop - first)
            for form, data in zip(table["form"], table["data"], strict=True):
                yield self._image(form.as_py(), data)
            first = self._ends[number]

    def fingerprint(self) -> dict[str, Any]:
        """Kind, column, where paths may lead, labels or not, shaping."""
        about = {"kind": "ray", "column": self.column, "within": self._places.within, "labels": self.labels}
        return about | self.shaping.described()

    def _image(self, form: str, data: Any) -> npt.NDArray | Unreadable:
        if form == NONE:
            return Unreadable("the row holds no image")
        if form == PATH:
            path = self._places.path(data.as_py().decode("utf-8", "surrogateescape"))
            return path if isinstance(path, Unreadable) else self.shaping.of_picture(path)
        if form == PICTURE:
            return self.shaping.of_picture("image", data.as_py())
        dtype, *shape = form.split()
        return self.shaping.of_array(np.frombuffer(data.as_buffer(), dtype).reshape([int(side) for side in shape]))


def _packed(batch: dict[str, npt.NDArray], column: str, label: str | None, places: Places) -> pa.Table:
    """Rows as plain columns: id, label, stamp, form, data."""
    cells = [_cell(cell) for cell in batch[column]]
    ids = [_text(name) for name in batch[ID]]
    if None in ids:
        raise ValueError(f"the data set has a row without an {ID}")
    return pa.table(
        {
            ID: pa.array(ids, pa.string()),
            "label": pa.array([_text(each) for each in batch[label]] if label else [None] * len(ids), pa.string()),
            "stamp": pa.array([_stamp(*cell, places) for cell in cells], pa.string()),
            "form": pa.array([form for form, _ in cells], pa.string()),
            "data": pa.array([data for _, data in cells], pa.large_binary()),
        }
    )


def _about(table: pa.Table) -> pa.Table:
    return table.select([ID, "label", "stamp"])


def _cell(cell: Any) -> tuple[str, bytes]:
    """What a cell holds, and its bytes."""
    cell = content(cell)
    if cell is None or (isinstance(cell, (bytes, str)) and not cell):
        return NONE, b""
    if isinstance(cell, bytes):
        return PICTURE, cell
    if isinstance(cell, str):
        return PATH, cell.encode("utf-8", "surrogateescape")
    image = _channels_first(np.asarray(cell))
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
    return f"{image.dtype} {' '.join(map(str, image.shape))}", np.ascontiguousarray(image).tobytes()


def _channels_first(image: npt.NDArray) -> npt.NDArray:
    if image.ndim == 2:
        return image[None]
    if image.ndim != 3 or image.dtype.kind not in "uif":
        raise ValueError(f"a cell holds an array {image.shape} of {image.dtype}, no image (C, H, W)")
    return np.moveaxis(image, 2, 0) if image.shape[2] in (1, 3) and image.shape[0] not in (1, 3) else image


def _stamp(form: str, data: bytes, places: Places) -> str:
    if form == PATH:
        path = places.path(data.decode("utf-8", "surrogateescape"))
        return "" if isinstance(path, Unreadable) else stamp(path)
    return hashlib.sha256(form.encode() + data).hexdigest()


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)  # a NaN is what became of a missing number


def _one_of(known: tuple[str, ...], there: list[str], what: str) -> str:
    for name in known:
        if name in there:
            return name
    raise ValueError(
        f"the data set has no column of {what}; looked for {', '.join(known)}, there are {', '.join(there) or 'none'}"
    )
