"""A finished job, read again: all of its numbers, and of some rows the pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from .. import validate
from ..window_settings import Windows
from . import description as descriptions
from . import parts, windowed
from .errors import InputsChanged
from .manifest import manifest_of, shards
from .source import Source, Unreadable
from .sources import reopened

Images = npt.NDArray[np.float32]
_GAP = 32
"""Rows that are read and dropped rather than read around."""


class SourceGone(Exception):
    """The images of a job are not there any more, or are others."""


class Finished:
    """What a job has found.

    Attributes:
        folder: of the job.
        description: job.json.
        table: its rows in manifest order, without KEEPABLE.
        made: of each part, when and where it was made and in what time (`parts.made`); empty of an older version's.

    Raises:
        FileNotFoundError, JobDamaged, OtherJob: as `jobs.read`.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        description = descriptions.read(self.folder)
        if description is None:
            raise FileNotFoundError(f"{self.folder} holds no job: there is no {descriptions.NAME} in it")
        self.description = description
        self._shards = shards(description["manifest"]["items"], description["shard"])
        plain = parts.plain_columns(self.folder)
        found = [parts.table_of(self.folder, shard, description, plain) for shard in self._shards]
        self.table: pa.Table = pa.concat_tables(found) if found else pa.table({})
        self.made = [parts.made_in(parts.path_of(self.folder, shard.number)) for shard in self._shards]
        self._source: Source | None = None

    def __len__(self) -> int:
        return len(self.table)

    def numbers(self, column: str) -> npt.NDArray[np.float64]:
        """A column of numbers, (N,), NaN where there is none; all NaN where there is no such column."""
        if column not in self.table.column_names:
            return np.full(len(self), np.nan)
        return self.table[column].cast(pa.float64()).to_numpy()

    def texts(self, column: str) -> list[Any]:
        """A column's values as Python has them, None where there is none."""
        return self.table[column].to_pylist() if column in self.table.column_names else [None] * len(self)

    @property
    def loss(self) -> str:
        """Of the search, by its name."""
        return str(self.description.get("config", {}).get("loss", "l2"))

    @property
    def windows(self) -> Windows | None:
        """How its images were cut; None where they were searched whole."""
        found = self.description.get("windows")
        return None if found is None else Windows.read(found)

    @property
    def keeps_windows(self) -> bool:
        """Whether `windows_of` has anything to give."""
        return "windows" in self.description["keep"]

    def windows_of(self, rows: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
        """Of ascending rows, the windows of each: `windowed.KEPT` (n,), n 0 where the status is not "ok".

        ValueError where none were kept.
        """
        if not self.keeps_windows:
            raise ValueError(
                f"{self.folder} holds no windows: score by windows, with keep=['windows'] (--keep windows)"
            )
        for number, some in groupby(rows, self._shard_of):
            shard = self._shards[number]
            column = parts.table_of(self.folder, shard, self.description, ["windows"])["windows"]
            for row in some:
                yield windowed.unpacked(column[row - shard.first])

    @property
    def keeps_reconstructions(self) -> bool:
        """Whether `reconstructions` has anything to give."""
        return "reconstructions" in self.description["keep"]

    def reconstructions(self, rows: Sequence[int]) -> Images:
        """Of ascending rows, (n, C, H, W); NaN where the status is not "ok". ValueError where none were kept."""
        if not self.keeps_reconstructions:
            raise ValueError(
                f"{self.folder} holds no reconstructions: score with keep=['reconstructions'] (--keep reconstructions)"
            )
        found = [self._of_shard(number, list(some)) for number, some in groupby(rows, self._shard_of)]
        shape = tuple(self.description.get("image_shape", (0, 0, 0)))
        return np.concatenate(found) if found else np.empty((0, *shape), np.float32)

    def images(self, rows: Sequence[int]) -> list[Images | None]:
        """Of ascending rows, (C, H, W) in [-1, 1] each, as the search saw them; None of one that cannot be read.

        Raises SourceGone where they are not those of the job, with the reason.
        """
        if self._source is None:
            self._source = self._opened()
        found: list[Images | None] = []
        for first, stop, wanted in _runs(rows):
            try:
                for row, image in zip(range(first, stop), self._source.read(first, stop), strict=True):
                    if row in wanted:
                        found.append(None if isinstance(image, Unreadable) else _in_range(image))
            except (InputsChanged, OSError, ValueError) as error:
                raise SourceGone(str(error)) from error
        return found

    def _shard_of(self, row: int) -> int:
        return row // int(self.description["shard"])

    def _of_shard(self, number: int, rows: list[int]) -> Images:
        shard = self._shards[number]
        wanted = [row - shard.first for row in rows]
        groups = parts.groups_of(self.folder, shard, self.description, ["reconstructions"], wanted)
        pixels = [table["reconstructions"].combine_chunks().to_numpy_ndarray().astype(np.float32) for table in groups]
        return np.concatenate(pixels)

    def _opened(self) -> Source:
        """The job's source, which has to hold what it held."""
        about, shape = self.description["source"], self.description.get("image_shape")
        try:
            whole = None if shape is None or self.windows else (shape[0], shape[1], shape[2])
            source = reopened(about, whole)
            now = json.loads(json.dumps({"manifest": manifest_of(source)._asdict(), **source.fingerprint()}))
            then = {"manifest": self.description["manifest"], **about}
            same = {**then, "name": None} == {**now, "name": None}  # stamps of whole files are in the fingerprint
        except (OSError, ValueError, ImportError) as error:
            raise SourceGone(str(error)) from error
        if not same:
            raise SourceGone(f"{about.get('path')}: its images are not those of the job any more")
        return source


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int, set[int]]]:
    """Stretches [first, stop) that hold ascending rows, and the rows in them."""
    run: list[int] = []
    for row in rows:
        if run and row - run[-1] > _GAP:
            yield run[0], run[-1] + 1, set(run)
            run = []
        run.append(row)
    if run:
        yield run[0], run[-1] + 1, set(run)


def _in_range(image: npt.NDArray[Any]) -> Images:
    return validate.to_range(torch.from_numpy(np.array(image))[None], torch.float32)[0].numpy()
