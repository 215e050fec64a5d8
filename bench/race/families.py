"""Generators of other families than DCGAN, at usual widths for 32×32: written from the papers' descriptions.

Random weights as PyTorch draws them, batch-norm statistics of samples; none has more than two million parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class Family(NamedTuple):
    """A generator with its latent's shape and its images' channels; 32×32 pixels."""

    make: Callable[[], nn.Module]
    latent_shape: tuple[int, ...]
    channels: int


class PixelNorm(nn.Module):
    """Each position's channels to a mean square of one (Karras et al., 2018)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Scaled(nn.Module):
    """A layer with the equalised learning rate of Karras et al., 2018: weights of unit variance, scaled as they run."""

    def __init__(self, layer: nn.Module, fan_in: int) -> None:
        super().__init__()
        nn.init.normal_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.layer, self.scale = layer, (2 / fan_in) ** 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(x * self.scale)
        return made


def progressive() -> nn.Module:
    """A progressive GAN's last stage: nearest upsampling, pairs of convolutions, pixel norm."""
    widths = [128, 128, 64, 32]
    layers: list[nn.Module] = [
        PixelNorm(), nn.Unflatten(1, (128, 1, 1)), Scaled(nn.ConvTranspose2d(128, 128, 4), 128),
        nn.LeakyReLU(0.2), PixelNorm(),
    ]  # fmt: skip
    for before, after in itertools.pairwise(widths):
        layers.append(nn.Upsample(scale_factor=2))
        for c in (before, after):
            layers += [Scaled(nn.Conv2d(c, after, 3, padding=1), 9 * c), nn.LeakyReLU(0.2), PixelNorm()]
    return nn.Sequential(*layers, Scaled(nn.Conv2d(32, 3, 1), 32), nn.Tanh())


class UpBlock(nn.Module):
    """SNGAN's residual block: batch norm, ReLU, bilinear upsampling, convolutions (Miyato et al., 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])
        self.convs = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.convs[0](larger(F.relu(self.norms[0](x))))
        made: torch.Tensor = self.convs[1](F.relu(self.norms[1](h))) + self.shortcut(larger(x))
        return made


def larger(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def sngan() -> nn.Module:
    """SNGAN's ResNet for 32×32, with 128 channels (the paper's has 256)."""
    return nn.Sequential(
        nn.Linear(128, 128 * 16), nn.Unflatten(1, (128, 4, 4)), UpBlock(128), UpBlock(128), UpBlock(128),
        nn.BatchNorm2d(128), nn.ReLU(), nn.Conv2d(128, 3, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


class Attention(nn.Module):
    """Self-attention over positions, with queries and keys of fewer channels (Zhang et al., 2019)."""

    def __init__(self, width: int, inner: int, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.query, self.key = nn.Conv2d(width, inner, 1), nn.Conv2d(width, inner, 1)
        self.value, self.out = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.gain = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2) for conv in (self.query, self.key, self.value))
        weights = torch.softmax(torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5, -1)
        seen = torch.bmm(v, weights.transpose(1, 2)).view_as(x)
        return x + self.gain * self.out(seen)


def sagan() -> nn.Module:
    """SAGAN for 32×32: transposed convolutions, attention at 16×16; its spectral norms put into the weights."""

    def up(before: int, after: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]

    return nn.Sequential(
        nn.Unflatten(1, (128, 1, 1)), nn.ConvTranspose2d(128, 256, 4), nn.BatchNorm2d(256), nn.ReLU(),
        *up(256, 128), *up(128, 64), Attention(64, 8), nn.ConvTranspose2d(64, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


class NormBlock(nn.Module):
    """The residual block of KL autoencoders: group norm, SiLU, convolution, twice."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = nn.GroupNorm(32, before), nn.GroupNorm(32, after)
        self.convs = nn.ModuleList([nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)])
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.convs[1](F.silu(self.second(self.convs[0](F.silu(self.first(x))))))
        made: torch.Tensor = self.shortcut(x) + h
        return made


def kl_decoder() -> nn.Module:
    """The decoder of a KL autoencoder (Rombach et al., 2022): latents (4, 8, 8), attention in the middle."""
    return nn.Sequential(
        nn.Conv2d(4, 128, 3, padding=1), NormBlock(128, 128), Attention(128, 128, nn.GroupNorm(32, 128)),
        NormBlock(128, 128), nn.Upsample(scale_factor=2), nn.Conv2d(128, 128, 3, padding=1), NormBlock(128, 64),
        nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1), NormBlock(64, 64), nn.GroupNorm(32, 64),
        nn.SiLU(), nn.Conv2d(64, 3, 3, padding=1),
    )  # fmt: skip


def instance_norm() -> nn.Module:
    """A medical autoencoder's decoder: transposed convolutions, instance norm, PReLU."""

    def up(before: int, after: int) -> list[nn.Module]:
        return [
            nn.ConvTranspose2d(before, after, 3, 2, 1, 1), nn.InstanceNorm2d(after, affine=True), nn.PReLU(),
            nn.Conv2d(after, after, 3, padding=1), nn.InstanceNorm2d(after, affine=True), nn.PReLU(),
        ]  # fmt: skip

    return nn.Sequential(
        nn.Linear(64, 128 * 16), nn.Unflatten(1, (128, 4, 4)), *up(128, 64), *up(64, 32), *up(32, 16),
        nn.Conv2d(16, 1, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


class StyleBlock(nn.Module):
    """A convolution, then instance norm with scale and shift of the style: AdaIN (Karras et al., 2019)."""

    noise: torch.Tensor

    def __init__(self, before: int, after: int, size: int, style: int = 128) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(before, after, 3, padding=1), nn.InstanceNorm2d(after)
        self.style, self.weight = nn.Linear(style, 2 * after), nn.Parameter(torch.full((1, after, 1, 1), 0.1))
        self.register_buffer("noise", torch.randn(1, 1, size, size))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        h = self.norm(F.leaky_relu(self.conv(x) + self.weight * self.noise, 0.2))
        scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
        return h * (1 + scale) + shift


class StyleGenerator(nn.Module):
    """StyleGAN's generator for 32×32: a mapping network, a learned constant, AdaIN, noise that is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            PixelNorm(), *[m for _ in range(4) for m in (nn.Linear(128, 128), nn.LeakyReLU(0.2))]
        )
        self.constant = nn.Parameter(torch.randn(1, 128, 4, 4))
        shapes = [(128, 128, 4), (128, 128, 8), (128, 64, 16), (64, 32, 32)]
        self.blocks = nn.ModuleList([StyleBlock(*shape) for shape in shapes])
        self.out = nn.Conv2d(32, 3, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        w, x = self.mapping(z), self.constant.expand(len(z), -1, -1, -1)
        for i, block in enumerate(self.blocks):
            x = block(larger(x) if i else x, w)
        return torch.tanh(self.out(x))


def leaky() -> nn.Module:
    """A DCGAN whose activations are LeakyReLUs, as many public ones have them."""

    def up(before: int, after: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]

    return nn.Sequential(
        nn.Unflatten(1, (100, 1, 1)), nn.ConvTranspose2d(100, 256, 4), nn.BatchNorm2d(256), nn.LeakyReLU(0.2),
        *up(256, 128), *up(128, 64), nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def silu_decoder() -> nn.Module:
    """A decoder of plain convolutions: batch norm, SiLU, nearest upsampling."""

    def up(before: int, after: int) -> list[nn.Module]:
        return [
            nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.SiLU(),
        ]  # fmt: skip

    return nn.Sequential(
        nn.Linear(128, 128 * 16), nn.SiLU(), nn.Unflatten(1, (128, 4, 4)), *up(128, 128), *up(128, 64), *up(64, 32),
        nn.Conv2d(32, 3, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


def elu_generator() -> nn.Module:
    """Transposed convolutions and ELUs without any norm."""

    def up(before: int, after: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ELU()]

    return nn.Sequential(
        nn.Linear(64, 128 * 16), nn.ELU(), nn.Unflatten(1, (128, 4, 4)), *up(128, 64), *up(64, 32),
        nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


FAMILIES = {
    "progressive32x3": Family(progressive, (128,), 3),
    "sngan32x3": Family(sngan, (128,), 3),
    "sagan32x3": Family(sagan, (128,), 3),
    "kl32x3": Family(kl_decoder, (4, 8, 8), 3),
    "instance32x1": Family(instance_norm, (64,), 1),
    "style32x3": Family(StyleGenerator, (128,), 3),
    "leaky32x1": Family(leaky, (100,), 1),
    "silu32x3": Family(silu_decoder, (128,), 3),
    "elu32x1": Family(elu_generator, (64,), 1),
}
"""By the name of the case."""


def made(name: str) -> nn.Module:
    """The generator of a name in FAMILIES, deterministic, in eval mode."""
    family = FAMILIES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gen = family.make()
    collect_statistics(gen, family.latent_shape, torch.Generator().manual_seed(0))
    return gen.eval()


def collect_statistics(gen: nn.Module, latent_shape: tuple[int, ...], random: torch.Generator) -> None:
    """Set the running statistics of batch norms to those of 1,024 samples of the prior."""
    norms = [module for module in gen.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the plain average of all batches
    gen.train()
    with torch.no_grad():
        for _ in range(8 if norms else 0):
            gen(torch.randn(128, *latent_shape, generator=random))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
