"""The manifest of a job: its items in order, counted and hashed; and the shards that they are cut into."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from .errors import InputsChanged
from .source import Item, Source


class Manifest(NamedTuple):
    """items: how many; sha256: of their ids, labels and stamps in order."""

    items: int
    sha256: str


class Digest:
    """A running sha256 over items."""

    def __init__(self) -> None:
        self._hash, self.items = hashlib.sha256(), 0

    def add(self, item: Item) -> None:
        # JSON-like framing would cost more: lengths first, so that no two lists of items look alike.
        for text in (item.id, item.label, item.stamp):
            data = b"" if text is None else text.encode("utf-8", "surrogateescape")
            self._hash.update(b"%d:" % (-1 if text is None else len(data)))
            self._hash.update(data)
        self.items += 1

    def manifest(self) -> Manifest:
        return Manifest(self.items, self._hash.hexdigest())


def manifest_of(source: Source) -> Manifest:
    """Count and hash a source's items, in flat memory."""
    digest = Digest()
    for item in source.items():
        digest.add(item)
    return digest.manifest()


def changed(source: Source) -> InputsChanged:
    return InputsChanged(
        f"{source.name} has changed while the job ran: its inputs are not those of the manifest any more. Begin anew "
        "with overwrite=True (--overwrite), or in another folder"
    )


class Shard(NamedTuple):
    """Items [first, stop) of the manifest; `number` is that of their part."""

    number: int
    first: int
    stop: int


def shards(items: int, size: int) -> list[Shard]:
    """All items in shards of `size`; the last one may be smaller."""
    return [Shard(number, first, min(first + size, items)) for number, first in enumerate(range(0, items, size))]


def shards_with_items(source: Source, of: list[Shard], digest: Digest) -> Iterator[tuple[Shard, list[Item]]]:
    """Each shard with its items, one shard at a time in memory; `digest` takes them all."""
    items = source.items()
    for shard in of:
        held = list(itertools.islice(items, shard.stop - shard.first))
        if len(held) < shard.stop - shard.first:
            raise changed(source)
        for item in held:
            digest.add(item)
        yield shard, held
    for item in items:
        digest.add(item)
