"""The plain loop: deepcopy, autograd, torch.optim.Adam, one pair after the other. What a reader of the paper writes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from adgan_fast.config import SearchConfig
from adgan_fast.testing import Losses

from .base import Peer, Searcher, no_limits, sum_of_squares


def prepare(gen: nn.Module, config: SearchConfig, pairs: int) -> Searcher:
    def search_one(x: torch.Tensor, z: torch.Tensor) -> Losses:
        """One image (C, H, W) and the starts (R, *latent) that share a copy of the weights."""
        model = copy.deepcopy(gen)
        z = z.clone().requires_grad_()
        groups = [{"params": [z], "lr": config.lr_z}]
        if config.weights == "frozen":
            model.requires_grad_(False)
        else:
            groups.append({"params": list(model.parameters()), "lr": config.lr_weights})
        adam = torch.optim.Adam(groups, betas=config.betas, eps=config.eps)
        initial = None
        for _ in range(config.steps):
            adam.zero_grad()
            losses = sum_of_squares(model(z), x)
            losses.sum().backward()
            adam.step()
            if initial is None:
                initial = losses.detach()
        with torch.no_grad():
            final = sum_of_squares(model(z), x)
        return Losses(final if initial is None else initial, final)

    def search(x: torch.Tensor, z: torch.Tensor) -> Losses:
        found = [search_one(image, starts) for image, starts in zip(x, z, strict=True)]
        return Losses(*(torch.stack(part) for part in zip(*found, strict=True)))

    return search


PEER = Peer(
    "plain_loop",
    "deepcopy, autograd and torch.optim.Adam with its defaults, one pair after the other",
    {"cpu": 1, "cuda": 1},
    prepare,
    no_limits,
)
