"""Crew: who does the work of a job; and the crew of this machine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from ..calibration import Calibration
from ..config import SearchConfig
from ..generator.working_copy import Generator as Network
from ..scorer import Scorer
from ..window_settings import Windows
from . import devices as processes
from .batch import ScoreBatch
from .description import Description
from .manifest import Manifest, Shard
from .prepare import prepared
from .source import Source
from .work import Piece, worked


class Crew(Protocol):
    """Prepares a job's search, and computes the rows of shards. It writes nothing: the runner does."""

    def prepare(self, source: Source, manifest: Manifest, keep: tuple[str, ...], shard: int | None) -> Description:
        """Make the search ready, and describe the job; `shard`: images of a part, None for as many as suit."""

    def pieces(self, source: Source, shards: Sequence[Shard]) -> Generator[Piece, None, None]:
        """The rows of shards, each once: of one shard in order, of several in any.

        What the crew holds ends with the generator.
        """


class Local:
    """This process, or one for each of several devices of this machine."""

    def __init__(
        self,
        gen: Scorer | Network,
        config: SearchConfig | None,
        devices: Sequence[str] | None,
        windows: Windows | None = None,
        known: Calibration | None = None,
    ) -> None:
        self._gen, self._config, self._devices = gen, config, list(devices or ())
        self._windows, self._known = windows, known
        self._score: ScoreBatch | None = None

    def prepare(self, source: Source, manifest: Manifest, keep: tuple[str, ...], shard: int | None) -> Description:
        scorer = self._gen if isinstance(self._gen, Scorer) else Scorer(self._gen, config=self._config)
        if self._devices and scorer.job is None:
            scorer = scorer.to(self._devices[0])
        self._score, _, description = prepared(scorer, source, manifest, keep, shard, self._windows, self._known)
        for device in self._devices[1:]:
            self._score.on(device)  # one that cannot be used is said before anything is begun
        return description

    def pieces(self, source: Source, shards: Sequence[Shard]) -> Generator[Piece, None, None]:
        assert self._score is not None
        if self._devices:
            return processes.worked_on(self._score, source, iter(shards), self._devices)
        return worked(self._score, source, iter(shards))
