"""Shared by the torch.func peers: parameters stacked once for each group, and the gradient over groups."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from .base import sum_of_squares

Params = dict[str, torch.Tensor]


def stack(gen: nn.Module, groups: int) -> Params:
    """Each parameter (*shape) copied to (G, *shape)."""
    return {name: p.detach().expand(groups, *p.shape).contiguous().clone() for name, p in gen.named_parameters()}


class _PlainNorm(nn.Module):
    """Batch norm in eval mode as plain arithmetic, with the parameters of the layer it replaces."""

    def __init__(self, norm: Any):
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("mean", norm.running_mean[:, None, None])
        self.register_buffer("scale", (norm.running_var + norm.eps).rsqrt()[:, None, None])

    def forward(self, x: Any) -> Any:
        return (x - self.mean) * self.scale * self.weight[:, None, None] + self.bias[:, None, None]


def with_plain_norms(gen: nn.Module) -> nn.Module:
    """A copy of `gen` without batch norm layers. torch.func has no batching rule for what torch.compile makes of
    them: it warns and falls back to a loop over the pairs (measured: half the speed, twice the compilation)."""
    gen = copy.deepcopy(gen)
    for parent in list(gen.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and child.affine and child.running_mean is not None:
                setattr(parent, name, _PlainNorm(child))
    return gen


def losses_of(gen: nn.Module) -> Callable[[Params, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """One group's loss: (parameters, z (R, *latent), x (C, H, W)) to its sum () and its rows (R,)."""
    buffers = dict(gen.named_buffers())

    def loss(params: Params, z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = sum_of_squares(functional_call(gen, (params, buffers), (z,)), x)
        return rows.sum(), rows

    return loss


def gradients(gen: nn.Module, learn_weights: bool) -> Callable:
    """(stacked parameters, z (G, R, *latent), x (G, C, H, W)) to ((∂w, ∂z), losses (G, R)); ∂w is {} when frozen."""
    loss = losses_of(gen)
    if learn_weights:
        return vmap(grad(loss, argnums=(0, 1), has_aux=True))
    by_z = vmap(grad(loss, argnums=1, has_aux=True), in_dims=(None, 0, 0))

    def frozen(params: Params, z: torch.Tensor, x: torch.Tensor) -> tuple[Any, torch.Tensor]:
        dz, rows = by_z(params, z, x)
        return ({}, dz), rows

    return frozen


def forward(gen: nn.Module, learn_weights: bool) -> Callable:
    """The same arguments to the losses (G, R) alone."""
    loss = losses_of(gen)
    return vmap(lambda params, z, x: loss(params, z, x)[1], in_dims=(0 if learn_weights else None, 0, 0))
