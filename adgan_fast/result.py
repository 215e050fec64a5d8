"""SearchResult: what a search found."""

from __future__ import annotations

import dataclasses
import enum

import torch

from .config import SearchConfig


class Status(enum.IntEnum):
    """What became of an image."""

    ok = 0
    not_finite = 1
    """The image holds NaN or Inf, and was not searched."""
    diverged = 2
    """Its score is NaN or Inf, though it is finite: the generator or the loss returned such values on the way."""


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The outcome of a search over N images from S starts each; every tensor is on the images' device.

    Attributes:
        scores: (N,) mean final loss over the starts; higher is more anomalous (NaN for an image with NaN or Inf).
        losses: (N, S) final loss of each pair.
        initial_losses: (N, S) loss of each pair before the first step.
        latents: (N, S, *latent) where each start ended.
        reconstructions: (N, C, H, W) of each image's best start (lowest final loss; the first of equals).
        status: (N,) int8, by the numbers of `Status`.
        engine: name of the engine that ran.
        config: the settings it ran with.
    """

    scores: torch.Tensor
    losses: torch.Tensor
    initial_losses: torch.Tensor
    latents: torch.Tensor
    reconstructions: torch.Tensor
    status: torch.Tensor
    engine: str
    config: SearchConfig
