"""JAX: jit of lax.map of the whole search, one pair after the other inside one compiled program."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from adgan_fast.config import SearchConfig

from . import jax_search
from .base import Peer, Searcher


def prepare(gen: nn.Module, config: SearchConfig, pairs: int) -> Searcher:
    import jax

    def batched(search: Callable) -> Callable:
        return lambda params, z, x: jax.lax.map(lambda pair: search(params, *pair), (z, x))

    return jax_search.prepare(gen, config, batched)


# Pairs in one call, run one by one: 8: 2.9, 16: 2.9 s/image (python -m bench.studies.sweep jax_map 8 16; AMD EPYC, Zen
# 4).
PEER = Peer(
    "jax_map",
    "JAX: jit of lax.map of the whole search, one pair after the other (optional)",
    {"cpu": 8, "cuda": 8},
    prepare,
    jax_search.refuse,
    fixed_size=True,
)
