"""What every peer offers: a name, a reason where it cannot run, and one search.

A *group* is one private copy of the weights and the R starts that share it. ``weights="per_seed"`` makes N·S groups of
one start, ``"per_sample"`` and ``"frozen"`` N groups of S starts. So a peer is written once, for G groups at a time:
x (G, C, H, W) and z (G, R, *latent) to the initial and final losses, both (G, R).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from adgan_fast.config import SearchConfig
from adgan_fast.testing import Losses

Searcher = Callable[[torch.Tensor, torch.Tensor], Losses]
"""Images and starts to the initial and final losses of each pair."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another way to run Algorithm 1, written as its users would write it.

    Attributes:
        name: short name, used in tables and by ``--peers``.
        description: one line for the table of peers.
        pairs: device type to the number of pairs searched together: the best found by
            ``python -m bench.studies.sweep`` on a CPU; the numbers for a GPU have not been swept.
        prepare: (generator, config, pairs) to a search of (x (G, C, H, W), z (G, R, *latent)); conversions and
            compilations that a user pays once belong here, or in the first call.
        refuse: (generator, config, starts (S, *latent)) to the reason why it cannot run, or None.
        fixed_size: whether a smaller last chunk costs a new compilation, so that it is better padded.
    """

    name: str
    description: str
    pairs: dict[str, int]
    prepare: Callable[[nn.Module, SearchConfig, int], Searcher]
    refuse: Callable[[nn.Module, SearchConfig, torch.Tensor], str | None]
    fixed_size: bool = False

    def why_not(self, gen: nn.Module, config: SearchConfig, starts: torch.Tensor) -> str | None:
        """Why this peer cannot run this case here; None where it can."""
        if config.loss != "l2":
            return f"the peers know the l2 loss alone, not {config.loss!r}"
        if starts.device.type not in self.pairs:
            return f"not written for {starts.device.type}"
        return self.refuse(gen, config, starts)

    def searcher(self, gen: nn.Module, config: SearchConfig, pairs: int | None = None) -> Searcher:
        """A search of (images (N, C, H, W), starts (S, *latent)) to initial and final losses (N, S), to be kept:
        its first call may compile."""
        device = next(gen.parameters()).device.type
        size = self.pairs[device] if pairs is None else pairs
        search = self.prepare(gen, config, size)

        def run(images: torch.Tensor, starts: torch.Tensor) -> Losses:
            return _by_groups(search, images, starts, config, size, self.fixed_size)

        return run

    def run(self, gen: nn.Module, images: torch.Tensor, starts: torch.Tensor, config: SearchConfig) -> Losses:
        """Search `images` (N, C, H, W) from `starts` (S, *latent) with `gen` in eval mode, which is left as it was.

        Returns the losses before the first and after the last step, both (N, S).
        """
        return self.searcher(gen, config)(images, starts)


def no_limits(gen: nn.Module, config: SearchConfig, starts: torch.Tensor) -> str | None:
    """For a peer that takes any generator."""
    return None


def sum_of_squares(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The l2 loss: (R, C, H, W) against (C, H, W) or (R, C, H, W), to (R,)."""
    return (made - wanted).square().flatten(1).sum(1)


def _by_groups(
    search: Searcher, images: torch.Tensor, starts: torch.Tensor, config: SearchConfig, pairs: int, fixed_size: bool
) -> Losses:
    n, s = len(images), len(starts)
    if config.weights == "per_seed":
        x = images.repeat_interleave(s, 0)
        z = starts.repeat(n, *[1] * (starts.dim() - 1)).unsqueeze(1)
        size = pairs
    else:
        x = images
        z = starts.expand(n, *starts.shape)
        size = max(1, pairs // s)
    found = []
    for begin in range(0, len(x), size):
        part_x, part_z = x[begin : begin + size], z[begin : begin + size]
        real = len(part_x)
        if fixed_size and real < size and len(x) > size:
            part_x = torch.cat([part_x, part_x[-1:].expand(size - real, *part_x.shape[1:])])
            part_z = torch.cat([part_z, part_z[-1:].expand(size - real, *part_z.shape[1:])])
        initial, final = search(part_x, part_z)
        found.append((initial[:real], final[:real]))
    initial, final = (torch.cat(part).reshape(n, s) for part in zip(*found, strict=True))
    return Losses(initial, final)
