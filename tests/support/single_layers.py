"""Layers to run alone: each with the shape of its input, written by hand, so that no rule stands between it and a test.

Sizes fill vectors of every instruction set and leave a rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tests.support.by_hand import Net

FLAT, TOKENS, IMAGE = (37,), (19, 21), (5, 6, 7)
SHAPES = (FLAT, TOKENS, IMAGE, (17, 3, 4), (2, 33, 1), (2, 3, 5, 4))
Layer = Callable[[Net, int], int]
CASES: dict[str, tuple[tuple[int, ...], Layer]] = {}
"""By name: the shape of what goes in, and the layer."""


def case(name: str, shape: tuple[int, ...], layer: Layer) -> None:
    key = f"{name} of {'x'.join(map(str, shape))}"
    assert key not in CASES
    CASES[key] = (shape, layer)


def elementwise(op: str, **attrs: float) -> Layer:
    return lambda net, x: net.same(op, x, **attrs)


def positive(op: str, **attrs: float) -> Layer:
    """Of numbers above a half."""
    return lambda net, x: net.same(op, net.same("scale_shift", net.same("tanh", x), scale=0.6, shift=1.2), **attrs)


for shape in (FLAT, IMAGE):
    case("gelu", shape, elementwise("gelu"))
    case("gelu_tanh", shape, elementwise("gelu_tanh"))
    case("hardtanh", shape, elementwise("hardtanh", low=-0.4, high=0.7))
    case("relu6", shape, elementwise("hardtanh", low=0.0, high=0.8))
    case("clamp", shape, elementwise("clamp", low=-0.4, high=0.7))
    case("clamp below", shape, elementwise("clamp", low=-math.inf, high=0.7))
    case("clamp above", shape, elementwise("clamp", low=-0.2, high=math.inf))
    for exponent in (0.0, 1.0, 2.0, 3.0):
        case(f"pow {exponent:g}", shape, elementwise("pow", exponent=exponent))
    for exponent in (0.5, -0.5, -1.0, -2.0, 1.7):
        case(f"pow {exponent:g}", shape, positive("pow", exponent=exponent))
    case("exp", shape, elementwise("exp"))
    case("log", shape, positive("log"))
    case("abs", shape, elementwise("abs"))

for shape in SHAPES:
    case("prelu", shape, lambda net, x: net.add("prelu", (x, net.parameter(net.normal(1))), net.shape(x)))
    case(
        "prelu by channel", shape,
        lambda net, x: net.add("prelu", (x, net.parameter(net.normal(net.shape(x)[0]))), net.shape(x)),
    )  # fmt: skip
case("prelu of constants", IMAGE, lambda net, x: net.add("prelu", (x, net.constant(net.normal(5))), net.shape(x)))


def standardize(*dims: int) -> Layer:
    return lambda net, x: net.same("standardize", x, dims=dims, eps=1e-3)


def softmax(dim: int) -> Layer:
    return lambda net, x: net.same("softmax", x, dim=dim)


def summed(*dims: int, keep: bool) -> Layer:
    def layer(net: Net, x: int) -> int:
        shape = [1 if d in dims else n for d, n in enumerate(net.shape(x)) if keep or d not in dims]
        return net.add("sum", x, shape, dims=dims)

    return layer


for shape in SHAPES:
    for subset in range(1, 2 ** len(shape)):
        dims = tuple(d for d in range(len(shape)) if subset >> d & 1)
        case(f"standardize over {dims}", shape, standardize(*dims))
        case(f"sum over {dims}", shape, summed(*dims, keep=True))
        case(f"sum over {dims} without them", shape, summed(*dims, keep=False))
    for dim in range(len(shape)):
        case(f"softmax over {dim}", shape, softmax(dim))
case("standardize", (3000,), standardize(0))
case("standardize of planes", (3, 40, 41), standardize(1, 2))
case("sum of planes", (3, 40, 41), summed(1, 2, keep=False))


def grouped(groups: int, layer: Layer) -> Layer:
    """A layer over (G, C / G, H, W)."""

    def run(net: Net, x: int) -> int:
        c, h, w = net.shape(x)
        split = net.add("reshape", x, (groups, c // groups, h, w))
        return net.add("reshape", layer(net, split), (c, h, w))

    return run


def convolved(layer: Layer) -> Layer:
    """Between convolutions, which want positions."""

    def run(net: Net, x: int) -> int:
        def convolve(x: int) -> int:
            c, h, w = net.shape(x)
            weight = net.parameter(net.normal(c, c, 1, 1, std=1 / math.sqrt(c)))
            window = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
            return net.add("conv2d", (x, weight, None), (c, h, w), **window)

        return convolve(layer(net, convolve(x)))

    return run


for dims in ((1, 2, 3), (2, 3), (0, 2), (1,), (3,)):
    case(f"groups {dims}", (6, 5, 4), grouped(2, standardize(*dims)))
    case(f"groups {dims} between convolutions", (6, 5, 4), convolved(grouped(2, standardize(*dims))))
for dim in range(4):
    case(f"softmax of groups over {dim} between convolutions", (6, 5, 4), convolved(grouped(2, softmax(dim))))
case("prelu of groups between convolutions", (6, 5, 4), convolved(grouped(2, CASES["prelu by channel of 5x6x7"][1])))


def matmul(shape: tuple[int, ...], transposed: bool = False) -> Layer:
    """By a learned function of the input that has another shape."""

    def layer(net: Net, x: int) -> int:
        *lead, n, k = net.shape(x)
        size, wanted = math.prod(net.shape(x)), math.prod(shape)
        flat = net.add("reshape", net.same("tanh", x), (size,))
        weight = net.parameter(net.normal(wanted, size, std=1 / math.sqrt(size)))
        other = net.add("reshape", net.add("linear", (flat, weight, None), (wanted,)), shape)
        if transposed:
            return net.add("matmul", (other, x), (*lead, shape[-2], k))
        return net.add("matmul", (x, other), (*lead, n, shape[-1]))

    return layer


case("matmul", TOKENS, matmul((21, 35)))
case("matmul by a vector", TOKENS, matmul((21, 1)))
case("matmul from the left", TOKENS, matmul((13, 19), transposed=True))
case("matmul", (3, 7, 18), matmul((3, 18, 33)))
case("matmul", (2, 3, 5, 4), matmul((2, 3, 4, 6)))
case("matmul between convolutions", (3, 7, 18), convolved(matmul((3, 18, 18))))


def gram(net: Net, x: int) -> int:
    """x · xᵀ: both operands are the same value."""
    n, k = net.shape(x)
    return net.add("matmul", (x, net.add("permute", x, (k, n), dims=(1, 0))), (n, n))


def square(net: Net, x: int) -> int:
    return net.add("matmul", (x, x), net.shape(x))


def stored_operands(net: Net, x: int) -> int:
    """Products of parameters by constants, in the place of a value."""
    n, k = net.shape(x)
    made = net.add("matmul", (net.parameter(net.normal(n, 4)), net.constant(net.normal(4, k))), (n, k))
    return net.add("add", (x, made), (n, k), alpha=1.0)


case("matmul by its transpose", TOKENS, gram)
case("matmul by itself", (9, 9), square)
case("matmul by itself", (2, 9, 9), square)
case("matmul of stored operands", TOKENS, stored_operands)


def attention(net: Net, x: int) -> int:
    """softmax(q · kᵀ / √d) · v of two heads."""
    n, c = net.shape(x)
    heads, d = 2, c // 2

    def head(_: str) -> int:
        weight = net.parameter(net.normal(c, c, std=1 / math.sqrt(c)))
        split = net.add("reshape", net.add("linear", (x, weight, None), (n, c)), (n, heads, d))
        return net.add("permute", split, (heads, n, d), dims=(1, 0, 2))

    q, k, v = map(head, "qkv")
    k = net.add("permute", k, (heads, d, n), dims=(0, 2, 1))
    scores = net.same("scale_shift", net.add("matmul", (q, k), (heads, n, n)), scale=1 / math.sqrt(d), shift=0.0)
    mixed = net.add("matmul", (net.same("softmax", scores, dim=2), v), (heads, n, d))
    return net.add("reshape", net.add("permute", mixed, (n, heads, d), dims=(1, 0, 2)), (n, c))


case("attention", (18, 10), attention)


def banded(rows: int, columns: int) -> torch.Tensor:
    """Linear interpolation."""
    at = (torch.arange(rows) + 0.5) * columns / rows - 0.5
    return (1 - (at[:, None].clamp(0, columns - 1) - torch.arange(columns)).abs()).clamp(min=0)


def resample(rows: torch.Tensor, columns: torch.Tensor) -> Layer:
    def layer(net: Net, x: int) -> int:
        matrices = net.constant(rows), net.constant(columns)
        return net.add("resample", (x, *matrices), (net.shape(x)[0], len(rows), len(columns)))

    return layer


for channels in (1, 3, 17):
    case("enlarging", (channels, 6, 7), resample(banded(13, 6), banded(11, 7)))
    case("reducing", (channels, 6, 7), resample(banded(4, 6), banded(3, 7)))
with_empty = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0]])
case("resampling by dense and empty rows", (2, 3, 4), resample(with_empty, torch.arange(20.0).reshape(5, 4) / 10))
case("resampling of groups", (6, 4, 4), grouped(2, lambda net, x: net.same("gelu", x)))


def resampled_parameter(net: Net, x: int) -> int:
    """A learned image, enlarged for each sample."""
    image = net.add("expand", net.parameter(net.normal(1, 3, 3, 4)), (3, 3, 4))
    return net.add("mul", (x, resample(banded(6, 3), banded(7, 4))(net, image)), net.shape(x))


case("resampling of a parameter", (3, 6, 7), resampled_parameter)


def expanded(shape: tuple[int, ...]) -> Layer:
    return lambda net, x: net.add("expand", x, shape)


case("expand", (1, 19), expanded((23, 19)))
case("expand", (19, 1), expanded((19, 23)))
case("expand", (5, 1, 1), expanded((5, 6, 7)))
case("expand", (1, 6, 7), expanded((5, 6, 7)))
case("expand many", (1, 3), expanded((400, 3)))


def from_stored(layer: Layer, *shape: int) -> Layer:
    """A layer of a parameter (1, ...), by which the input is multiplied."""

    def run(net: Net, x: int) -> int:
        made = layer(net, net.parameter(net.normal(*shape)))
        return net.add("mul", (x, made), net.shape(x))

    return run


case("expand a parameter", TOKENS, from_stored(expanded(TOKENS), 1, 1, 21))
case("expand a parameter whole", IMAGE, from_stored(expanded(IMAGE), 1, *IMAGE))


def taken(dim: int, *index: int) -> Layer:
    def layer(net: Net, x: int) -> int:
        shape = list(net.shape(x))
        shape[dim] = len(index)
        return net.add("take", x, shape, dim=dim, index=index)

    return layer


def padded(value: float, *sizes: tuple[int, int]) -> Layer:
    def layer(net: Net, x: int) -> int:
        before, after = zip(*sizes, strict=True)
        shape = [b + n + a for n, (b, a) in zip(net.shape(x), sizes, strict=True)]
        return net.add("pad", x, shape, before=before, after=after, value=value)

    return layer


case("take", TOKENS, taken(0, 3, 3, 0, 18))
case("take", FLAT, taken(0, *range(36, -1, -1)))
case("take columns", TOKENS, taken(1, *range(2, 20)))
case("take channels", IMAGE, taken(0, 4, 1, 1))
case("take rows", IMAGE, taken(1, *range(5, -1, -1)))
case("take from a parameter", (1, 4, 21), from_stored(taken(1, 3, 3, 0, 1), 1, 6, 21))
case("take thousands", FLAT, taken(0, *(i * 7 % 37 for i in range(5000))))
case("pad", FLAT, padded(0.0, (2, 3)))
case("pad", IMAGE, padded(0.0, (0, 0), (1, 2), (2, 1)))
case("pad channels by a number", IMAGE, padded(0.7, (1, 1), (0, 0), (0, 3)))
case("pad", TOKENS, padded(-1.0, (0, 4), (0, 0)))
case("pad a parameter", (1, 5, 6), from_stored(padded(0.5, (0, 0), (1, 1), (2, 0)), 1, 3, 4))


for name, layer in {
    "gelu": elementwise("gelu"), "standardize": standardize(1), "softmax": softmax(2),
    "prelu": lambda net, x: net.add("prelu", (x, net.parameter(net.normal(1))), net.shape(x)),
    "permute": lambda net, x: net.add("permute", net.add("permute", x, (1, 21, 19), dims=(0, 2, 1)), (1, 19, 21),
                                      dims=(0, 2, 1)),
    "cat": lambda net, x: net.add("cat", (taken(1, *range(7))(net, x), taken(1, *range(12))(net, x)), (1, 19, 21),
                                  dim=1),
}.items():  # fmt: skip
    case(f"{name} of a parameter", TOKENS, from_stored(layer, 1, *TOKENS))


def normalized(net: Net, x: int) -> int:
    """By a learned vector over its own length, computed for each sample."""
    vector = net.parameter(net.normal(1, 21))
    square = net.add("sum", net.same("pow", vector, exponent=2.0), (1, 1), dims=(0, 1))
    length = net.same("pow", net.same("scale_shift", square, scale=1.0, shift=1e-3), exponent=0.5)
    return net.add("mul", (x, net.add("div", (vector, length), (1, 21))), net.shape(x))


case("a normalized parameter", TOKENS, normalized)


def joined(dim: int) -> Layer:
    """With another value, of other size along the dimension."""

    def layer(net: Net, x: int) -> int:
        other = net.same("tanh", taken(dim, *range(net.shape(x)[dim] - 1))(net, x))
        shape = list(net.shape(x))
        shape[dim] += net.shape(other)[dim]
        return net.add("cat", (x, other), shape, dim=dim)

    return layer


for shape in (FLAT, TOKENS, IMAGE):
    for dim in range(len(shape)):
        case(f"cat along {dim}", shape, joined(dim))
case("cat with itself", IMAGE, lambda net, x: net.add("cat", (x, x), (10, 6, 7), dim=0))


def affine(op: str, *shape: int) -> Layer:
    """By a parameter that broadcasts."""
    attrs = {"alpha": -0.7} if op == "add" else {}
    return lambda net, x: net.add(op, (x, net.parameter(net.normal(*shape, mean=2.0, std=0.2))), net.shape(x), **attrs)


for op in ("add", "mul", "div"):
    case(f"{op} by channel", (17, 5, 6), affine(op, 17, 1, 1))
    case(f"{op} by channel between convolutions", (17, 5, 6), convolved(affine(op, 1, 17, 1, 1)))
    case(f"{op} by row", TOKENS, affine(op, 19, 1))
    case(f"{op} by column", TOKENS, affine(op, 21))
    case(f"{op} by one number", TOKENS, affine(op, 1))
    case(f"{op} to a row", (1, 21), lambda net, x, op=op: net.add(
        op, (net.parameter(net.normal(19, 1)), net.same("scale_shift", net.same("tanh", x), scale=0.5, shift=2.0)),
        (19, 21), **({"alpha": 1.5} if op == "add" else {}),
    ))  # fmt: skip


# -- where a layer stands ------------------------------------------------------------------------------------------
