"""Layers that move numbers, over tensors (G, B, *shape of a sample), or (G, *shape): see batched.py."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.nn import functional as F

from ..generator.program import Layer, Program


def aligned(x: torch.Tensor, rank: int, batched: bool) -> torch.Tensor:
    """(G, *shape) with as many dimensions behind G as the result has, or (G, B, *shape): as broadcasting adds them."""
    lead = 1 + batched
    return x.reshape(*x.shape[:lead], *[1] * (rank - x.dim() + 1), *x.shape[lead:])


def dims_of(program: Program, layer: Layer, *dims: int) -> tuple[int, ...]:
    """Dimensions of (G, B, *shape) or (G, *shape)."""
    lead = 1 + program.values[layer.output].batched
    return tuple(dim + lead for dim in dims)


def reshape(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    value = program.values[layer.output]
    return x.reshape(*x.shape[: 1 + value.batched], *value.shape)


def permute(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    lead = 1 + program.values[layer.output].batched
    return x.permute(*range(lead), *(dim + lead for dim in layer.attrs["dims"]))


def upsample_nearest(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    high, wide = layer.attrs["scale"]
    g, b, c, h, w = x.shape
    spread = x[..., :, None, :, None].expand(g, b, c, h, high, w, wide)
    return spread.reshape(g, b, c, h * high, w * wide)


def pixel_shuffle(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return F.pixel_shuffle(x, layer.attrs["factor"])


def expand(program: Program, layer: Layer, x: torch.Tensor, lead: tuple[int, ...] = (1, 1)) -> torch.Tensor:
    shape, source = program.values[layer.output].shape, layer.inputs[0]
    assert source is not None
    if not program.values[source].batched:
        x = x.reshape(x.shape[0], 1, *x.shape[1:]) if x.dim() <= 1 + len(shape) else x  # else its first size is 1
    return aligned(x, 1 + len(shape), True).expand(*lead, *shape)


def take(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    index, (dim,) = layer.attrs["index"], dims_of(program, layer, layer.attrs["dim"])
    if index[-1] - index[0] == len(index) - 1 and index == tuple(range(index[0], index[-1] + 1)):
        return x.narrow(dim, index[0], len(index))
    return _Take.apply(x, dim, *_sources(program, layer, x.shape[dim], x.device))


class _Take(torch.autograd.Function):
    """x's slices at `index`; the gradient of each slice is the sum of those that it became, in their order.

    So no result depends on the order in which a GPU's threads add, as that of index_select's own gradient would.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int, index: torch.Tensor, readers: torch.Tensor) -> torch.Tensor:
        ctx.dim = dim
        ctx.save_for_backward(readers)
        return x.index_select(dim, index)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (readers,) = ctx.saved_tensors
        none = torch.zeros_like(grad.narrow(ctx.dim, 0, 1))
        spread = torch.cat([grad, none], ctx.dim).index_select(ctx.dim, readers.flatten())
        return spread.unflatten(ctx.dim, tuple(readers.shape)).sum(ctx.dim + 1), None, None, None


_taken: dict[tuple[int, int, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}


def _sources(program: Program, layer: Layer, size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a layer "take", once for each program that lives: `index`, and which of it each slice of x became.

    The latter is (size, most); len(index) where there are fewer.
    """
    key = (id(program), layer.output, device)
    if key not in _taken:
        index = layer.attrs["index"]
        readers: list[list[int]] = [[] for _ in range(size)]
        for place, source in enumerate(index):
            readers[source].append(place)
        most = max(map(len, readers))
        filled = [places + [len(index)] * (most - len(places)) for places in readers]
        _taken[key] = torch.tensor(index, device=device), torch.tensor(filled, device=device)
        weakref.finalize(program, _taken.pop, key, None)
    return _taken[key]


def pad(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    pairs = list(zip(layer.attrs["before"], layer.attrs["after"], strict=True))[::-1]
    return F.pad(x, [size for pair in pairs for size in pair], value=layer.attrs["value"])


def cat(program: Program, layer: Layer, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    groups = max(len(a), len(b))  # a constant has one, which all share
    a, b = (x.expand(groups, *x.shape[1:]) for x in (a, b))
    return torch.cat([a, b], dims_of(program, layer, layer.attrs["dim"])[0])
