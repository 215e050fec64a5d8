"""Generators to test with: named families, and random ones whose shapes fit by construction.

Every weight is drawn from a seed of its own, with no use of the global random state, at a scale that keeps signals
alive through any depth; batch norm has random affine parameters and running statistics.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from adgan_fast import models

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "leaky_relu in place": lambda: nn.LeakyReLU(0.1, inplace=True),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": lambda: nn.ELU(0.7),
    "softplus": lambda: nn.Softplus(beta=1.5),
    "silu": nn.SiLU,
    "none": nn.Identity,
}


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


# -- layers that torch.nn has not --------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


class Twice(nn.Module):
    """The same weights used two times over."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(torch.tanh(self.inner(x)))


class Affine(nn.Module):
    """Scalings by numbers, in every way of writing them."""

    def __init__(self, scale: float, shift: float):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -(self.shift - x * self.scale) / 0.9 + 0.1 * x


class Constant(nn.Module):
    """A buffer (1, C, H, W) added, and one (C, 1, 1) multiplied by."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("offset", torch.zeros(1, *shape))
        self.register_buffer("gain", torch.zeros(shape[0], 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1 + self.gain) + self.offset


class Learned(nn.Module):
    """A learned image (C, H, W) added, scaled by a learned number for each channel."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.image = nn.Parameter(torch.zeros(shape))
        self.gain = nn.Parameter(torch.zeros(1, shape[0], 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1.3 + self.gain) - self.image


class Divided(nn.Module):
    """Each channel divided by a learned number."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (3 + self.gain)


class View(nn.Module):
    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], *self.shape)


class Function(nn.Module):
    """A layer from a function."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Draw all parameters and buffers of `module` from `seed`; returns it."""
    random = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, std: float) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=random))

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                if layer.affine:
                    normal(layer.weight, 1.0, 0.2)
                    normal(layer.bias, 0.0, 0.3)
                if layer.running_mean is not None and layer.running_var is not None:
                    normal(layer.running_mean, 0.0, 0.3)
                    layer.running_var.copy_(0.3 + torch.rand(layer.running_var.shape, generator=random))
                    layer.num_batches_tracked.fill_(7)
                continue
            for tensor in layer.parameters(recurse=False):
                fan_in = math.prod(tensor.shape[1:]) if tensor.dim() in (2, 4) else 10
                if isinstance(layer, nn.ConvTranspose2d) and tensor.dim() == 4:
                    stride = math.prod(layer.stride)
                    fan_in = tensor.shape[0] // layer.groups * max(1, math.prod(tensor.shape[2:]) // stride)
                normal(tensor, 0.0, 1.2 / math.sqrt(max(1, fan_in)))
            for tensor in layer.buffers(recurse=False):
                normal(tensor, 0.0, 0.3)
    return module


# -- random generators -------------------------------------------------------------------------------------------


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


# -- named families ----------------------------------------------------------------------------------------------


def dcgan(image_size: int, channels: int, latent: int, width: int) -> Case:
    module = randomise(models.DCGANGenerator(image_size, channels, latent, width), image_size)
    return Case(module, (latent,), (channels, image_size, image_size), f"DCGAN of {image_size}")


def _sequential(
    made_of: str, seed: int, latent_shape: tuple[int, ...], image_shape: tuple[int, ...], *layers: nn.Module
) -> Case:
    return Case(randomise(nn.Sequential(*layers), seed), latent_shape, image_shape, made_of)


class TiedDecoder(nn.Module):
    """Two layers with one kernel, and a head that is the transpose of the first layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 12, bias=False)
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.head(z))
        h = h + 0.1 * F.linear(F.linear(h, self.head.weight.t()), self.head.weight)
        h = torch.relu(self.first(h.reshape(-1, 3, 2, 2)))
        return torch.tanh(self.second(F.interpolate(h, scale_factor=3, mode="nearest")) * self.gain)


class StyleLike(nn.Module):
    """A learned constant input, scaled channel by channel by what a small network makes of the latent."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(1, 5, 3, 3))
        self.mapping = nn.Sequential(nn.Linear(4, 7), nn.LeakyReLU(0.2), nn.Linear(7, 5))
        self.conv = nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        style = self.mapping(z).unsqueeze(-1).unsqueeze(-1)
        return torch.tanh(self.conv(self.constant * (1 + style)))


def families() -> dict[str, Case]:
    """The named families, each with fixed weights."""
    found = [
        dcgan(8, 1, 5, 3),
        dcgan(16, 3, 7, 3),
        dcgan(28, 1, 6, 2),
        dcgan(32, 3, 8, 2),
        _sequential(
            "VAE decoder", 1, (4,), (1, 7, 9),
            nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 63), nn.Sigmoid(),
            nn.Unflatten(1, (1, 7, 9)),
        ),
        _sequential(
            "upsample and convolve", 2, (6,), (3, 12, 12),
            nn.Linear(6, 5 * 9), nn.Unflatten(1, (5, 3, 3)), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(5, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, padding=1), nn.Tanh(),
        ),
        _sequential(
            "pixel shuffle", 3, (5,), (1, 12, 8),
            nn.Linear(5, 4 * 6), nn.Unflatten(1, (4, 3, 2)), nn.ELU(), nn.Conv2d(4, 12, 3, padding=1),
            nn.PixelShuffle(2), nn.SiLU(), nn.Conv2d(3, 4, 3, padding=1), nn.PixelShuffle(2), nn.Tanh(),
        ),
        _sequential(
            "residual", 4, (6, 1, 1), (2, 8, 8),
            nn.ConvTranspose2d(6, 4, 4), nn.BatchNorm2d(4),
            Residual(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))),
            nn.ReLU(inplace=True), nn.ConvTranspose2d(4, 2, 4, 2, 1), nn.Tanh(),
        ),
        _sequential(
            "LSGAN", 5, (7,), (1, 14, 14),
            nn.Linear(7, 4 * 49), nn.BatchNorm1d(4 * 49), nn.ReLU(), nn.Unflatten(1, (4, 7, 7)),
            nn.ConvTranspose2d(4, 3, 5, 1, 2), nn.BatchNorm2d(3), nn.ReLU(),
            nn.ConvTranspose2d(3, 3, 5, 2, 2, output_padding=1), nn.BatchNorm2d(3), nn.ReLU(),
            nn.ConvTranspose2d(3, 1, 5, 1, 2), nn.Tanh(),
        ),
        _sequential(
            "groups", 6, (6, 1, 1), (3, 7, 9),
            nn.ConvTranspose2d(6, 6, (3, 4), groups=3), nn.SiLU(), nn.ConvTranspose2d(6, 4, 3, 2, 1, groups=2),
            nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=(2, 2), groups=2), nn.Tanh(),
            nn.Conv2d(6, 3, 1, groups=3), nn.Tanh(),
        ),
        _sequential(
            "dilation and output padding", 7, (5,), (2, 17, 14),
            nn.Linear(5, 12), nn.Unflatten(1, (3, 2, 2)), nn.Softplus(),
            nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1, dilation=2), nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(4, 3, 2, 3, 2, output_padding=(2, 1)), nn.Sigmoid(),
            nn.Conv2d(3, 2, 3, padding=2, dilation=(1, 2)), nn.Tanh(),
        ),
        _sequential(
            "output padding not below the stride", 8, (4, 1, 1), (2, 5, 6),
            nn.ConvTranspose2d(4, 3, 2, 2, 0, output_padding=(1, 2), dilation=3), nn.Tanh(),
            nn.ConvTranspose2d(3, 2, 1), nn.Tanh(),
        ),
        _sequential(
            "kernel smaller than the stride", 13, (4, 1, 1), (2, 8, 9),
            nn.ConvTranspose2d(4, 3, 1, 2, output_padding=1), nn.Sigmoid(), nn.ConvTranspose2d(3, 3, (1, 2), 3),
            nn.ReLU(), nn.Conv2d(3, 4, 1, padding=1), nn.Tanh(), nn.ConvTranspose2d(4, 2, 3, padding=(0, 0)), nn.Tanh(),
        ),
        Case(randomise(TiedDecoder(), 9), (6,), (3, 6, 6), "tied weights"),
        _sequential(
            "scalings and constants", 10, (5,), (2, 5, 5),
            nn.Linear(5, 18), nn.Unflatten(1, (2, 3, 3)), Affine(0.5, 0.3), Constant((2, 3, 3)), nn.ReLU(),
            nn.ConvTranspose2d(2, 2, 3), nn.Tanh(), Affine(-0.75, 0.1),
        ),
        _sequential(
            "learned image", 11, (5,), (3, 4, 6),
            nn.Linear(5, 3 * 24), nn.Unflatten(1, (3, 4, 6)), Learned((3, 4, 6)), nn.Tanh(),
            nn.Conv2d(3, 3, 3, padding=1, bias=False), Learned((3, 4, 6)), nn.Tanh(),
        ),
        Case(randomise(StyleLike(), 12), (4,), (3, 3, 3), "learned constant input"),
        _sequential(
            "division", 14, (5,), (2, 5, 5),
            nn.Linear(5, 18), nn.Unflatten(1, (2, 3, 3)), Divided(2), nn.ReLU(), nn.ConvTranspose2d(2, 2, 3), nn.Tanh(),
        ),
    ]  # fmt: skip
    return {case.made_of: case for case in found}


FAMILIES = families()
