"""The correctness gate: no speed is shown for losses that are not those of the float64 reference.

The rule is that of `adgan_fast.testing`. Here is what the bench adds: the reference of some starts of a case, which is
all that there is time for, and the plain float32 loop on the same input, run where a fixed bound is missed.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

import adgan_fast
from adgan_fast.testing import Losses, errors, violations

from .cases import Case


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceLosses:
    """Float64 losses of the first images of a case: initial and final, (n, S), NaN for pairs that were not searched.

    `plain`: runs the plain float32 loop on these pairs, once; None where there is no time for it.
    """

    initial: torch.Tensor
    final: torch.Tensor
    plain: Callable[[], Losses] | None = None


@dataclasses.dataclass(frozen=True)
class Gate:
    """Errors against the reference, and what of them is out of bounds ("" when nothing is)."""

    rms: float
    mean: float
    score: float
    failures: str

    @property
    def green(self) -> bool:
        return not self.failures


def reference(case: Case, starts: Sequence[int] = (64, 8)) -> ReferenceLosses:
    """The float64 reference: of the first image its first starts[0] starts, of the second starts[1], and so on.

    With ``weights="per_sample"`` the starts of an image depend on each other, so that all of them are searched.
    """
    return ReferenceLosses(*_searched(case, starts, torch.float64), plain_loop(case, starts))


def plain_loop(case: Case, starts: Sequence[int]) -> Callable[[], Losses]:
    """What runs the plain float32 loop on the pairs of `reference`, at its first call alone."""
    return functools.cache(lambda: _searched(case, starts, torch.float32))


def check(losses: tuple[torch.Tensor, torch.Tensor], against: ReferenceLosses, precision: str = "float32") -> Gate:
    """Gate of initial and final losses (N, s), of the first images and starts, on the pairs that the reference knows.

    The bound of the score is for all S starts of an image. Where fewer are known, it is held against what these
    contribute to that score: in float32 now and then one start takes another turn where a gradient lies within
    rounding of zero, and its loss moves by 3e-4 (the same 3e-4 in torch and JAX): 5e-6 of a score of 64 starts.
    """
    n, s = (min(a, b) for a, b in zip(losses[0].shape, against.initial.shape, strict=True))
    width = against.initial.shape[1]

    def of_these(found: tuple[torch.Tensor, torch.Tensor]) -> Losses:
        """Of the first n images the first s starts, NaN for the others."""
        return Losses(*(F.pad(part[:n, :s], (0, width - s), value=float("nan")) for part in found))

    found, wanted = of_these(losses), of_these((against.initial, against.final))
    plain = against.plain
    wrong = violations(found, wanted, precision, None if plain is None else lambda: of_these(plain()))
    seen = errors(found, wanted)
    return Gate(seen.rms, seen.mean, seen.score, "; ".join(wrong))


def _searched(case: Case, starts: Sequence[int], dtype: torch.dtype, device: str | torch.device = "cpu") -> Losses:
    """By `reference` on a device, as losses on the CPU; NaN for pairs that are not searched."""
    gen = copy.deepcopy(case.gen).to(device, dtype)
    rows = []
    for image, count in zip(case.images[: len(starts)].to(device, dtype), starts, strict=False):
        first = case.starts if case.config.weights == "per_sample" else case.starts[:count]
        config = case.config.replace(
            engine="reference", starts=first.to(device, dtype), precision="float32", device=None, chunk=None
        )
        found = adgan_fast.search(gen, image.unsqueeze(0), config=config)
        row = torch.full((2, len(case.starts)), float("nan"), dtype=dtype)
        row[:, : len(first)] = torch.stack([found.initial_losses[0], found.losses[0]]).cpu()
        rows.append(row)
    return Losses(*torch.stack(rows, 1))
