"""What rules are composed of: tensor operations by their shapes in the graph, as layers of a Program.

Each takes a Lowering and ids of values, and gives the id of a value. Dimensions are those in the graph: where a value
has a row for each sample, its first dimension may be the batch's, of size 1 (`Lowering.sample`). An operation that has
nothing to do gives back what it was given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .walk import Lowering, Shape


def offset(at: Lowering, x: int) -> int:
    """How many dimensions a value has in the graph and not in the program: 1 (the batch's) or 0."""
    return len(at.wholes[x]) - len(at.values[x].shape)


def dimensions(at: Lowering, x: int, dims: Sequence[int] | int | None) -> tuple[int, ...]:
    """Dims of the graph, negative ones from the end, None for all, as those of the program, sorted.

    The batch's is left out where all are meant; refused where it is named.
    """
    rank, first = len(at.wholes[x]), offset(at, x)
    if dims is None or dims == []:
        return tuple(range(rank - first))
    named = sorted(int(dim) % max(rank, 1) for dim in ([dims] if isinstance(dims, int) else dims))
    if first and 0 in named:
        raise at.refuse(f"{at.node.target} over the batch dimension mixes the images of a batch")
    return tuple(dim - first for dim in named)


def reshaped(at: Lowering, x: int, shape: Sequence[int]) -> int:
    """The same numbers, in row-major order, in another shape of the graph."""
    count = math.prod(at.wholes[x])
    known = math.prod(size for size in shape if size != -1)
    whole = tuple(count // known if size == -1 else int(size) for size in shape)
    maker = at.made_by.get(x)
    if maker is not None and maker.op == "reshape" and at.wholes[x] != whole:
        (source,) = maker.inputs
        assert source is not None
        return reshaped(at, source, whole)
    return x if at.wholes[x] == whole else at.emit("reshape", (x,), whole)


def permuted(at: Lowering, x: int, dims: Sequence[int]) -> int:
    """Dimensions in another order."""
    whole = at.wholes[x]
    dims = [int(dim) % len(whole) for dim in dims]
    if dims == list(range(len(dims))):
        return x
    result = tuple(whole[dim] for dim in dims)
    if not offset(at, x):
        if not at.values[x].batched or at.sample(result) == result:
            return at.emit("permute", (x,), result, dims=tuple(dims))
        # A dimension of size 1 comes to the front, where the program does not show it.
        without = reshaped(at, x, [size for dim, size in enumerate(whole) if dim != dims[0]])
        return _permuted_sample(at, without, [dim - (dim > dims[0]) for dim in dims[1:]], result[1:])
    moved = _permuted_sample(at, x, [dim - 1 for dim in dims if dim], tuple(whole[dim] for dim in dims if dim))
    return reshaped(at, moved, result)


def _permuted_sample(at: Lowering, x: int, dims: Sequence[int], shape: Shape) -> int:
    """Dimensions of one sample in another order; the result has the batch dimension in front."""
    if list(dims) == list(range(len(dims))):
        return reshaped(at, x, (1, *shape))
    return at.emit("permute", (x,), (1, *shape), dims=tuple(dims))


def transposed(at: Lowering, x: int, first: int = -2, second: int = -1) -> int:
    """Two dimensions exchanged."""
    dims = list(range(len(at.wholes[x])))
    dims[first], dims[second] = dims[second], dims[first]
    return permuted(at, x, dims)


def batched(at: Lowering, x: int) -> int:
    """The value with a row for each sample: that of all is repeated."""
    return x if at.values[x].batched else at.emit("expand", (x,), at.wholes[x])


def expanded(at: Lowering, x: int, shape: Sequence[int]) -> int:
    """Dimensions of size 1, and new ones in front, repeated to `shape`."""
    whole = tuple(int(size) for size in shape)
    padded = reshaped(at, x, (1,) * (len(whole) - len(at.wholes[x])) + at.wholes[x])
    if at.values[x].batched:
        return padded if at.wholes[padded] == whole else at.emit("expand", (padded,), whole)
    for dim, size in enumerate(whole):  # "expand" would give it a row for each sample
        padded = padded if at.wholes[padded][dim] == size else taken(at, padded, dim, [0] * size)
    return padded


def combined(at: Lowering, op: str, a: int, b: int, alpha: float = 1.0) -> int:
    """a + alpha · b ("add"), a · b ("mul") or a / b ("div"), broadcast."""
    return _broadcast(at, op, a, b, **({"alpha": float(alpha)} if op == "add" else {}))


def larger(at: Lowering, a: int, b: int, tie: float) -> int:
    """The larger of each two numbers, broadcast; of two alike a has the share `tie` of the gradient: 0.5 or 1.0."""
    return _broadcast(at, "maximum", a, b, tie=tie)


def _broadcast(at: Lowering, op: str, a: int, b: int, **attrs: float) -> int:
    return at.emit(op, (a, b), tuple(torch.broadcast_shapes(at.wholes[a], at.wholes[b])), **attrs)


def scaled(at: Lowering, x: int, scale: float = 1.0, shift: float = 0.0) -> int:
    """scale · x + shift."""
    if scale == 1 and shift == 0:
        return x
    return at.emit("scale_shift", (x,), at.wholes[x], scale=float(scale), shift=float(shift))


def elementwise(at: Lowering, op: str, x: int, **attrs: float) -> int:
    """An activation."""
    return at.emit(op, (x,), at.wholes[x], **attrs)


def stopped(at: Lowering, x: int) -> int:
    """The same numbers, through which no gradient passes."""
    return x if at.values[x].kind == "constant" else at.emit("stop", (x,), at.wholes[x])


def power(at: Lowering, x: int, exponent: float) -> int:
    return x if exponent == 1 else elementwise(at, "pow", x, exponent=float(exponent))


def root(at: Lowering, squares: int) -> int:
    """√ of sums of squares, without a gradient at 0, as PyTorch's norms and standard deviations have it."""
    return power(at, elementwise(at, "hardtanh", squares, low=0.0, high=math.inf), 0.5)


def summed(at: Lowering, x: int, dims: Sequence[int] | int | None, keepdim: bool = False) -> int:
    """The sum over dims, None for all."""
    whole, over = at.wholes[x], dimensions(at, x, dims)
    rank, first = len(whole), offset(at, x)
    gone = set(range(rank)) if dims is None or dims == [] else {dim + first for dim in over}
    shape = tuple(1 if dim in gone else size for dim, size in enumerate(whole) if keepdim or dim not in gone)
    return at.emit("sum", (x,), shape, dims=over) if over else reshaped(at, x, shape)


def mean(at: Lowering, x: int, dims: Sequence[int] | int | None, keepdim: bool = False) -> int:
    """The mean over dims, None for all."""
    count = math.prod(at.values[x].shape[dim] for dim in dimensions(at, x, dims))
    return scaled(at, summed(at, x, dims, keepdim), 1 / count)


def standardized(at: Lowering, x: int, dims: Sequence[int], eps: float) -> int:
    """(x − mean) / √(variance + eps), both over dims."""
    return at.emit("standardize", (x,), at.wholes[x], dims=dimensions(at, x, dims), eps=float(eps))


def softmax(at: Lowering, x: int, dim: int) -> int:
    return at.emit("softmax", (x,), at.wholes[x], dim=dimensions(at, x, dim)[0])


def matmul(at: Lowering, a: int, b: int) -> int:
    """Products of matrices, of vectors as torch.matmul has them, broadcast over the dimensions before."""
    left, right = at.wholes[a], at.wholes[b]
    if len(left) == 1:
        return reshaped(at, product := matmul(at, reshaped(at, a, (1, *left)), b), _without(at.wholes[product], -2))
    if len(right) == 1:
        product = matmul(at, a, reshaped(at, b, (*right, 1)))
        return reshaped(at, product, at.wholes[product][:-1])
    if _costs_turning(at, a, b, (*left[:-1], right[-1])) or _costs_turning(at, b, a, (*left[:-1], right[-1])):
        return transposed(at, matmul(at, _turned(at, b), _turned(at, a)))  # A Bᵀ = (B Aᵀ)ᵀ
    lead = tuple(torch.broadcast_shapes(left[:-2], right[:-2]))
    of_samples = at.values[a].batched or at.values[b].batched
    if of_samples:  # a dimension in front, so that none of the matrices' is taken for the batch's
        lead = lead if lead[:1] == (1,) else (1, *lead)
        a, b = (expanded(at, batched(at, x), (*lead, *at.wholes[x][-2:])) for x in (a, b))
    elif math.prod(right[:-2]) == 1:  # the rows of all matrices at once
        a, b, lead = reshaped(at, a, (-1, left[-1])), reshaped(at, b, right[-2:]), ()
    elif left[:-2] != lead or right[:-2] != lead:
        return matmul(at, batched(at, a), b)
    product = at.emit("matmul", (a, b), (*lead, at.wholes[a][-2], right[-1]))
    return reshaped(at, product, (*torch.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1]))


def _costs_turning(at: Lowering, x: int, other: int, product: Shape) -> bool:
    """Whether a factor is the transpose of a larger value than the other factor and the product are together."""
    others = math.prod(at.wholes[other]) + math.prod(product)
    return _before_turning(at, x) is not None and math.prod(at.wholes[x]) > others


def _turned(at: Lowering, x: int) -> int:
    """xᵀ; of a value's transpose the value itself."""
    before = _before_turning(at, x)
    return transposed(at, x) if before is None else before


def _before_turning(at: Lowering, x: int) -> int | None:
    """The value whose transpose x is, if it is one: matrices (…, n, k) of (…, k, n)."""
    maker, whole = at.made_by.get(x), at.wholes[x]
    if maker is None or maker.op != "permute":
        return None
    *lead, first, second = maker.attrs["dims"]
    (source,) = maker.inputs
    is_turned = [*lead, second, first] == list(range(len(lead) + 2)) and first > second
    return (
        source
        if source is not None and is_turned and at.wholes[source] == (*whole[:-2], whole[-1], whole[-2])
        else None
    )


def _without(shape: Shape, dim: int) -> Shape:
    dim %= len(shape)
    return shape[:dim] + shape[dim + 1 :]


def taken(at: Lowering, x: int, dim: int, index: Sequence[int]) -> int:
    """The slices at `index` along a dimension."""
    whole = at.wholes[x]
    dim = dim % len(whole)
    if not index:
        raise at.refuse(f"{at.node.target} takes nothing")
    if list(index) == list(range(whole[dim])):
        return x
    shape = (*whole[:dim], len(index), *whole[dim + 1 :])
    if offset(at, x) and dim == 0:
        if set(index) != {0}:
            raise at.refuse(f"{at.node.target} along the batch dimension")
        return expanded(at, x, shape)
    (of_sample,) = dimensions(at, x, dim)
    hidden = at.values[x].batched and not offset(at, x) and shape[:1] == (1,)  # the program would not show it
    made = at.emit("take", (x,), (1, *shape) if hidden else shape, dim=of_sample, index=tuple(int(i) for i in index))
    return reshaped(at, made, shape)


def extended(at: Lowering, x: int, before: Sequence[int], after: Sequence[int], mode: str) -> int:
    """So many numbers around each dimension of the graph, of x itself: "reflect", "replicate" or "circular"."""
    for dim, (first, last) in enumerate(zip(before, after, strict=True)):
        size = at.wholes[x][dim]
        places = range(-first, size + last)
        if mode == "reflect":
            index = [abs(i) if i < size else 2 * (size - 1) - i for i in places]
        elif mode == "replicate":
            index = [min(max(i, 0), size - 1) for i in places]
        elif mode == "circular":
            index = [i % size for i in places]
        else:
            raise at.refuse(f"padding mode {mode!r} is not known to the fast engines")
        x = taken(at, x, dim, index)
    return x


def padded(at: Lowering, x: int, before: Sequence[int], after: Sequence[int], value: float) -> int:
    """So many of `value` around each dimension of the graph; of a negative number, so many less."""
    for dim, (first, last) in enumerate(zip(before, after, strict=True)):
        if first < 0 or last < 0:
            x = taken(at, x, dim, range(max(0, -first), at.wholes[x][dim] - max(0, -last)))
    low, high = [max(0, n) for n in before], [max(0, n) for n in after]
    if not any(low) and not any(high):
        return x
    first = offset(at, x)
    if first and (low[0] or high[0]):
        raise at.refuse(f"{at.node.target} along the batch dimension")
    shape = tuple(a + size + b for a, size, b in zip(low, at.wholes[x], high, strict=True))
    return at.emit("pad", (x,), shape, before=tuple(low[first:]), after=tuple(high[first:]), value=float(value))


def joined(at: Lowering, xs: Sequence[int], dim: int) -> int:
    """Along a dimension, one after another."""
    xs = [x for x in xs if at.wholes[x] != (0,)]
    if any(at.values[x].batched for x in xs):
        xs = [batched(at, x) for x in xs]
    result, *rest = xs
    for x in rest:
        a, b = at.wholes[result], at.wholes[x]
        along = dim % len(a)
        shape = (*a[:along], a[along] + b[along], *a[along + 1 :])
        if at.values[x].batched and along == 0:  # a dimension in front, so that this one is not taken for the batch's
            pair = (reshaped(at, result, (1, *a)), reshaped(at, x, (1, *b)))
            result = reshaped(at, at.emit("cat", pair, (1, *shape), dim=0), shape)
        else:
            result = at.emit("cat", (result, x), shape, dim=along - offset(at, result))
    return result


def chosen(at: Lowering, condition: torch.Tensor, a: int, b: int) -> int:
    """a's numbers where a constant condition holds, and b's where it does not, broadcast."""
    shape = torch.broadcast_shapes(condition.shape, at.wholes[a], at.wholes[b])
    count = math.prod(shape)
    places = torch.arange(count).reshape(shape)
    index = torch.where(condition.cpu(), places, places + count).flatten().tolist()
    # Each in the whole shape: a number that is read often would be summed over a list of all its readers.
    both = joined(at, [reshaped(at, expanded(at, x, shape), (1, count)) for x in (a, b)], 1)
    return reshaped(at, taken(at, both, 1, index), shape)
