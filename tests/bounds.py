"""The contract's rule of agreement: measured on the improvement of each pair, d = initial loss − final loss."""

from __future__ import annotations

import dataclasses

import torch

from adgan_fast import SearchResult


@dataclasses.dataclass(frozen=True)
class Bound:
    """rms and mean abs of the error of d, by the rms of d; error of a score, by the image's mean initial loss."""

    rms: float
    mean: float
    score: float

    def __mul__(self, factor: float) -> Bound:
        return Bound(self.rms * factor, self.mean * factor, self.score * factor)


FLOAT32 = Bound(1e-3, 2e-4, 2e-5)
FLOAT64 = Bound(1e-7, 2e-8, 2e-9)
BF16 = Bound(2e-2, 2e-2, 1e-3)  # compressed state as well; the contract bounds no mean of it, which its rms bounds


def improvement(result: SearchResult) -> torch.Tensor:
    """(N, S) float64."""
    return result.initial_losses.double() - result.losses.double()


def violations(found: SearchResult, reference: SearchResult, bound: Bound) -> list[str]:
    """What about `found` is further from the float64 `reference` than `bound` allows; none: []."""
    wrong = []
    want, initial = improvement(reference), reference.initial_losses.double()
    error = improvement(found) - want
    scale = float(want.square().mean().sqrt())
    if not float(error.square().mean().sqrt()) <= bound.rms * scale:
        wrong.append(f"rms {float(error.square().mean().sqrt()) / scale:.2e} of d, {bound.rms:.0e} is allowed")
    if not float(error.abs().mean()) <= bound.mean * scale:
        wrong.append(f"mean {float(error.abs().mean()) / scale:.2e} of d, {bound.mean:.0e} is allowed")
    flipped = (improvement(found).sign() != want.sign()) & (want.abs() > 1e-3 * initial)
    if bool(flipped.any()):
        wrong.append(f"d has another sign in {int(flipped.sum())} of {flipped.numel()} pairs")
    off = (found.scores.double() - reference.scores.double()).abs() / initial.mean(1)
    if not float(off.max()) <= bound.score:
        wrong.append(f"a score is off by {float(off.max()):.2e} of the mean initial loss, {bound.score:.0e} is allowed")
    return wrong
