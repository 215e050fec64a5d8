"""torch.func: vmap of grad over stacked parameters, then torch's fused Adam on the stacks (Adam is elementwise)."""

from __future__ import annotations

import torch
from torch import nn

from adgan_fast.config import SearchConfig
from adgan_fast.testing import Losses

from . import stacked
from .base import Peer, Searcher, no_limits


def prepare(gen: nn.Module, config: SearchConfig, pairs: int) -> Searcher:
    learn = config.weights != "frozen"
    gradients, forward = stacked.gradients(gen, learn), stacked.forward(gen, learn)

    def search(x: torch.Tensor, z: torch.Tensor) -> Losses:
        params = stacked.stack(gen, len(x)) if learn else {k: p.detach() for k, p in gen.named_parameters()}
        z = z.contiguous().clone()
        groups = [{"params": [z], "lr": config.lr_z}]
        if learn:
            groups.append({"params": list(params.values()), "lr": config.lr_weights})
        adam = torch.optim.Adam(groups, betas=config.betas, eps=config.eps, fused=True)
        initial = None
        for _ in range(config.steps):
            (dw, dz), losses = gradients(params, z, x)
            # vmap may return a transposed view, and on a CPU the fused Adam pairs numbers by their place in memory:
            # with other strides than the parameter's it takes the wrong gradients, without a word.
            z.grad = dz.contiguous()
            for name, d in dw.items():
                params[name].grad = d.contiguous()
            adam.step()
            if initial is None:
                initial = losses
        with torch.no_grad():
            final = forward(params, z, x)
        return Losses(final if initial is None else initial, final)

    return search


# Pairs at a time: 1: 5.6, 2: 6.7, 4: 5.3, 8: 6.4, 16: 9.4 s/image (OMP_NUM_THREADS=1 python -m bench.studies.sweep vmap
# 1 2 4 8 16; AMD EPYC, Zen 4).
PEER = Peer(
    "vmap",
    "torch.func.vmap of torch.func.grad over stacked parameters, torch's fused Adam on the stacks",
    {"cpu": 4, "cuda": 64},
    prepare,
    no_limits,
)
