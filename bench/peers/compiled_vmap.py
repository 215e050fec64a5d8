"""torch.compile over vmap of grad: gradient and Adam step compiled together, so that the update can be fused."""

from __future__ import annotations

import os
import shutil

import torch
from torch import Tensor, nn

from adgan_fast.config import SearchConfig
from adgan_fast.testing import Losses

from . import stacked
from .base import Peer, Searcher

Moments = tuple[Tensor, Tensor]


def prepare(gen: nn.Module, config: SearchConfig, pairs: int) -> Searcher:
    learn = config.weights != "frozen"
    gen = stacked.with_plain_norms(gen)
    gradients = stacked.gradients(gen, learn)
    beta1, beta2 = config.betas

    def adam(p: Tensor, d: Tensor, moments: Moments, lr: float, unbias1: Tensor, unbias2: Tensor) -> None:
        m, v = moments
        m.copy_(beta1 * m + (1 - beta1) * d)
        v.copy_(beta2 * v + (1 - beta2) * d * d)
        p.copy_(p - lr * (m / unbias1) / ((v / unbias2).sqrt() + config.eps))

    def step(
        params: stacked.Params, z: Tensor, x: Tensor, moments: dict[str, Moments], unbias1: Tensor, unbias2: Tensor
    ) -> Tensor:
        (dw, dz), losses = gradients(params, z, x)
        adam(z, dz, moments["z"], config.lr_z, unbias1, unbias2)
        for name, d in dw.items():
            adam(params[name], d, moments["w." + name], config.lr_weights, unbias1, unbias2)
        return losses

    compiled_step = torch.compile(step)
    compiled_forward = torch.compile(stacked.forward(gen, learn))

    def search(x: Tensor, z: Tensor) -> Losses:
        params = stacked.stack(gen, len(x)) if learn else {k: p.detach() for k, p in gen.named_parameters()}
        z = z.contiguous().clone()
        moments = {"z": (torch.zeros_like(z), torch.zeros_like(z))}
        if learn:
            moments |= {"w." + name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in params.items()}
        initial = None
        with torch.no_grad():
            for t in range(1, config.steps + 1):
                # Tensors, not numbers: a number that changes would be compiled again for each step.
                unbias1, unbias2 = z.new_tensor(1 - beta1**t), z.new_tensor(1 - beta2**t)
                losses = compiled_step(params, z, x, moments, unbias1, unbias2)
                if initial is None:
                    initial = losses
            final = compiled_forward(params, z, x)
        return Losses(final if initial is None else initial, final)

    return search


def refuse(gen: nn.Module, config: SearchConfig, starts: torch.Tensor) -> str | None:
    if starts.device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        return "torch.compile needs a C++ compiler (g++ or clang++)"
    return None


# Pairs at a time: one pair compiled beats any batch, since batched weights become convolutions of many groups: 1: 3.5,
# 4: 6.8, 8: 7.8 s/image (python -m bench.studies.sweep compiled_vmap 1 4 8; two threads, AMD EPYC, Zen 4).
PEER = Peer(
    "compiled_vmap",
    "torch.compile over vmap of grad, gradient and Adam step in one graph",
    {"cpu": 1, "cuda": 64},
    prepare,
    refuse,
    fixed_size=True,
)
