"""Style-based generators: what they draw is scaled by what a mapping network makes of the latent."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.generators import Case

from .parts import Blur, EqualisedLinear, PixelNorm, case


class Noise(nn.Module):
    """Fixed noise, scaled by a learned number for each channel."""

    def __init__(self, channels: int, size: int):
        super().__init__()
        self.register_buffer("noise", torch.zeros(1, 1, size, size))
        self.strength = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.strength.view(1, -1, 1, 1) * self.noise


class AdaIn(nn.Module):
    """Instance norm, with gain and bias of a style (Huang & Belongie, 2017)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm, self.style = nn.InstanceNorm2d(channels), EqualisedLinear(width, 2 * channels)

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        gain, bias = self.style(w).unsqueeze(2).unsqueeze(3).chunk(2, dim=1)
        return (gain + 1) * self.norm(x) + bias


class StyleGan(nn.Module):
    """StyleGAN (Karras et al., 2019), its styles drawn towards their mean (truncation)."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            PixelNorm(), EqualisedLinear(5, 6), nn.LeakyReLU(0.2), EqualisedLinear(6, 6), nn.LeakyReLU(0.2)
        )
        self.register_buffer("mean_style", torch.zeros(6))
        self.constant = nn.Parameter(torch.zeros(1, 4, 4, 4))
        self.conv, self.blur, self.to_rgb = nn.Conv2d(4, 3, 3, padding=1), Blur(3), nn.Conv2d(3, 3, 1)
        self.noises = nn.ModuleList([Noise(4, 4), Noise(3, 8)])
        self.styles = nn.ModuleList([AdaIn(4, 6), AdaIn(3, 6)])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        w = self.mean_style.lerp(self.mapping(z), 0.7)
        h = self.constant.expand(z.shape[0], -1, -1, -1)
        h = self.styles[0](F.leaky_relu(self.noises[0](h), 0.2), w)
        h = self.blur(self.conv(F.interpolate(h, scale_factor=2, mode="nearest")))
        h = self.styles[1](F.leaky_relu(self.noises[1](h), 0.2), w)
        return self.to_rgb(h)


class ScaledConv(nn.Module):
    """StyleGAN2's convolution (Karras et al., 2020): by scaling what goes in and what comes out, or its kernel."""

    def __init__(self, before: int, after: int, modulated: bool, kernel: int = 3):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(after, before, kernel, kernel))
        self.style, self.modulated = nn.Linear(5, before), modulated

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        style, padding = 1 + self.style(w), self.weight.shape[-1] // 2
        if not self.modulated:
            size = torch.rsqrt(F.linear(style.square(), self.weight.square().sum(dim=[2, 3])) + 1e-8)
            return F.conv2d(x * style[..., None, None], self.weight, padding=padding) * size[..., None, None]
        b, c, height, width = x.shape
        kernels = self.weight[None] * style[:, None, :, None, None]
        kernels = kernels * torch.rsqrt(kernels.square().sum([2, 3, 4], keepdim=True) + 1e-8)
        made = F.conv2d(x.reshape(1, b * c, height, width), kernels.flatten(0, 1), padding=padding, groups=b)
        return made.reshape(b, -1, height, width)


class StyleGan2(nn.Module):
    """Images of each resolution added up, each made larger by bilinear interpolation, or by zeros and a blur."""

    def __init__(self, modulated: bool = False):
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(5, 5), nn.LeakyReLU(0.2))
        self.constant = nn.Parameter(torch.zeros(1, 4, 3, 3))
        self.convs = nn.ModuleList(ScaledConv(4, 4, modulated) for _ in range(3))
        self.to_rgb = nn.ModuleList(nn.Conv2d(4, 3, 1) for _ in range(3))
        self.blur = Blur(3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        w = self.mapping(z)
        h = self.constant.repeat(z.shape[0], 1, 1, 1)
        image = self.to_rgb[0](F.leaky_relu(self.convs[0](h, w), 0.2) * 2**0.5)
        h = F.interpolate(h * w[:, :4, None, None], scale_factor=2, mode="bilinear", align_corners=False)
        image = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
        h = F.leaky_relu(self.convs[1](h, w), 0.2)
        image = image + self.to_rgb[1](h)
        b, c, height, width = image.shape
        spread = F.pad(image.reshape(b, c, height, 1, width, 1), [0, 1, 0, 0, 0, 1])
        image = self.blur(spread.reshape(b, c, 2 * height, 2 * width))
        h = F.leaky_relu(self.convs[2](F.interpolate(h, scale_factor=2), w), 0.2)
        return image + self.to_rgb[2](h)


def families() -> list[Case]:
    return [
        case("StyleGAN", 40, (5,), (3, 8, 8), StyleGan()),
        case("StyleGAN2", 41, (5,), (3, 12, 12), StyleGan2()),
    ]


def refused() -> list[Case]:
    """Kernels that depend on the latent."""
    return [case("StyleGAN2 with modulated kernels", 42, (5,), (3, 12, 12), StyleGan2(modulated=True))]
