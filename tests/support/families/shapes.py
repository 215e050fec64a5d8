"""One kind of layer at a time: edges, sizes, norms, activations, weights that are computed."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm as deprecated_weight_norm
from torch.nn.utils.parametrizations import weight_norm

from tests.support.generators import Case

from .parts import case, sequential


def weight_norm_hook(layer: nn.Module, dim: int | None = 0) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return deprecated_weight_norm(layer, dim=dim)


class Norms(nn.Module):
    """Batch norm by the statistics of the image itself, and RMSNorm, of the module's own and written out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(5, 3 * 12), nn.BatchNorm2d(3, track_running_stats=False)
        self.rms, self.weight = nn.RMSNorm(4, eps=1e-5), nn.Parameter(torch.zeros(3, 1, 1))
        self.last = nn.Conv2d(3, 2, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.first(z).view(-1, 3, 3, 4))
        h = self.rms(h.sigmoid())
        h = h / (h.pow(2).mean(-3, keepdim=True) + 1e-3).sqrt() * (1 + self.weight)
        mean, var = h.mean((2, 3), keepdim=True), h.var((2, 3), keepdim=True, unbiased=False)
        return self.last((h - mean) / torch.sqrt(var + 0.1))


class ResizeTwice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = F.interpolate(x, size=(7, 5), mode="bicubic", align_corners=False)
        return F.interpolate(large, scale_factor=(1.5, 0.7), mode="bilinear", antialias=True)


def families() -> list[Case]:
    return [
        sequential(
            "nearest of odd sizes", 100, (5,), (2, 8, 9),
            nn.Linear(5, 3 * 6), nn.Unflatten(1, (3, 2, 3)), nn.Upsample(size=(5, 7)), nn.Conv2d(3, 3, 3, padding=1),
            nn.ReLU(), nn.Upsample(scale_factor=(1.7, 1.3)), nn.Conv2d(3, 2, 3, padding=1), nn.Tanh(),
        ),
        sequential(
            "other edges", 101, (5,), (2, 6, 7),
            nn.Linear(5, 3 * 12), nn.Unflatten(1, (3, 3, 4)), nn.ReflectionPad2d((1, 2, 2, 0)), nn.Conv2d(3, 3, 3),
            nn.ReLU(), nn.ReplicationPad2d(1), nn.Conv2d(3, 4, (1, 3), padding=(1, 1), padding_mode="circular"),
            nn.SiLU(), nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(2, 2, 3, padding="same", padding_mode="replicate"), nn.ConstantPad2d((0, 0, -1, 0), 0.0),
        ),
        sequential(
            "average pooling", 102, (5,), (2, 5, 4),
            nn.Linear(5, 3 * 20), nn.Unflatten(1, (3, 4, 5)), nn.AvgPool2d(3, 1, 1, count_include_pad=False),
            nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 3, padding=1), nn.LeakyReLU(0.2), nn.AvgPool2d(2, 2),
            nn.AdaptiveAvgPool2d((5, 4)),
        ),
        sequential(
            "resized", 103, (4,), (2, 10, 3),
            nn.Linear(4, 24), nn.Unflatten(1, (2, 4, 3)), nn.Conv2d(2, 2, 3, padding=1), nn.Tanh(), ResizeTwice(),
        ),
        sequential(
            "hard activations", 104, (5,), (2, 4, 4),
            nn.Linear(5, 9), nn.Hardswish(), nn.Linear(9, 12), nn.Mish(), nn.Linear(12, 3 * 4), nn.Hardtanh(-1.5, 2.0),
            nn.Unflatten(1, (3, 2, 2)), nn.ConvTranspose2d(3, 3, 2, 2), nn.ReLU6(), nn.Conv2d(3, 4, 1), nn.SELU(),
            nn.Conv2d(4, 4, 1), nn.CELU(0.7), nn.Conv2d(4, 3, 1), nn.LogSigmoid(), nn.Conv2d(3, 2, 1),
            nn.Hardsigmoid(),
        ),
        sequential(
            "other activations", 105, (5,), (1, 3, 4),
            nn.Linear(5, 9), nn.Softsign(), nn.Linear(9, 9), nn.Tanhshrink(), nn.Linear(9, 8), nn.GELU(),
            nn.Linear(8, 8), nn.GELU("tanh"), nn.Linear(8, 12), nn.Softmax(-1), nn.Unflatten(1, (1, 3, 4)),
        ),
        case("norms of the image itself", 106, (5,), (2, 3, 4), Norms()),
        sequential(
            "weight norm", 107, (5,), (2, 4, 4),
            weight_norm(nn.Linear(5, 12)), nn.ReLU(), nn.Unflatten(1, (3, 2, 2)),
            weight_norm(nn.ConvTranspose2d(3, 4, 2, 2), dim=1), nn.ELU(), weight_norm(nn.Conv2d(4, 2, 3, padding=1)),
        ),
        sequential(
            "weight norm by hooks", 108, (5,), (2, 4, 4),
            weight_norm_hook(nn.Linear(5, 12)), nn.ReLU(), nn.Unflatten(1, (3, 2, 2)),
            weight_norm_hook(nn.ConvTranspose2d(3, 4, 2, 2), dim=None), nn.ELU(),
            weight_norm_hook(nn.Conv2d(4, 2, 3, padding=1)),
        ),
    ]  # fmt: skip
