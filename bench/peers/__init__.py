"""The peers, in the order of the tables: the plain loop first, since the others are compared with it."""

from __future__ import annotations

from . import bmm_fold, compiled_vmap, grouped_conv, jax_map, jax_vmap, plain_loop, vmap
from .base import Peer

PEERS: dict[str, Peer] = {
    module.PEER.name: module.PEER
    for module in (plain_loop, vmap, compiled_vmap, grouped_conv, bmm_fold, jax_vmap, jax_map)
}

__all__ = ["PEERS", "Peer"]
