"""Shapes: what moves numbers and changes none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import algebra
from ..walk import Lowering
from .table import rule


@rule("<built-in function getitem>")
def _getitem(at: Lowering, items: Any, index: Any) -> int:
    if items in at.lists and index < len(at.lists[items]):
        return at.lists[items][index]
    raise at.refuse("a second output of an op is not known to the fast engines")


@rule(
    "aten.alias.default", "aten.clone.default", "aten.contiguous.default",
    "aten.dropout.default", "aten.feature_dropout.default", "aten.lift_fresh_copy.default", "aten._to_copy.default",
    "aten.to.dtype", "aten.to.dtype_layout", "aten.to.device",
)  # fmt: skip
def _identity(at: Lowering, x: Any) -> int:
    if "dropout" in str(at.node.target) and at.arguments()[2]:
        raise at.refuse("dropout in training mode")
    if at.node.meta["val"].dtype != x.meta["val"].dtype:
        raise at.refuse(f"{at.node.target} changes the dtype")
    return at.value(x)


@rule("aten.detach.default")
def _detach(at: Lowering, x: Any) -> int:
    """What is made under torch.no_grad comes through here too (blocks.py)."""
    return algebra.stopped(at, at.value(x))


@rule(
    "aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints",
    "aten.unflatten.int", "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default", "aten.unsqueeze.default",
    "aten.view_as.default", "aten.reshape_as.default",
)  # fmt: skip
def _reshape(at: Lowering, x: Any) -> int:
    return algebra.reshaped(at, at.value(x), at.shape())


@rule("aten.permute.default")
def _permute(at: Lowering, x: Any, dims: Any) -> int:
    return algebra.permuted(at, at.value(x), dims)


@rule("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default")
def _transpose(at: Lowering, x: Any, first: int, second: int) -> int:
    return algebra.transposed(at, at.value(x), int(first), int(second))


@rule("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist")
def _movedim(at: Lowering, x: Any, sources: Any, targets: Any) -> int:
    value = at.value(x)
    rank = len(at.wholes[value])
    pairs = ([sources], [targets]) if isinstance(sources, int) else (sources, targets)
    goes = {int(to) % rank: int(dim) % rank for dim, to in zip(*pairs, strict=True)}
    others = iter(dim for dim in range(rank) if dim not in goes.values())
    return algebra.permuted(at, value, [goes[dim] if dim in goes else next(others) for dim in range(rank)])


@rule("aten.mT.default")
def _mt(at: Lowering, x: Any) -> int:
    return algebra.transposed(at, at.value(x))


@rule("aten.t.default", "aten.numpy_T.default")
def _t(at: Lowering, x: Any) -> int:
    value = at.value(x)
    return algebra.permuted(at, value, range(len(at.wholes[value]))[::-1])


@rule("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def _expand(at: Lowering, x: Any) -> int:
    return algebra.expanded(at, at.value(x), at.shape())


@rule("aten.repeat.default", "aten.tile.default")
def _repeat(at: Lowering, x: Any, counts: Any) -> int:
    value = at.value(x)
    counts = [int(count) for count in counts]
    rank = max(len(counts), len(at.wholes[value]))
    counts = [1] * (rank - len(counts)) + counts
    value = algebra.reshaped(at, value, (1,) * (rank - len(at.wholes[value])) + at.wholes[value])
    for dim, count in enumerate(counts):
        value = algebra.taken(at, value, dim, list(range(at.wholes[value][dim])) * count)
    return value


@rule("aten.repeat_interleave.self_int")
def _repeat_interleave(at: Lowering, x: Any, count: Any, dim: Any) -> int:
    value = at.value(x)
    if dim is None:
        value, dim = algebra.reshaped(at, value, (-1,)), 0
    return algebra.taken(at, value, int(dim), [i for i in range(at.wholes[value][dim]) for _ in range(int(count))])


# -- parts of a tensor ---------------------------------------------------------------------------------------------


@rule("aten.slice.Tensor")
def _slice(at: Lowering, x: Any, dim: int, start: Any, end: Any, step: Any) -> int:
    value = at.value(x)
    return algebra.taken(at, value, int(dim), range(at.wholes[value][dim])[start:end:step])


@rule("aten.narrow.default")
def _narrow(at: Lowering, x: Any, dim: int, start: int, length: int) -> int:
    value = at.value(x)
    start = int(start) % at.wholes[value][dim]
    return algebra.taken(at, value, int(dim), range(start, start + int(length)))


@rule("aten.select.int")
def _select(at: Lowering, x: Any, dim: int, index: Any) -> int:
    value = at.value(x)
    size = at.wholes[value][dim]
    return algebra.reshaped(at, algebra.taken(at, value, int(dim), [int(index) % size]), at.shape())


@rule("aten.index_select.default")
def _index_select(at: Lowering, x: Any, dim: int, index: Any) -> int:
    return algebra.taken(at, at.value(x), int(dim), at.numbers(index).reshape(-1).tolist())


@rule("aten.index.Tensor")
def _index(at: Lowering, x: Any, indices: Any) -> int:
    """By constant whole numbers along dimensions that lie side by side: along one, once they are joined."""
    value = at.value(x)
    along = [dim for dim, index in enumerate(indices) if index is not None]
    numbers = [at.numbers(indices[dim]) for dim in along]
    if along != list(range(along[0], along[-1] + 1)) or any(index.dtype == torch.bool for index in numbers):
        raise at.refuse("indices of dimensions apart, or of booleans, are not known to the fast engines")
    whole = at.wholes[value]
    place = torch.zeros((), dtype=torch.long)
    for dim, index in zip(along, numbers, strict=True):
        place = place * whole[dim] + index.cpu() % whole[dim]
    if len(along) > 1:
        value = algebra.reshaped(at, value, (*whole[: along[0]], -1, *whole[along[-1] + 1 :]))
    return algebra.reshaped(at, algebra.taken(at, value, along[0], place.reshape(-1).tolist()), at.shape())


@rule("aten.embedding.default")
def _embedding(at: Lowering, weight: Any, indices: Any, padding: Any, by_frequency: Any) -> int:
    chosen = at.numbers(indices).reshape(-1).tolist()
    if padding in chosen or (by_frequency and len(set(chosen)) < len(chosen)):
        raise at.refuse(f"{at.node.target} at its padding index, or with gradients by frequency")
    return algebra.reshaped(at, algebra.taken(at, at.value(weight), 0, chosen), at.shape())


@rule("aten.copy.default", "aten.fill.Tensor")
def _copy(at: Lowering, x: Any, source: Any) -> int:
    """What x becomes where all of it is written over."""
    return algebra.expanded(at, at.value(source), at.shape())


@rule(
    "aten.fill.Scalar", "aten.full_like.default", "aten.zeros_like.default", "aten.ones_like.default",
    "aten.new_full.default", "aten.new_zeros.default", "aten.new_ones.default",
)  # fmt: skip
def _filled(at: Lowering, x: Any) -> int:
    """One number everywhere, whatever is in x."""
    name, args = str(at.node.target), at.arguments()
    number = 0.0 if "zeros" in name else 1.0 if "ones" in name else at.number(args[2 if "new" in name else 1])
    return at.constant(torch.full(at.shape(), number, dtype=at.node.meta["val"].dtype))


@rule("aten.select_scatter.default")
def _select_scatter(at: Lowering, x: Any, source: Any, dim: int, index: Any) -> int:
    """x with a slice replaced: what is written into a slice in place becomes."""
    whole = at.wholes[at.value(x)]
    along = int(dim) % len(whole)
    piece = algebra.reshaped(at, at.value(source), (*whole[:along], 1, *whole[along + 1 :]))
    return _replaced(at, at.value(x), piece, along, [int(index) % whole[along]])


@rule("aten.slice_scatter.default")
def _slice_scatter(at: Lowering, x: Any, source: Any, dim: int, start: Any, end: Any, step: Any) -> int:
    value, along = at.value(x), int(dim) % len(at.wholes[at.value(x)])
    whole = at.wholes[value]
    places = range(whole[along])[start:end:step]
    pieces = algebra.expanded(at, at.value(source), (*whole[:along], len(places), *whole[along + 1 :]))
    return _replaced(at, value, pieces, along, places)


def _replaced(at: Lowering, x: int, pieces: int, dim: int, places: Sequence[int]) -> int:
    """x with its slices at some places replaced by others."""
    size = at.wholes[x][dim]
    if len(places) == size:
        return algebra.batched(at, pieces) if at.values[x].batched else pieces
    index = list(range(size))
    for piece, place in enumerate(places):
        index[place] = size + piece
    return algebra.taken(at, algebra.joined(at, [x, pieces], dim), dim, index)


@rule("aten.flip.default")
def _flip(at: Lowering, x: Any, dims: Any) -> int:
    value = at.value(x)
    for dim in dims:
        value = algebra.taken(at, value, int(dim), range(at.wholes[value][dim])[::-1])
    return value


@rule("aten.roll.default")
def _roll(at: Lowering, x: Any, shifts: Any, dims: Any) -> int:
    value = at.value(x)
    if not dims:
        raise at.refuse("a roll over all dimensions at once is not known to the fast engines")
    for shift, dim in zip(shifts, dims, strict=True):
        size = at.wholes[value][dim]
        value = algebra.taken(at, value, int(dim), [(i - int(shift)) % size for i in range(size)])
    return value


@rule("aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes")
def _split(at: Lowering, x: Any, sizes: Any, dim: int) -> list[int]:
    value = at.value(x)
    whole = at.wholes[value][dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - first) for first in range(0, whole, sizes)]
    return _pieces(at, value, sizes, int(dim))


@rule("aten.chunk.default")
def _chunk(at: Lowering, x: Any, count: int, dim: int) -> list[int]:
    value = at.value(x)
    return _split(at, x, -(-at.wholes[value][dim] // int(count)), dim)


@rule("aten.unbind.int")
def _unbind(at: Lowering, x: Any, dim: int) -> list[int]:
    value = at.value(x)
    whole = at.wholes[value]
    rest = whole[: dim % len(whole)] + whole[dim % len(whole) + 1 :]
    return [algebra.reshaped(at, piece, rest) for piece in _pieces(at, value, [1] * whole[dim], int(dim))]


def _pieces(at: Lowering, x: int, sizes: Any, dim: int) -> list[int]:
    found, first = [], 0
    for size in sizes:
        found.append(algebra.taken(at, x, dim, range(first, first + int(size))))
        first += int(size)
    return found


@rule("aten.cat.default", "aten.concat.default")
def _cat(at: Lowering, xs: Any, dim: int) -> int:
    return algebra.joined(at, [at.value(x) for x in xs], int(dim))


@rule("aten.stack.default")
def _stack(at: Lowering, xs: Any, dim: int) -> int:
    values = [at.value(x) for x in xs]
    whole = at.wholes[values[0]]
    along = int(dim) % (len(whole) + 1)
    return algebra.joined(at, [algebra.reshaped(at, x, (*whole[:along], 1, *whole[along:])) for x in values], along)


# -- padding -------------------------------------------------------------------------------------------------------


@rule("aten.constant_pad_nd.default")
def _constant_pad(at: Lowering, x: Any, sizes: Any, value: Any) -> int:
    before, after = _by_dimension(at, x, sizes)
    return algebra.padded(at, at.value(x), before, after, at.number(value))


@rule("aten.pad.default")
def _pad(at: Lowering, x: Any, sizes: Any, mode: str, value: Any) -> int:
    if mode == "constant":
        return _constant_pad(at, x, sizes, 0.0 if value is None else value)
    return _extended(at, x, sizes, mode)


@rule("aten.reflection_pad1d.default", "aten.reflection_pad2d.default")
def _reflection_pad(at: Lowering, x: Any, sizes: Any) -> int:
    return _extended(at, x, sizes, "reflect")


@rule("aten.replication_pad1d.default", "aten.replication_pad2d.default")
def _replication_pad(at: Lowering, x: Any, sizes: Any) -> int:
    return _extended(at, x, sizes, "replicate")


def _by_dimension(at: Lowering, x: Any, sizes: Any) -> tuple[list[int], list[int]]:
    """Pads before and after each dimension, of PyTorch's list, which starts with the last dimension."""
    rank = len(at.wholes[at.value(x)])
    sizes = [int(size) for size in sizes]
    sizes += [0] * (2 * rank - len(sizes))
    return sizes[0::2][:rank][::-1], sizes[1::2][:rank][::-1]


def _extended(at: Lowering, x: Any, sizes: Any, mode: str) -> int:
    return algebra.extended(at, at.value(x), *_by_dimension(at, x, sizes), mode)
