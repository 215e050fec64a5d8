"""A source of a job that lies in memory, and what its rows are by `search`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import pyarrow as pa

import adgan_fast
from adgan_fast.jobs import Item, Unreadable
from tests.support.generators import Case

Given = npt.NDArray | Unreadable


@dataclasses.dataclass
class Listed:
    """Images one by one, or why one cannot be read."""

    images: list[Given]
    name: str = "a list"

    def items(self) -> Iterator[Item]:
        for row, image in enumerate(self.images):
            stamp = "" if isinstance(image, Unreadable) else hashlib.sha256(image.tobytes()).hexdigest()
            yield Item(f"{row:03d}.png", "odd" if row % 2 else None, stamp)

    def read(self, first: int, stop: int) -> Iterator[Given]:
        yield from self.images[first:stop]

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "list"}


def listed(case: Case, number: int) -> Listed:
    """Images of a case."""
    return Listed(list(case.images(number).numpy()))


def columns_by_search(case: Case, number: int, **settings: Any) -> dict[str, npt.NDArray]:
    """The numbers of a job's rows, by `search`."""
    found = adgan_fast.search(case.module, case.images(number), **settings)
    losses = found.losses
    return {
        "score": found.scores.numpy(),
        "score_std": losses.double().std(1, correction=0).float().numpy(),
        "score_min": losses.amin(1).numpy(),
        "initial_loss": found.initial_losses.mean(1).numpy(),
        "reconstructions": found.reconstructions.numpy(),
    }


def column(table: pa.Table, name: str) -> npt.NDArray:
    return table[name].combine_chunks().to_numpy(zero_copy_only=False)
