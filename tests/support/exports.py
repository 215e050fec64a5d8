"""Generators to export, and their programs, live and saved."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

LATENT = 6


def dcgan() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)),
        nn.ConvTranspose2d(LATENT, 8, 4, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(8, 3, 4, 2, 1),
        nn.Tanh(),
    )


def linear_unflatten() -> nn.Module:
    return nn.Sequential(nn.Linear(LATENT, 12), nn.BatchNorm1d(12), nn.Unflatten(1, (3, 2, 2)), nn.Sigmoid())


def activations() -> nn.Module:
    layers = [nn.LeakyReLU(0.2), nn.ELU(), nn.Softplus(), nn.SiLU(), nn.Hardtanh(-1.0, float("inf"))]
    return nn.Sequential(nn.Linear(LATENT, 16), *layers, nn.Unflatten(1, (1, 4, 4)))


def groups_and_dilation() -> nn.Module:
    return nn.Sequential(
        nn.Linear(LATENT, 4 * 25),
        nn.Unflatten(1, (4, 5, 5)),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2),
        nn.GELU(),
        nn.ConvTranspose2d(6, 2, 3, stride=2, output_padding=1, groups=2),
    )


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(nn.Linear(LATENT, 32), nn.Unflatten(1, (8, 2, 2)), nn.PixelShuffle(2), nn.GroupNorm(2, 2))


class Tied(nn.Module):
    """One matrix under two names, once transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(LATENT, LATENT)
        self.inner = nn.Sequential(nn.Linear(LATENT, LATENT, bias=False))
        self.inner[0].weight = self.first.weight

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        hidden = self.inner(torch.relu(self.first(z)))
        return (hidden @ self.first.weight.t()).reshape(-1, 1, 2, 3)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 3 * 4)
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.start(z).view(z.shape[0], 3, 2, 2)
        x = F.interpolate(x, scale_factor=2.0)
        return x + self.block(x) * 0.5


class Constants(nn.Module):
    """Persistent and transient buffers, an expanded one, plain tensors, literals, and filled tensors of batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 8)
        self.register_buffer("scale", torch.tensor(1.5))
        self.register_buffer("shift", torch.randn(2, 1, 1), persistent=False)
        self.register_buffer("column", torch.linspace(-1, 1, 2).expand(2, 2))
        self.plain = torch.randn(1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.start(z).reshape(z.shape[0], 2, 2, 2) * self.scale + self.shift + self.plain + torch.tensor(0.25)
        column = self.column.expand(z.shape[0], 1, 2, 2)
        return torch.cat([x, column, torch.zeros(z.shape[0], 1, 2, 2).to(x.dtype)], 1)


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 24)
        self.drop = nn.Dropout(0.5)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        gate, x = self.drop(self.start(z)).chunk(2, 1)
        return F.pad((torch.sigmoid(gate) * x).view(-1, 3, 2, 2), (1, 1, 1, 1))


class SharedLayer(nn.Module):
    """One layer run twice, and a latent of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(2, 2, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(F.silu(self.layer(z.view(z.size(0), 2, 1, 3))))


class BatchInChannels(nn.Module):
    """Puts the batch into the channels, so that a fixed batch is written all over its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 8)
        self.weight = nn.Parameter(torch.randn(2, 2, 3, 3) * 0.3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.start(z).reshape(1, z.shape[0] * 2, 2, 2)
        x = F.conv2d(x, self.weight.repeat(z.shape[0], 1, 1, 1), padding=1, groups=z.shape[0])
        return x.reshape(z.shape[0], 2, 2, 2)


GENERATORS: list[Callable[[], nn.Module]] = [
    dcgan, linear_unflatten, activations, groups_and_dilation, pixel_shuffle, Tied, Residual, Constants, Split,
    SharedLayer, BatchInChannels,
]  # fmt: skip
ROWS = {"static_1": 1, "static_3": 3, "dynamic": 3}
EXPORTS = list(ROWS)


def build(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    """`make()` in eval mode, with running statistics and weights that are nobody's defaults."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = make()
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point() and tensor.numel() > 1 and tensor.is_contiguous():
                tensor.data = torch.rand_like(tensor) * 0.8 + 0.1
                if isinstance(tensor, nn.Parameter):
                    tensor.data -= 0.5
    return module.eval().to(dtype)


def latents(rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, LATENT, generator=torch.Generator().manual_seed(rows), dtype=dtype)


def export(module: nn.Module, how: str = "dynamic", decomposed: bool = False) -> torch.export.ExportedProgram:
    dtype = next(module.parameters()).dtype
    shapes = ({0: torch.export.Dim("batch")},) if how == "dynamic" else None
    program = torch.export.export(module, (latents(ROWS[how], dtype),), dynamic_shapes=shapes)
    return program.run_decompositions() if decomposed else program


def save(program: torch.export.ExportedProgram, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecated calls, and of expanded buffers
        torch.export.save(program, path)
    return path
