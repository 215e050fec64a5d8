"""Random generators to test with, whose shapes fit by construction."""

from __future__ import annotations

import copy
import dataclasses
import math

import torch
from hypothesis import strategies as st
from torch import nn

from tests.support.layers import ACTIVATIONS, Affine, Constant, Learned, Residual, Twice, View, randomise


@dataclasses.dataclass(frozen=True)
class Case:
    """A generator (float32), the shape of its latents and of its images, and what it is made of."""

    module: nn.Module
    latent_shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    made_of: str = ""

    def __repr__(self) -> str:
        return f"Case({self.made_of or type(self.module).__name__}, {self.latent_shape} -> {self.image_shape})"

    def double(self) -> nn.Module:
        """The generator in float64: a copy, since families are shared between tests."""
        return copy.deepcopy(self.module).double()

    def images(self, n: int, seed: int = 0) -> torch.Tensor:
        """(n, C, H, W) float32 in [-1, 1]."""
        random = torch.Generator().manual_seed(seed + 1)
        return torch.rand(n, *self.image_shape, generator=random, dtype=torch.float32) * 2 - 1


def _transposed_size(size: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int) -> int:
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


def _conv_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _groups(draw: st.DrawFn, before: int, after: int) -> tuple[int, int]:
    """Groups that divide `before`, and `after` raised to a multiple of them."""
    groups = draw(st.sampled_from([1, 1, *[d for d in range(2, before + 1) if before % d == 0]]))
    return groups, -(-after // groups) * groups


def _transposed(draw: st.DrawFn, shape: tuple[int, int, int], channels: int) -> tuple[nn.Module, tuple[int, int, int]]:
    c, sizes = shape[0], shape[1:]
    groups, channels = _groups(draw, c, channels)
    chosen: dict[str, list[int]] = {k: [] for k in ("kernel", "stride", "padding", "output_padding", "dilation")}
    after = []
    for size in sizes:
        stride = draw(st.integers(1, 3))
        dilation = draw(st.sampled_from([1, 1, 2]))
        kernel = draw(st.integers(1, 4))
        output_padding = draw(st.integers(0, max(stride, dilation) - 1))
        most = (_transposed_size(size, kernel, stride, 0, output_padding, dilation) - 1) // 2
        padding = draw(st.integers(0, max(0, min(most, 3))))
        for name, value in zip(chosen, (kernel, stride, padding, output_padding, dilation), strict=True):
            chosen[name].append(value)
        after.append(_transposed_size(size, kernel, stride, padding, output_padding, dilation))
    layer = nn.ConvTranspose2d(
        c, channels, tuple(chosen["kernel"]), tuple(chosen["stride"]), tuple(chosen["padding"]),
        tuple(chosen["output_padding"]), groups, draw(st.booleans()), tuple(chosen["dilation"]),
    )  # fmt: skip
    return layer, (channels, after[0], after[1])


def _convolved(draw: st.DrawFn, shape: tuple[int, int, int], channels: int) -> tuple[nn.Module, tuple[int, int, int]]:
    c, sizes = shape[0], shape[1:]
    groups, channels = _groups(draw, c, channels)
    kernels, strides, paddings, dilations, after = [], [], [], [], []
    for size in sizes:
        dilation = draw(st.sampled_from([1, 1, 2]))
        padding = draw(st.integers(0, 2))
        kernel = draw(st.integers(1, max(1, min(4, (size + 2 * padding - 1) // dilation + 1))))
        stride = draw(st.sampled_from([1, 1, 2]))
        for values, value in zip(
            (kernels, strides, paddings, dilations), (kernel, stride, padding, dilation), strict=True
        ):
            values.append(value)
        after.append(_conv_size(size, kernel, stride, padding, dilation))
    layer = nn.Conv2d(
        c, channels, tuple(kernels), tuple(strides), tuple(paddings), tuple(dilations), groups, draw(st.booleans())
    )
    return layer, (channels, after[0], after[1])


def _same(draw: st.DrawFn, channels: int) -> nn.Module:
    """A convolution that keeps the shape."""
    if draw(st.booleans()):
        return nn.Conv2d(channels, channels, 3, padding=1, bias=draw(st.booleans()))
    return nn.Conv2d(channels, channels, (1, 3), padding="same", bias=draw(st.booleans()))


LARGEST = 11  # side of a map, in pixels; larger ones are cropped by the step that follows


@st.composite
def cases(draw: st.DrawFn, depth: int = 4) -> Case:
    """A random generator of 1 to `depth` convolutional steps, and what follows each."""
    length = draw(st.integers(1, 6))
    flat = draw(st.booleans())
    latent_shape = (length,) if flat else (length, 1, 1)
    layers: list[nn.Module] = []
    shape: tuple[int, int, int]
    if flat and draw(st.booleans()):
        shape = (draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
        width = math.prod(shape)
        if draw(st.booleans()):
            hidden = draw(st.integers(2, 7))
            layers += [nn.Linear(length, hidden, bias=draw(st.booleans()))]
            layers += [nn.BatchNorm1d(hidden)] if draw(st.booleans()) else []
            layers += [ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))](), nn.Linear(hidden, width)]
        else:
            layers += [nn.Linear(length, width, bias=draw(st.booleans()))]
        layers += [draw(st.sampled_from([View(*shape), nn.Unflatten(1, shape)]))]
    else:
        shape = (length, 1, 1)
        layers += [nn.Unflatten(1, shape)] if flat else []
        step, shape = _transposed(draw, shape, draw(st.integers(1, 5)))
        layers.append(step)
    for _ in range(draw(st.integers(0, depth - 1))):
        if draw(st.booleans()):
            affine = draw(st.booleans())
            layers.append(nn.BatchNorm2d(shape[0], affine=affine, eps=draw(st.sampled_from([1e-5, 1e-2]))))
        layers.append(ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))]())
        kinds = ["transposed", "convolved", "residual", "twice", "affine", "constant", "learned"]
        small = max(shape[1:]) * 2 <= LARGEST
        kind = draw(st.sampled_from([*kinds, "upsample", "shuffle"] if small else ["convolved", *kinds[1:]]))
        channels = draw(st.integers(1, 5))
        if kind == "transposed":
            step, shape = _transposed(draw, shape, channels)
            layers.append(step)
        elif kind == "convolved":
            step, shape = _convolved(draw, shape, channels)
            layers.append(step)
        elif kind == "residual":
            layers.append(Residual(nn.Sequential(_same(draw, shape[0]), nn.Tanh())))
        elif kind == "twice":
            layers.append(Twice(_same(draw, shape[0])))
        elif kind == "affine":
            layers.append(Affine(draw(st.sampled_from([0.5, 2.0, -0.75])), draw(st.sampled_from([0.0, 0.3]))))
        elif kind == "constant":
            layers.append(Constant(shape))
        elif kind == "learned":
            layers.append(Learned(shape))
        elif kind == "upsample":
            factors = draw(st.sampled_from([(2, 2), (1, 2), (3, 1)]))
            layers.append(nn.Upsample(scale_factor=factors, mode="nearest"))
            shape = (shape[0], shape[1] * factors[0], shape[2] * factors[1])
        else:
            layers += [nn.Conv2d(shape[0], 4 * channels, 1), nn.PixelShuffle(2)]
            shape = (channels, 2 * shape[1], 2 * shape[2])
    layers.append(draw(st.sampled_from([nn.Tanh(), nn.Sigmoid(), nn.Identity()])))
    module = randomise(nn.Sequential(*layers), draw(st.integers(0, 2**20)))
    module.train(draw(st.booleans()))  # the search is in eval mode, whatever mode the generator is in
    return Case(module, latent_shape, shape, " ".join(type(layer).__name__ for layer in layers))
