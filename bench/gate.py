"""The correctness gate: no speed is shown for losses that are not those of the float64 reference.

Agreement is that of the *improvement* d = initial − final loss of each pair: weights move little in five steps, so
losses alone can agree while the search is broken.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch

import adgan_fast

from .cases import Case

RMS, MEAN, SCORE, SIGN = 1e-3, 2e-4, 2e-5, 1e-3
"""Bounds for float32: rms and mean error of d, relative; score over the mean initial loss; where signs must agree."""
REDUCED_RMS, REDUCED_SCORE = 2e-2, 1e-3
"""Bounds for tf32 and bf16."""


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Float64 losses of the first images of a case: initial and final, (n, S), NaN for pairs that were not searched."""

    initial: torch.Tensor
    final: torch.Tensor


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


def reference(case: Case, starts: Sequence[int] = (64, 8)) -> Reference:
    """The float64 reference: of the first image its first starts[0] starts, of the second starts[1], and so on.

    With ``weights="per_sample"`` the starts of an image depend on each other, so that all of them are searched.
    """
    gen = copy.deepcopy(case.gen).cpu().double()
    rows = []
    for image, count in zip(case.images.cpu().double(), starts, strict=False):
        first = case.starts if case.config.weights == "per_sample" else case.starts[:count]
        config = case.config.replace(
            engine="reference", starts=first.cpu().double(), precision="float32", device="cpu", chunk=None
        )
        found = adgan_fast.search(gen, image.unsqueeze(0), config=config)
        row = torch.full((2, len(case.starts)), float("nan"), dtype=torch.float64)
        row[:, : len(first)] = torch.stack([found.initial_losses[0], found.losses[0]])
        rows.append(row)
    initial, final = torch.stack(rows, 1)
    return Reference(initial, final)


def check(losses: tuple[torch.Tensor, torch.Tensor], against: Reference, precision: str = "float32") -> Gate:
    """Gate of initial and final losses (N, s), of the first images and starts, on the pairs that the reference knows.

    The bound of the score is for all S starts of an image. Where fewer are known, it is held against what these
    contribute to that score: in float32 now and then one start takes another turn where a gradient lies within
    rounding of zero, and its loss moves by 3e-4 (the same 3e-4 in torch and JAX): 5e-6 of a score of 64 starts.
    """
    n, s = (min(a, b) for a, b in zip(losses[0].shape, against.initial.shape, strict=True))
    wanted_initial, wanted_final = against.initial[:n, :s], against.final[:n, :s]
    known = ~wanted_initial.isnan()
    errors = []
    for image in range(n):
        of_image = known[image]
        error = (losses[1][image, :s].detach().cpu().double() - wanted_final[image])[of_image].sum()
        errors.append(error.abs() / against.initial.shape[1] / wanted_initial[image, of_image].mean())
    score = torch.stack(errors).max().item()
    initial, final = (part[:n, :s].detach().cpu().double()[known] for part in losses)
    wanted_initial, wanted_final = wanted_initial[known], wanted_final[known]
    d, wanted = initial - final, wanted_initial - wanted_final
    rms = ((d - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()).item()
    mean = ((d - wanted).abs().mean() / wanted.abs().mean()).item()
    clear = wanted.abs() > SIGN * wanted_initial
    exact = precision == "float32"
    failures = [
        f"{name} {value:.1e} > {bound:.0e}"
        for name, value, bound in (
            ("rms", rms, RMS if exact else REDUCED_RMS),
            ("mean", mean, MEAN if exact else float("inf")),
            ("score", score, SCORE if exact else REDUCED_SCORE),
        )
        if not value <= bound  # NaN is above every bound
    ]
    if exact and not torch.equal(d.sign()[clear], wanted.sign()[clear]):
        failures.append("an improvement has the wrong sign")
    return Gate(rms, mean, score, "; ".join(failures))
