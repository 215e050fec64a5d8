"""Decoders of autoencoders, and convolutions with gates, norms and skips of all kinds."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.generators import Case
from tests.support.layers import Residual

from .parts import case, sequential


class ResnetBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, before, eps=1e-6), nn.GroupNorm(2, after, eps=1e-6)
        self.conv1, self.conv2 = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class AttentionBlock(nn.Module):
    """Attention over positions, by convolutions of 1 x 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.out = nn.GroupNorm(2, channels, eps=1e-6), nn.Conv2d(channels, channels, 1)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for f in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.squeeze(1).transpose(1, 2).reshape(x.shape))


class KlDecoder(nn.Module):
    """The decoder of latent diffusion's autoencoder (Rombach et al., 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 0.18215
        self.post_quant, self.first = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.middle = nn.Sequential(ResnetBlock(4, 4), AttentionBlock(4), ResnetBlock(4, 4))
        self.up = nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), nn.Conv2d(4, 4, 3, padding=1))
        self.last = nn.Sequential(ResnetBlock(4, 6), nn.GroupNorm(3, 6), nn.SiLU(), nn.Conv2d(6, 3, 3, padding=1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        image = self.last(self.up(self.middle(self.first(self.post_quant(z / self.scale)))))
        return image.clamp(-3.0, 3.0)


class UShaped(nn.Module):
    """A U-Net from a map to an image: what goes down is concatenated to what comes up, cropped where it is larger."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 5, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose2d(5, 4, 2, 2), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        first = F.leaky_relu(self.down1(z), 0.1)
        up = self.up(F.leaky_relu(self.down2(first), 0.1))
        up = up[:, :, : z.shape[2], : z.shape[3]]
        return torch.tanh(self.last(torch.cat([first, up], dim=1)))


class SqueezeExcite(nn.Module):
    """Each channel gated by what two layers make of all means (Hu et al., 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce, self.grow = nn.Linear(channels, 2), nn.Linear(2, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.grow(F.relu(self.reduce(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class PooledExcite(nn.Module):
    """The same, by pooling and convolutions of 1 x 1."""

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 2, 1), nn.SiLU(), nn.Conv2d(2, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


class Film(nn.Module):
    """Maps scaled and shifted by the latent (Perez et al., 2018), of which a part starts them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gains = nn.Linear(2, 3 * 9), nn.ModuleList([nn.Linear(4, 6), nn.Linear(4, 6)])
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        start, given = z[:, :2], z[:, 2:]
        h = self.first(start).view(-1, 3, 3, 3)
        for conv, gain in zip(self.convs, self.gains, strict=True):
            gamma, beta = gain(given).view(-1, 2, 3, 1, 1).unbind(1)
            h = h + F.relu(gamma * conv(h) + beta)
        return torch.tanh(h)


class Implicit(nn.Module):
    """A colour for each coordinate: a grid and the latent, concatenated at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.zeros(20, 2))
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 3), nn.Sigmoid())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        positions = self.grid.unsqueeze(0).expand(z.shape[0], -1, -1)
        latent = z.unsqueeze(1).expand(-1, positions.shape[1], -1)
        return self.net(torch.cat([positions, latent], -1)).transpose(1, 2).unflatten(2, (4, 5))


class Broadcast(nn.Module):
    """The spatial broadcast decoder (Watters et al., 2019): a latent at all positions, and coordinates as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 2, 3, padding=1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        like = {"dtype": z.dtype, "device": z.device}
        rows, columns = torch.meshgrid(
            torch.linspace(-1, 1, 5, **like), torch.linspace(-1, 1, 4, **like), indexing="ij"
        )
        b = z.size(0)
        h = z.view(b, -1, 1, 1).expand(-1, -1, 5, 4)
        return self.net(torch.cat((rows.expand(b, 1, 5, 4), columns.expand(b, 1, -1, -1), h), dim=1))


class ConvNext(nn.Module):
    """ConvNeXt's block (Liu et al., 2022; Woo et al., 2023): depthwise, then linear layers over channels last."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm, self.grow, self.reduce = nn.LayerNorm(channels), nn.Linear(channels, 7), nn.Linear(7, channels)
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 1, 1, 7)), nn.Parameter(torch.zeros(1, 1, 1, 7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.gelu(self.grow(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
        size = torch.norm(h, p=2, dim=(1, 2), keepdim=True)
        h = self.gamma * (h * (size / (size.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + h
        return x + self.reduce(h).permute(0, 3, 1, 2)


class InRange(nn.Module):
    """A generator of images in [0, 1], wrapped so that they are in [-1, 1]."""

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.generator(z).clamp(0, 1) * 2 - 1


class Gaussian(nn.Module):
    """The decoder of a VAE with a learned variance, at the fixed noise of one draw."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2 * 12)
        self.register_buffer("noise", torch.zeros(1, 3, 4))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        mean, log_variance = self.net(z).view(-1, 2, 3, 4).split(1, dim=1)
        width = torch.log(1 + torch.exp(0.5 * log_variance).abs())
        return mean + width * self.noise


def families() -> list[Case]:
    return [
        case("KL autoencoder", 80, (4, 4, 4), (3, 8, 8), KlDecoder()),
        sequential(
            "MONAI decoder", 81, (5,), (2, 9, 8),
            nn.Linear(5, 3 * 6), nn.Unflatten(1, (3, 3, 2)), nn.InstanceNorm2d(3), nn.PReLU(),
            nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(4, affine=True), nn.PReLU(4),
            nn.ZeroPad2d((1, 2, 0, 1)), Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.PReLU())),
            nn.ConstantPad2d((1, 0, 1, 1), 0.5), nn.Conv2d(4, 2, 1),
        ),
        case("U-shaped", 82, (2, 5, 7), (3, 5, 7), UShaped()),
        sequential(
            "LayerNorm and convolutions", 83, (5,), (1, 8, 6),
            nn.Linear(5, 24), nn.LayerNorm(24), nn.ReLU(), nn.Unflatten(1, (4, 3, 2)), nn.ConvTranspose2d(4, 3, 2, 1),
            nn.LayerNorm([3, 4, 3]), nn.ReLU(), nn.ConvTranspose2d(3, 2, 4, 2, 1), nn.GroupNorm(1, 2),
            nn.LeakyReLU(0.2), nn.Conv2d(2, 1, 3, padding=1), nn.Tanh(),
        ),
        sequential(
            "squeeze and excite", 84, (5,), (2, 4, 4),
            nn.Linear(5, 4 * 4), nn.Unflatten(1, (4, 2, 2)), SqueezeExcite(4), nn.Upsample(scale_factor=2),
            nn.Conv2d(4, 3, 3, padding=1), nn.Hardswish(), PooledExcite(3), nn.Conv2d(3, 2, 1),
        ),
        case("FiLM", 85, (6,), (3, 3, 3), Film()),
        case("implicit", 86, (4,), (3, 4, 5), Implicit()),
        case("spatial broadcast", 87, (4,), (2, 5, 4), Broadcast()),
        sequential(
            "ConvNeXt", 88, (5,), (2, 4, 6),
            nn.Linear(5, 3 * 6), nn.Unflatten(1, (3, 2, 3)), ConvNext(3), nn.Upsample(scale_factor=2, mode="bilinear"),
            ConvNext(3), nn.Conv2d(3, 2, 1), nn.Tanh(),
        ),
        case(
            "images from 0 to 1", 89, (4,), (1, 5, 5),
            InRange(nn.Sequential(nn.Linear(4, 25), nn.Sigmoid(), nn.Unflatten(1, (1, 5, 5)))),
        ),
        case("learned variance", 90, (4,), (1, 3, 4), Gaussian()),
    ]  # fmt: skip
