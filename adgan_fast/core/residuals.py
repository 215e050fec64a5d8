"""Where images and reconstructions differ: residuals by pixel, and their mean over the starts."""

from __future__ import annotations

from typing import Literal, get_args

import torch

Weighting = Literal["mean", "weighted"]
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)


def residual(reconstructions: torch.Tensor, images: torch.Tensor, loss: object = "l2") -> torch.Tensor:
    """Squared differences, for loss ``"l1"`` absolute ones, summed over channels: (..., C, H, W) twice to (..., H, W).

    For ``"l2"`` and ``"l1"`` the sum of a map is the loss.
    """
    difference = reconstructions - images
    return (difference.abs() if loss == "l1" else difference.square()).sum(-3)


def mean_over_starts(residuals: torch.Tensor, losses: torch.Tensor, weighting: Weighting) -> torch.Tensor:
    """(N, S, H, W) and final losses (N, S) to (N, H, W).

    ``"mean"`` counts all starts alike: for the losses l2 and l1 a map adds up to the image's score. ``"weighted"``
    counts a start by the reciprocal of its loss, so that those that found the image count more; where there are losses
    of 0, these alone count.
    """
    if weighting == "mean":
        return residuals.mean(1)
    least = losses.amin(1, keepdim=True)
    weights = torch.where(least > 0, least / losses, (losses == 0).to(losses.dtype))  # at most 1: no overflow
    return torch.einsum("ns,nshw->nhw", weights / weights.sum(1, keepdim=True), residuals)
