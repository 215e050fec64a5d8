"""JAX: jit of vmap of the whole search over pairs."""

from __future__ import annotations

from torch import nn

from adgan_fast.config import SearchConfig

from . import jax_search
from .base import Peer, Search


def prepare(gen: nn.Module, config: SearchConfig, pairs: int) -> Search:
    import jax

    return jax_search.prepare(gen, config, lambda search: jax.vmap(search, in_axes=(None, 0, 0)))


PEER = Peer(
    "jax_vmap",
    "JAX: jit of vmap of the whole search (optional)",
    {"cpu": 8, "cuda": 64},
    prepare,
    jax_search.refuse,
    fixed_size=True,
)
