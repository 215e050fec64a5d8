"""The manifest of a job: its items in order, counted and hashed; and the shards that they are cut into."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
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


class SecondLook:
    """The items once more, as their rows are written, which shows what has changed meanwhile.

    Rows come shard by shard in nearly the order of the manifest; held are items of shards that are overtaken.

    Args:
        of: all shards.
        wanted: the numbers of those whose items are asked for.
    """

    def __init__(self, source: Source, of: list[Shard], wanted: set[int]) -> None:
        self._source, self._coming, self._of, self._wanted = source, source.items(), of, wanted
        self._digest = Digest()
        self._held: defaultdict[int, list[Item]] = defaultdict(list)

    def items(self, shard: Shard, count: int) -> list[Item]:
        """The next `count` items of a shard. Raises InputsChanged where there are no such."""
        held = self._held[shard.number]
        while len(held) < count:
            at = self._digest.items
            current = self._of[at // (self._of[0].stop - self._of[0].first)] if at < self._of[-1].stop else None
            if current is None:
                raise changed(self._source)
            self._take(current, at + count - len(held) if current == shard else current.stop)
        del self._held[shard.number]
        if rest := held[count:]:
            self._held[shard.number] = rest
        return held[:count]

    def require(self, manifest: Manifest) -> None:
        """Look at the rest; InputsChanged where this is not the manifest any more."""
        for item in self._coming:
            self._digest.add(item)
        if self._digest.manifest() != manifest:
            raise changed(self._source)

    def _take(self, shard: Shard, stop: int) -> None:
        """Items up to `stop`, all of this shard."""
        wanted = stop - self._digest.items
        found = list(itertools.islice(self._coming, wanted))
        if len(found) < wanted:
            raise changed(self._source)
        for item in found:
            self._digest.add(item)
        if shard.number in self._wanted:
            self._held[shard.number].extend(found)
