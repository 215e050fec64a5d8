"""DCGANs and their like: linear layers, convolutions, batch norm, activations, upsampling."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from adgan_fast import models
from tests.support.generators import Case
from tests.support.layers import Affine, Constant, Divided, Function, Learned, Residual, randomise

from .parts import sequential


def dcgan(image_size: int, channels: int, latent: int, width: int) -> Case:
    module = randomise(models.DCGANGenerator(image_size, channels, latent, width), image_size)
    return Case(module, (latent,), (channels, image_size, image_size), f"DCGAN of {image_size}")


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


def families() -> list[Case]:
    return [
        dcgan(8, 1, 5, 3),
        dcgan(16, 3, 7, 3),
        dcgan(28, 1, 6, 2),
        dcgan(32, 3, 8, 2),
        sequential(
            "VAE decoder", 1, (4,), (1, 7, 9),
            nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 63), nn.Sigmoid(),
            nn.Unflatten(1, (1, 7, 9)),
        ),
        sequential(
            "upsample and convolve", 2, (6,), (3, 12, 12),
            nn.Linear(6, 5 * 9), nn.Unflatten(1, (5, 3, 3)), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(5, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, padding=1), nn.Tanh(),
        ),
        sequential(
            "pixel shuffle", 3, (5,), (1, 12, 8),
            nn.Linear(5, 4 * 6), nn.Unflatten(1, (4, 3, 2)), nn.ELU(), nn.Conv2d(4, 12, 3, padding=1),
            nn.PixelShuffle(2), nn.SiLU(), nn.Conv2d(3, 4, 3, padding=1), nn.PixelShuffle(2), nn.Tanh(),
        ),
        sequential(
            "residual", 4, (6, 1, 1), (2, 8, 8),
            nn.ConvTranspose2d(6, 4, 4), nn.BatchNorm2d(4),
            Residual(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))),
            nn.ReLU(inplace=True), nn.ConvTranspose2d(4, 2, 4, 2, 1), nn.Tanh(),
        ),
        sequential(
            "LSGAN", 5, (7,), (1, 14, 14),
            nn.Linear(7, 4 * 49), nn.BatchNorm1d(4 * 49), nn.ReLU(), nn.Unflatten(1, (4, 7, 7)),
            nn.ConvTranspose2d(4, 3, 5, 1, 2), nn.BatchNorm2d(3), nn.ReLU(),
            nn.ConvTranspose2d(3, 3, 5, 2, 2, output_padding=1), nn.BatchNorm2d(3), nn.ReLU(),
            nn.ConvTranspose2d(3, 1, 5, 1, 2), nn.Tanh(),
        ),
        sequential(
            "groups", 6, (6, 1, 1), (3, 7, 9),
            nn.ConvTranspose2d(6, 6, (3, 4), groups=3), nn.SiLU(), nn.ConvTranspose2d(6, 4, 3, 2, 1, groups=2),
            nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=(2, 2), groups=2), nn.Tanh(),
            nn.Conv2d(6, 3, 1, groups=3), nn.Tanh(),
        ),
        sequential(
            "dilation and output padding", 7, (5,), (2, 17, 14),
            nn.Linear(5, 12), nn.Unflatten(1, (3, 2, 2)), nn.Softplus(),
            nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1, dilation=2), nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(4, 3, 2, 3, 2, output_padding=(2, 1)), nn.Sigmoid(),
            nn.Conv2d(3, 2, 3, padding=2, dilation=(1, 2)), nn.Tanh(),
        ),
        sequential(
            "output padding not below the stride", 8, (4, 1, 1), (2, 5, 6),
            nn.ConvTranspose2d(4, 3, 2, 2, 0, output_padding=(1, 2), dilation=3), nn.Tanh(),
            nn.ConvTranspose2d(3, 2, 1), nn.Tanh(),
        ),
        sequential(
            "kernel smaller than the stride", 13, (4, 1, 1), (2, 8, 9),
            nn.ConvTranspose2d(4, 3, 1, 2, output_padding=1), nn.Sigmoid(), nn.ConvTranspose2d(3, 3, (1, 2), 3),
            nn.ReLU(), nn.Conv2d(3, 4, 1, padding=1), nn.Tanh(), nn.ConvTranspose2d(4, 2, 3, padding=(0, 0)), nn.Tanh(),
        ),
        Case(randomise(TiedDecoder(), 9), (6,), (3, 6, 6), "tied weights"),
        sequential(
            "scalings and constants", 10, (5,), (2, 5, 5),
            nn.Linear(5, 18), nn.Unflatten(1, (2, 3, 3)), Affine(0.5, 0.3), Constant((2, 3, 3)), nn.ReLU(),
            nn.ConvTranspose2d(2, 2, 3), nn.Tanh(), Affine(-0.75, 0.1),
        ),
        sequential(
            "learned image", 11, (5,), (3, 4, 6),
            nn.Linear(5, 3 * 24), nn.Unflatten(1, (3, 4, 6)), Learned((3, 4, 6)), nn.Tanh(),
            nn.Conv2d(3, 3, 3, padding=1, bias=False), Learned((3, 4, 6)), nn.Tanh(),
        ),
        Case(randomise(StyleLike(), 12), (4,), (3, 3, 3), "learned constant input"),
        sequential(
            "division", 14, (5,), (2, 5, 5),
            nn.Linear(5, 18), nn.Unflatten(1, (2, 3, 3)), Divided(2), nn.ReLU(), nn.ConvTranspose2d(2, 2, 3), nn.Tanh(),
        ),
        sequential(
            "SIREN", 15, (5,), (2, 7, 5),
            nn.Linear(5, 18), Affine(3.0, 0.2), Function(torch.sin), nn.Unflatten(1, (2, 3, 3)),
            nn.ConvTranspose2d(2, 3, 3), Function(torch.sin), nn.Conv2d(3, 2, (1, 3), padding=(1, 1)),
            nn.BatchNorm2d(2), Function(torch.sin),
        ),
    ]  # fmt: skip
