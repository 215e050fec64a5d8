"""JAX: jit of vmap of the whole search over pairs."""

from __future__ import annotations

from torch import nn

from adgan_fast.config import SearchConfig

from . import jax_search
from .base import Peer, Searcher


def prepare(gen: nn.Module, config: SearchConfig, pairs: int) -> Searcher:
    import jax

    return jax_search.prepare(gen, config, lambda search: jax.vmap(search, in_axes=(None, 0, 0)))


# Pairs at a time: 1: 3.6, 2: 5.5, 4: 5.6, 8: 5.7 s/image (python -m bench.studies.sweep jax_vmap 1 2 4 8; two threads,
# EPYC, Zen 4).
PEER = Peer(
    "jax_vmap",
    "JAX: jit of vmap of the whole search (optional)",
    {"cpu": 1, "cuda": 64},
    prepare,
    jax_search.refuse,
    fixed_size=True,
)
