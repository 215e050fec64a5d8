"""A program as a graph whose state is passed in: what a live and a saved one have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

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


def schema_of(node: fx.Node) -> torch._C.FunctionSchema | None:
    return node.target._schema if isinstance(node.target, torch._ops.OpOverload) else None


def given_to(node: fx.Node) -> Iterator[tuple[Any, Any]]:
    """(schema argument, value) of each argument that the call gives."""
    known = schema_of(node)
    for i, argument in enumerate(known.arguments if known else ()):
        if i < len(node.args):
            yield argument, node.args[i]
        elif argument.name in node.kwargs:
            yield argument, node.kwargs[argument.name]
