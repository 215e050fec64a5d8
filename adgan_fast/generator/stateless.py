"""A program as a graph whose state is passed in: what a live and a saved one have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import fx


@dataclass
class Stateless:
    """A program whose state is passed in: the common form of a live and of a saved one.

    `graph` has one placeholder for each name in `inputs`, in that order; None stands for the latent. Its output is the
    image node itself. `sizes` are the sizes of the latent (B, *latent) at the export, `dynamic` says that B is free.
    """

    graph: fx.Graph
    inputs: list[str | None]
    sizes: tuple[int, ...]
    dynamic: bool
    dtype: torch.dtype
    device: torch.device
    state: dict[str, torch.Tensor] = field(default_factory=dict)  # nn.Parameter where it is one
    transient: set[str] = field(default_factory=set)  # buffers that are not part of the state dict


def stopped(graph: fx.Graph, value: fx.Node) -> fx.Node:
    """`value` without its gradient, as what is made under torch.no_grad has none."""
    return graph.call_function(torch.ops.aten.detach.default, (value,))
