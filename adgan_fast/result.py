"""SearchResult: what a search found."""

from __future__ import annotations

import dataclasses

import torch

from .config import SearchConfig


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The outcome of a search over N images from S starts each; every tensor is on the images' device.

    Attributes:
        scores: (N,) mean final loss over the starts; higher is more anomalous (NaN for an image with NaN or Inf).
        losses: (N, S) final loss of each pair.
        initial_losses: (N, S) loss of each pair before the first step.
        latents: (N, S, *latent) where each start ended.
        reconstructions: (N, C, H, W) of each image's best start (lowest final loss; the first of equals).
        status: (N,) int8, by the numbers of `Status`: ok, not_finite (the image), diverged.
        engine: name of the engine that ran.
        config: the settings it ran with.
        maps: (N, H, W) where images and reconstructions differ, over all starts; None unless it was asked for maps.
        starts_used: (N,) int64, with adaptive=: how many of its starts an image has had, the first ones. Losses and
            latents of the others are NaN, and the score is the mean over those used; 0 for an image with NaN or Inf.
            None where all had all.
    """

    scores: torch.Tensor
    losses: torch.Tensor
    initial_losses: torch.Tensor
    latents: torch.Tensor
    reconstructions: torch.Tensor
    status: torch.Tensor
    engine: str
    config: SearchConfig
    maps: torch.Tensor | None = None
    starts_used: torch.Tensor | None = None
