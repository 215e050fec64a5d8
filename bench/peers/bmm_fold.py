"""Written out by hand: torch.bmm and F.fold forward, F.unfold and torch.bmm backward, torch's fused Adam.

A transposed convolution is Wᵀx, its taps summed into place (fold). So ∂x = W·unfold(∂y) and ∂W = x·unfold(∂y)ᵀ, with
W (G, C, J), J = Cout·taps, x (G, C, R·P), P positions. Gradients go straight into the optimizer's buffers: no autograd.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from adgan_fast.config import SearchConfig
from adgan_fast.testing import Losses

from .base import Peer, Searcher
from .chain import Activation, ChainLayer, ConvTranspose, Norm, activate, lay_out, parameters, read_chain, refuse


class _Conv:
    """Transposed convolution of h (G, C, R, H, W)."""

    def __init__(self, layer: ConvTranspose, params: list[torch.Tensor]):
        self.layer, self.weight = layer, params[0]  # (G, C, Cout, kh, kw)
        self.bias = params[1] if layer.bias is not None else None
        self.kernel = tuple(self.weight.shape[3:])

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        groups, c, rows, *side = h.shape
        self.side, self.size = tuple(side), self.layer.output_size(*side)
        self.x = h.reshape(groups, c, -1)
        cols = torch.bmm(self.weight.flatten(2).transpose(1, 2), self.x)  # (G, J, R·P)
        out = self.weight.shape[2]
        if self.is_one_pixel():
            made = cols.reshape(groups, out, *self.kernel, rows).permute(0, 1, 4, 2, 3)
        else:
            cols = cols.reshape(groups, cols.shape[1], rows, -1).transpose(1, 2).flatten(0, 1)
            made = F.fold(cols, self.size, self.kernel, 1, self.layer.padding, self.layer.stride)
            made = made.reshape(groups, rows, out, *self.size).transpose(1, 2)
        return made if self.bias is None else made + self.bias[:, :, None, None, None]

    def is_one_pixel(self) -> bool:
        return self.side == (1, 1) and self.layer.padding == (0, 0) and self.layer.output_padding == (0, 0)

    def backward(self, d: torch.Tensor, learn: bool) -> torch.Tensor:
        groups, out, rows = d.shape[:3]
        if self.is_one_pixel():
            cols = d.permute(0, 1, 3, 4, 2).reshape(groups, -1, rows)
        else:
            cols = d.transpose(1, 2).reshape(groups * rows, out, *self.size)
            cols = F.unfold(cols, self.kernel, 1, self.layer.padding, self.layer.stride)
            cols = cols.reshape(groups, rows, cols.shape[1], -1).transpose(1, 2).flatten(2)
        if learn:
            torch.bmm(self.x, cols.transpose(1, 2), out=_grad(self.weight).flatten(2))
            if self.bias is not None:
                torch.sum(d, (2, 3, 4), out=_grad(self.bias))
        return torch.bmm(self.weight.flatten(2), cols).reshape(groups, -1, rows, *self.side)


class _Norm:
    """Batch norm with frozen statistics, its weight and bias (G, C)."""

    def __init__(self, layer: Norm, params: list[torch.Tensor]):
        self.weight, self.bias = params
        self.mean = layer.mean[None, :, None, None, None]
        self.scale = (layer.variance + layer.eps).rsqrt()[None, :, None, None, None]

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        self.x = (h - self.mean) * self.scale
        return self.x * self.weight[:, :, None, None, None] + self.bias[:, :, None, None, None]

    def backward(self, d: torch.Tensor, learn: bool) -> torch.Tensor:
        if learn:
            torch.sum(d * self.x, (2, 3, 4), out=_grad(self.weight))
            torch.sum(d, (2, 3, 4), out=_grad(self.bias))
        return d * (self.weight[:, :, None, None, None] * self.scale)


class _Activation:
    def __init__(self, layer: Activation):
        self.layer = layer

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        self.y = activate(self.layer, h)
        return self.y

    def backward(self, d: torch.Tensor, learn: bool) -> torch.Tensor:
        if self.layer.name == "tanh":
            return d * (1 - self.y * self.y)
        if self.layer.name == "sigmoid":
            return d * (self.y * (1 - self.y))
        return torch.where(self.y > 0, d, d * self.layer.slope)


def _grad(p: torch.Tensor) -> torch.Tensor:
    assert p.grad is not None  # allotted before the first step
    return p.grad


def _module(layer: ChainLayer, params: list[torch.Tensor]) -> _Conv | _Norm | _Activation:
    if isinstance(layer, Activation):
        return _Activation(layer)
    mine = [params.pop(0) for p in (layer.weight, layer.bias) if p is not None]
    return _Conv(layer, mine) if isinstance(layer, ConvTranspose) else _Norm(layer, mine)


def prepare(gen: nn.Module, config: SearchConfig, pairs: int) -> Searcher:
    layers = read_chain(gen)
    learn = config.weights != "frozen"

    def search(x: torch.Tensor, z: torch.Tensor) -> Losses:
        shape = z.shape[:2]
        x, z = lay_out(x, z, learn)
        groups, rows = z.shape[:2]
        wanted = x.transpose(1, 2)  # (G, C, R or 1, H, W)
        z = z.transpose(1, 2).reshape(groups, -1, rows, 1, 1).clone()
        params = [p.expand(groups, *p.shape).clone(memory_format=torch.contiguous_format) for p in parameters(layers)]
        learnt = [z, *params] if learn else [z]
        for p in learnt:
            p.grad = torch.zeros_like(p)
        adam_groups = [{"params": [z], "lr": config.lr_z}]
        if learn:
            adam_groups.append({"params": params, "lr": config.lr_weights})
        adam = torch.optim.Adam(adam_groups, betas=config.betas, eps=config.eps, fused=True)
        rest = list(params)
        modules = [_module(layer, rest) for layer in layers]

        def residual() -> torch.Tensor:
            h = z
            for module in modules:
                h = module.forward(h)
            return h - wanted

        initial = None
        for _ in range(config.steps):
            error = residual()
            d = 2 * error
            for module in reversed(modules):
                d = module.backward(d, learn)
            _grad(z).copy_(d)
            adam.step()
            if initial is None:
                initial = error.square().sum((1, 3, 4))
        final = residual().square().sum((1, 3, 4))
        return Losses((final if initial is None else initial).reshape(shape), final.reshape(shape))

    return search


# Pairs at a time: 1: 2.4, 2: 4.2, 4: 4.4 s/image (OMP_NUM_THREADS=1 python -m bench.studies.sweep bmm_fold 1 2 4; AMD
# EPYC, Zen 4).
PEER = Peer(
    "bmm_fold",
    "hand-written bmm + fold forward, unfold + bmm backward, torch's fused Adam; no autograd",
    {"cpu": 1, "cuda": 64},
    prepare,
    refuse,
)
