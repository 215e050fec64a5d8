"""What several families are built of."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.generators import Case
from tests.support.layers import randomise


def case(
    made_of: str, seed: int, latent_shape: tuple[int, ...], image_shape: tuple[int, ...], module: nn.Module
) -> Case:
    """A generator with the weights of a seed; power iterations of spectral norms are run to their end."""
    randomise(module, seed)
    if any("pectral" in type(layer).__name__ or layer._forward_pre_hooks for layer in module.modules()):
        with torch.no_grad():
            for _ in range(10):
                module.train()(torch.zeros(2, *latent_shape))
        module.eval()
    return Case(module, latent_shape, image_shape, made_of)


def sequential(
    made_of: str, seed: int, latent_shape: tuple[int, ...], image_shape: tuple[int, ...], *layers: nn.Module
) -> Case:
    return case(made_of, seed, latent_shape, image_shape, nn.Sequential(*layers))


class PixelNorm(nn.Module):
    """Each position divided by the root mean square of its channels (Karras et al., 2018)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class EqualisedLinear(nn.Module):
    """A linear layer whose weight is scaled at each call (equalised learning rate)."""

    def __init__(self, before: int, after: int, rate: float = 0.5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(after, before)), nn.Parameter(torch.zeros(after))
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * (1.7 * self.rate), self.bias * self.rate)


class EqualisedConv(nn.Module):
    """A convolution whose input is scaled at each call."""

    def __init__(self, before: int, after: int, kernel: int = 3):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(before, after, kernel, padding=kernel // 2), (2 / before / kernel**2) ** 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x * (3 * self.scale))


class Blur(nn.Module):
    """A constant kernel over each channel by itself."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("kernel", torch.zeros(1, 1, 3, 3))
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.kernel.repeat(self.channels, 1, 1, 1), padding=1, groups=self.channels)


class Mlp(nn.Sequential):
    def __init__(self, width: int, hidden: int, approximate: str = "none"):
        super().__init__(nn.Linear(width, hidden), nn.GELU(approximate), nn.Linear(hidden, width))
