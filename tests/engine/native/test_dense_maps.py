"""Linear layers and convolutions whose input is not behind a ReLU, against PyTorch in float64.

Such a layer is computed densely, in tiles of some rows by some vectors (`csrc/core/kernels/dense_maps.inl`). Sizes here
leave rests of tiles, of vectors and of the blocks that sums are taken in, on each instruction set.
"""

from __future__ import annotations

import math

import pytest
import torch

from adgan_fast import ops
from adgan_fast.config import WEIGHTS
from adgan_fast.generator.program import Program
from tests.engine.native.test_layers_float64 import arguments, assert_close, searched
from tests.support.by_hand import Net
from tests.support.engines import NEEDS_EXTENSION
from tests.support.native import HERE

pytestmark = NEEDS_EXTENSION


def windowed(net: Net, x: int, outputs: int, kernel: int, transposed: bool = False, **window: int) -> int:
    """A convolution, its weights so drawn that outputs are as large as inputs."""
    stride, padding, dilation, groups = (window.get(k, d) for k, d in zip(WINDOW, (1, 0, 1, 1), strict=True))
    inputs, *sizes = net.shape(x)
    reach = dilation * (kernel - 1) + 1
    if transposed:
        weight = net.normal(inputs, outputs // groups, kernel, kernel)
        made = [(n - 1) * stride - 2 * padding + reach for n in sizes]
    else:
        weight = net.normal(outputs, inputs // groups, kernel, kernel)
        made = [(n + 2 * padding - reach) // stride + 1 for n in sizes]
    weight /= math.sqrt(inputs // groups * kernel**2)
    attrs: dict[str, object] = dict(stride=(stride,) * 2, padding=(padding,) * 2, dilation=(dilation,) * 2)
    if transposed:
        attrs["output_padding"] = (0, 0)
    op = "conv_transpose2d" if transposed else "conv2d"
    return net.add(op, (x, net.parameter(weight), None), (outputs, *made), groups=groups, **attrs)


WINDOW = ("stride", "padding", "dilation", "groups")
CONVOLUTIONS = {
    **{f"3x3, {c} to {n}": ((c, 5, 4), dict(outputs=n, kernel=3, padding=1))
       for c, n in ((1, 33), (3, 17), (15, 15), (17, 3), (33, 1), (9, 65), (70, 49))},
    "1x1 to 3": ((17, 5, 7), dict(outputs=3, kernel=1)),
    "1x1 of one position": ((33, 1, 1), dict(outputs=17, kernel=1)),
    "1x1, more outputs than a panel": ((5, 2, 2), dict(outputs=150, kernel=1)),
    "stride": ((7, 7, 6), dict(outputs=18, kernel=3, stride=2, padding=1)),
    "dilation": ((6, 7, 8), dict(outputs=16, kernel=3, padding=2, dilation=2)),
    "groups": ((12, 4, 5), dict(outputs=54, kernel=3, padding=1, groups=3)),
    "by channel": ((19, 4, 5), dict(outputs=19, kernel=3, padding=1, groups=19)),
    "a window larger than the image": ((3, 2, 2), dict(outputs=17, kernel=5, padding=2)),
    "more positions than one sum takes": ((5, 27, 23), dict(outputs=16, kernel=3, padding=1)),
    "transposed": ((18, 3, 4), dict(outputs=17, kernel=4, stride=2, padding=1, transposed=True)),
    "transposed, gaps between": ((9, 3, 2), dict(outputs=16, kernel=2, stride=3, transposed=True)),
    "transposed, groups": ((8, 3, 3), dict(outputs=36, kernel=3, stride=2, groups=2, transposed=True)),
    "transposed, to 3": ((17, 4, 4), dict(outputs=3, kernel=4, stride=2, padding=1, transposed=True)),
    "transposed, of one position": ((21, 1, 1), dict(outputs=17, kernel=3, transposed=True)),
}  # fmt: skip


def convolution(name: str) -> Program:
    """Behind a tanh, as is the output."""
    shape, layer = CONVOLUTIONS[name]
    net = Net(*shape)
    return net.program(net.same("tanh", windowed(net, net.same("tanh", net.latent), **layer)))


LINEAR = {"one row": (37,), "rows": (11, 21), "many": (2, 3, 33)}


def linear(name: str) -> Program:
    """Of rows, two times; the second has one output."""
    shape = LINEAR[name]
    net = Net(*shape)
    x, size = net.same("tanh", net.latent), shape[-1]
    for outputs in (49, 1):
        weight = net.parameter(net.normal(outputs, size, std=1 / math.sqrt(size)))
        x, size = net.add("linear", (x, weight, None), (*shape[:-1], outputs)), outputs
    return net.program(x)


PROGRAMS = {**{name: convolution for name in CONVOLUTIONS}, **{name: linear for name in LINEAR}}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_two_steps_of_many_starts(name, weights):
    """Steps of g / (|g| + eps), more starts than pass at a time, on each instruction set; threads change no bit."""
    program = PROGRAMS[name](name)
    s, lr, eps = 19, 0.02, 3.0
    rates = [lr, lr / (s if weights == "per_sample" else 1), 0.0, 0.0, eps]
    given = arguments(program, weights, s=s, steps=2, rates=rates)
    found = {isa: ops.native_search(*given._replace(isa=isa, threads=1)) for isa in range(len(HERE))}
    shared = ops.native_search(*given._replace(threads=2, poison=True))
    assert all(torch.equal(a, b) for a, b in zip(found[len(HERE) - 1], shared, strict=True))
    for results in found.values():
        for ours, theirs in zip((part[0] for part in results), searched(program, given, 0, weights), strict=True):
            assert_close(ours, theirs)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", ["3x3, 9 to 65", "transposed", "rows"])
def test_a_start_has_the_same_bits_among_any_others(name, weights):
    """Tiles are cut by how many pass together; a start that is alone has other tiles and the same sums."""
    if weights == "per_sample":
        pytest.skip("starts share weights there, so that each depends on all")
    given = arguments(PROGRAMS[name](name), weights, s=18, steps=3)
    for isa in range(len(HERE)):
        together = ops.native_search(*given._replace(isa=isa))
        for first, end in ((0, 1), (1, 6), (6, 18)):
            some = ops.native_search(*given._replace(isa=isa, starts=given.starts[first:end].contiguous()))
            assert all(torch.equal(part[:, first:end], own) for part, own in zip(together, some, strict=True))


@pytest.mark.parametrize("closed", [0.0, 1.0])
def test_a_zero_in_the_input_is_a_number_like_any_other(closed):
    """Behind a tanh a zero has a gradient, of which a list of what is not zero would know nothing."""
    net = Net(6, 4, 4)
    x = net.same("tanh", net.same("scale_shift", net.latent, scale=closed, shift=0.0))
    given = arguments(net.program(windowed(net, x, 17, 3, padding=1)), "frozen")
    z = torch.zeros_like(given.starts)
    gradient = ops.native_gradients(given._replace(starts=z))[0]
    assert bool((gradient != 0).all()) == (closed == 1.0)
