"""Engines and peers behind one face: whatever can be raced."""

from __future__ import annotations

import dataclasses

import torch

import adgan_fast
from adgan_fast.testing import Losses

from ..peers import PEERS, Peer
from ..peers.base import Searcher
from .cases import Case

BASELINE = "plain_loop"


@dataclasses.dataclass(frozen=True)
class Contender:
    """An engine (``adgan_fast.search``, chunk and all as a user gets it) or a peer.

    Attributes:
        name: "grouped", say; the engines' names and the peers' do not clash.
        peer: the peer, or None for an engine.
    """

    name: str
    peer: Peer | None = None

    @property
    def kind(self) -> str:
        return "engine" if self.peer is None else "peer"

    def why_not(self, case: Case) -> str | None:
        """Why it cannot run this case here, or None."""
        if self.peer is not None:
            return self.peer.why_not(case.gen, case.config, case.starts)
        info = {engine.name: engine for engine in adgan_fast.engines()}[self.name]
        if not info.available:
            return info.why_not
        try:  # without images: the engine is chosen, and says so if it refuses the generator, the device or the mode
            self.start(case)(case.images[:0], case.starts)
        except ValueError as error:
            if "cannot run" in str(error):
                return str(error)
            raise
        return None

    def least_pairs(self, case: Case) -> int:
        """The smallest load that shows it at its usual speed."""
        return 8 if self.peer is None else max(8, self.peer.pairs[case.starts.device.type])

    def start(self, case: Case) -> Searcher:
        """A search of (images (N, C, H, W), starts (S, *latent)) to initial and final losses (N, S)."""
        if self.peer is not None:
            return self.peer.searcher(case.gen, case.config)

        def run(images: torch.Tensor, starts: torch.Tensor) -> Losses:
            config = case.config.replace(engine=self.name, starts=starts)
            found = adgan_fast.search(case.gen, images, config=config)
            return Losses(found.initial_losses, found.losses)

        return run


def contenders() -> dict[str, Contender]:
    """Every engine in the table of this version, fastest first, then every peer."""
    engines = {engine.name: Contender(engine.name) for engine in adgan_fast.engines()}
    return engines | {name: Contender(name, peer) for name, peer in PEERS.items()}
