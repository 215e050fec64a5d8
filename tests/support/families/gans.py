"""Residual, conditional and multi-scale GANs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm as spectral_norm_hook
from torch.nn.utils.parametrizations import spectral_norm

from tests.support.generators import Case

from .parts import EqualisedConv, PixelNorm, case, sequential


class Progressive(nn.Module):
    """Progressive GAN (Karras et al., 2018), while its last resolution fades in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first = PixelNorm(), nn.ConvTranspose2d(6, 5, 4)
        self.second, self.third = EqualisedConv(5, 5), EqualisedConv(5, 4)
        self.to_small, self.to_large = EqualisedConv(5, 3, 1), EqualisedConv(4, 3, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.norm(z).view(z.size(0), -1, 1, 1)
        h = self.norm(F.leaky_relu(self.first(h), 0.2))
        h = self.norm(F.leaky_relu(self.second(h), 0.2))
        h = F.interpolate(h, scale_factor=2, mode="nearest")
        large = self.to_large(self.norm(F.leaky_relu(self.third(h), 0.2)))
        return torch.lerp(self.to_small(h), large, 0.7)


class UpBlock(nn.Module):
    """SNGAN's residual block (Miyato et al., 2018), with a bilinear shortcut."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1, self.conv2 = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Conv2d(before, after, 1)

    @staticmethod
    def enlarged(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(self.enlarged(F.relu(self.norm1(x))))
        return self.conv2(F.relu(self.norm2(h))) + self.shortcut(self.enlarged(x))


class SelfAttention(nn.Module):
    """SAGAN's (Zhang et al., 2019), by bmm."""

    def __init__(self, channels: int):
        super().__init__()
        self.query, self.key = (spectral_norm(nn.Conv2d(channels, 2, 1)) for _ in range(2))
        self.value = spectral_norm(nn.Conv2d(channels, channels, 1))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, h, w = x.size()
        query = self.query(x).view(b, -1, h * w).permute(0, 2, 1)
        attention = torch.softmax(torch.bmm(query, self.key(x).view(b, -1, h * w)), dim=-1)
        out = torch.bmm(self.value(x).view(b, -1, h * w), attention.permute(0, 2, 1))
        return self.gamma * out.view(b, c, h, w) + x


class ConditionalNorm(nn.Module):
    """Batch norm whose gain and bias are made of a class and a part of the latent."""

    def __init__(self, channels: int, given: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = spectral_norm_hook(nn.Linear(given, channels, bias=False))
        self.bias = spectral_norm_hook(nn.Linear(given, channels, bias=False))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gain, bias = (1 + self.gain(y))[:, :, None, None], self.bias(y).view(y.size(0), -1, 1, 1)
        return self.norm(x) * gain + bias


class BigGan(nn.Module):
    """BigGAN (Brock et al., 2019): a chunk of the latent for each block, and one shared embedding of the class."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(5, 4)
        self.register_buffer("label", torch.tensor([3]))
        self.linear = spectral_norm_hook(nn.Linear(2, 4 * 9))
        self.norms = nn.ModuleList([ConditionalNorm(4, 6), ConditionalNorm(4, 7)])
        self.convs = nn.ModuleList([spectral_norm_hook(nn.Conv2d(4, 4, 3, padding=1)) for _ in range(2)])
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        first, *chunks = torch.split(z, [2, 2, 3], 1)
        y = self.shared(self.label).expand(z.size(0), -1)
        h = self.linear(first).view(-1, 4, 3, 3)
        for chunk, norm, conv in zip(chunks, self.norms, self.convs, strict=True):
            h = h + conv(F.relu(norm(h, torch.cat([y, chunk], 1))))
        return torch.tanh(self.last(F.interpolate(h, scale_factor=2)))


class Conditional(nn.Module):
    """A conditional DCGAN of one class: embedded, or one-hot; concatenated with the latent or multiplied by it."""

    def __init__(self, form: str):
        super().__init__()
        self.form = form
        self.embedding = nn.Embedding(7, 4)
        self.net = nn.Sequential(
            nn.Linear({"concatenated": 8, "multiplied": 4, "one-hot": 11}[form], 3 * 9),
            nn.Unflatten(1, (3, 3, 3)), nn.BatchNorm2d(3), nn.ReLU(), nn.ConvTranspose2d(3, 2, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        label = torch.full((z.shape[0],), 5, dtype=torch.long, device=z.device)
        match self.form:
            case "concatenated":
                h = torch.cat([z, self.embedding(label)], dim=-1)
            case "multiplied":
                h = torch.mul(self.embedding(label), z)
            case _:
                h = torch.cat((z, F.one_hot(label, 7).to(z.dtype)), 1)
        return self.net(h)


class Began(nn.Module):
    """BEGAN's decoder (Berthelot et al., 2017): ELU, nearest, and the first map once more at each scale."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.convs = nn.Linear(5, 4 * 4), nn.ModuleList()
        self.convs.extend(nn.Conv2d(channels, 4, 3, padding=1) for channels in (4, 8, 8))
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h0 = h = self.linear(z).view(-1, 4, 2, 2)
        for i, conv in enumerate(self.convs):
            h = F.elu(conv(h))
            if i < 2:
                h = F.interpolate(h, scale_factor=2, mode="nearest")
                h = torch.cat((h, F.interpolate(h0, size=h.shape[-2:], mode="nearest")), dim=1)
        return self.last(h)


class Laplacian(nn.Module):
    """LAPGAN (Denton et al., 2015): each scale adds to the image of the one before it, made larger."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.seed = nn.Linear(5, 9), nn.Linear(5, 36)
        self.residuals = nn.ModuleList([nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)])

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        image = self.coarse(z).reshape(-1, 1, 3, 3)
        noise = torch.relu(self.seed(z)).reshape(-1, 1, 6, 6)
        for i, residual in enumerate(self.residuals):
            large = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=True)
            image = large + residual(torch.stack([large, noise], 2).flatten(1, 2) if i == 0 else large)
        return image.tanh()


def families() -> list[Case]:
    attention = SelfAttention(4)
    return [
        case("progressive GAN", 20, (6,), (3, 8, 8), Progressive()),
        sequential(
            "SNGAN", 21, (5,), (3, 8, 8),
            nn.Linear(5, 4 * 4), nn.Unflatten(1, (4, 2, 2)), UpBlock(4, 4), UpBlock(4, 3), nn.BatchNorm2d(3), nn.ReLU(),
            nn.Conv2d(3, 3, 3, padding=1), nn.Tanh(),
        ),
        sequential(
            "SAGAN", 22, (5, 1, 1), (2, 8, 8),
            spectral_norm(nn.ConvTranspose2d(5, 4, 4)), nn.BatchNorm2d(4), nn.ReLU(), attention,
            spectral_norm(nn.ConvTranspose2d(4, 2, 4, 2, 1)), nn.Tanh(),
        ),
        case("BigGAN", 23, (7,), (3, 6, 6), BigGan()),
        *(case(f"conditional, {form}", 24, (4,), (2, 6, 6), Conditional(form))
          for form in ("concatenated", "multiplied", "one-hot")),
        sequential(
            "StackGAN", 25, (6,), (3, 8, 8),
            nn.Linear(6, 2 * 4 * 4), nn.BatchNorm1d(32), nn.GLU(), nn.Unflatten(1, (4, 2, 2)),
            nn.Upsample(scale_factor=2), nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.GLU(1),
            nn.Upsample(scale_factor=2), nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GLU(dim=-3),
            nn.Conv2d(4, 3, 3, padding=1), nn.Tanh(),
        ),
        case("BEGAN", 26, (5,), (3, 8, 8), Began()),
        case("LAPGAN", 27, (5,), (1, 12, 12), Laplacian()),
    ]  # fmt: skip
