"""Pairs as groups of F.conv_transpose2d, autograd for the gradients, torch's fused Adam for the update."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from adgan_fast.config import SearchConfig
from adgan_fast.testing import Losses

from .base import Peer, Searcher
from .chain import Activation, ConvTranspose, activate, lay_out, parameters, read_chain, refuse


def prepare(gen: nn.Module, config: SearchConfig, pairs: int) -> Searcher:
    layers = read_chain(gen)
    learn = config.weights != "frozen"

    def losses_of(params: list[torch.Tensor], z: torch.Tensor, wanted: torch.Tensor, groups: int) -> torch.Tensor:
        """params each (G·C, ...), z (R, G·C, 1, 1), wanted (R or 1, G·C, H, W), to (R, G)."""
        h, rest = z, iter(params)
        for layer in layers:
            if isinstance(layer, Activation):
                h = activate(layer, h)
                continue
            weight = next(rest)
            bias = None if layer.bias is None else next(rest)
            if isinstance(layer, ConvTranspose):
                h = F.conv_transpose2d(h, weight, bias, layer.stride, layer.padding, layer.output_padding, groups)
            else:
                mean, variance = layer.mean.repeat(groups), layer.variance.repeat(groups)
                h = F.batch_norm(h, mean, variance, weight, bias, eps=layer.eps)
        return (h - wanted).square().reshape(len(z), groups, -1).sum(2)

    def search(x: torch.Tensor, z: torch.Tensor) -> Losses:
        shape = z.shape[:2]
        x, z = lay_out(x, z, learn)
        groups, rows = z.shape[:2]
        z = z.transpose(0, 1).reshape(rows, -1, 1, 1).clone().requires_grad_()
        wanted = x.transpose(0, 1).flatten(1, 2)
        params = [p.repeat(groups, *[1] * (p.dim() - 1)).requires_grad_(learn) for p in parameters(layers)]
        adam_groups = [{"params": [z], "lr": config.lr_z}]
        if learn:
            adam_groups.append({"params": params, "lr": config.lr_weights})
        adam = torch.optim.Adam(adam_groups, betas=config.betas, eps=config.eps, fused=True)
        initial = None
        for _ in range(config.steps):
            adam.zero_grad()
            losses = losses_of(params, z, wanted, groups)
            losses.sum().backward()
            adam.step()
            if initial is None:
                initial = losses.detach()
        with torch.no_grad():
            final = losses_of(params, z, wanted, groups)
        initial = final if initial is None else initial
        return Losses(initial.T.reshape(shape), final.T.reshape(shape))

    return search


# Pairs at a time: one thread does best with 1 (1: 5.4, 2: 6.1, 4: 7.8, 8: 9.9 s/image; OMP_NUM_THREADS=1 python -m
# bench.studies.sweep grouped_conv 1 2 4 8; AMD EPYC, Zen 4), two threads with 4, which they share (4: 2.8, 64: 12.5;
# Zen 3).
PEER = Peer(
    "grouped_conv",
    "pairs as groups of F.conv_transpose2d, autograd, torch's fused Adam",
    {"cpu": 4, "cuda": 64},
    prepare,
    refuse,
)
