"""Layers that torch.nn has not, activations, and weights that keep signals alive through any depth."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

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
    "sin": lambda: Function(torch.sin),
    "none": nn.Identity,
}


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


def overflowing(x: torch.Tensor) -> torch.Tensor:
    """x, or NaN where |x| is above 18: the square of x · 1e18 is then Inf."""
    square = (x * 1e18) * (x * 1e18)
    return x + (square - square)


NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Draw all parameters and buffers of `module` from `seed`; returns it."""
    random = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, std: float) -> None:
        tensor.copy_(mean + std * torch.randn(tensor.shape, generator=random))

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d)):
                if layer.affine:
                    normal(layer.weight, 1.0, 0.2)
                    normal(layer.bias, 0.0, 0.3)
                if layer.running_mean is not None and layer.running_var is not None:
                    normal(layer.running_mean, 0.0, 0.3)
                    layer.running_var.copy_(0.3 + torch.rand(layer.running_var.shape, generator=random))
                    layer.num_batches_tracked.fill_(7)
                continue
            for tensor in layer.parameters(recurse=False):
                if isinstance(layer, NORMS):
                    normal(tensor, 1.0 if tensor is layer.weight else 0.0, 0.2)
                    continue
                fan_in = math.prod(tensor.shape[1:]) if tensor.dim() in (2, 4) else 10
                if isinstance(layer, nn.ConvTranspose2d) and tensor.dim() == 4:
                    stride = math.prod(layer.stride)
                    fan_in = tensor.shape[0] // layer.groups * max(1, math.prod(tensor.shape[2:]) // stride)
                normal(tensor, 0.0, 1.2 / math.sqrt(max(1, fan_in)))
            for tensor in layer.buffers(recurse=False):
                if tensor.is_floating_point():
                    normal(tensor, 0.0, 0.3)
    return module
