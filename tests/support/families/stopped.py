"""Gradients that are stopped on the way, and choices by size."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.generators import Case
from tests.support.layers import Function

from .parts import case, sequential


class OwnSpectralNorm(nn.Module):
    """A map whose weight is divided by its largest singular value, as Miyato et al. (2018, algorithm 1) estimate it.

    One step of the power iteration, of which the module keeps nothing in eval mode. `way`: how it says that the
    vectors are constants to the gradient.
    """

    def __init__(self, layer: nn.Module, way: str):
        super().__init__()
        self.layer, self.way = layer, way
        self.register_buffer("u", torch.zeros(layer.weight.shape[0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.layer.weight
        matrix = weight.flatten(1)
        if self.way == "no_grad":
            with torch.no_grad():
                v = F.normalize(matrix.t() @ self.u, dim=0)
                u = F.normalize(matrix @ v, dim=0)
        else:
            given = matrix.detach()
            v = given.t().mv(self.u)
            v = v / (v.norm() + 1e-12)
            u = given.mv(v)
            u = u / (u.norm() + 1e-12)
        sigma = torch.dot(u, matrix.mv(v)) if self.way == "detach" else u @ matrix @ v
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight / sigma, self.layer.bias)
        return F.conv2d(x, weight / sigma, self.layer.bias, padding=self.layer.padding)


class Stopped(nn.Module):
    """A gradient of the latent, of activations and of weights that takes one of two ways.

    One weight is read behind stops alone; and behind one stands a root of zero, whose own gradient would be NaN.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 3 * 6), nn.Linear(5, 7, bias=False)
        self.unmoved, self.table = nn.Linear(7, 3), nn.Parameter(torch.zeros(3, 1, 1))
        self.last = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(z)).view(-1, 3, 2, 3)
        h = h / (h.detach().square().mean(1, keepdim=True) + 0.5).sqrt()
        gate = torch.sigmoid(self.unmoved(self.second(z).tanh())).detach()
        h = h * gate[:, :, None, None] + self.table.exp().detach() * self.table
        with torch.no_grad():
            shut = (self.second(z * 0).square().sum(1) * self.table.abs().sum()).sqrt()
        h = h + shut[:, None, None, None] + self.second(z).detach().mean(1)[:, None, None, None] * 0.3
        return torch.tanh(self.last(F.conv2d(h, self.last.weight.detach()[:, :, :1, :1].repeat(2, 1, 1, 1)[:3])))


def own_spectral_norm(made_of: str, way: str) -> Case:
    return sequential(
        made_of, 121, (5,), (2, 6, 6),
        OwnSpectralNorm(nn.Linear(5, 4 * 9), way), nn.Unflatten(1, (4, 3, 3)), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Upsample(scale_factor=2), OwnSpectralNorm(nn.Conv2d(4, 5, 3, padding=1), way), nn.BatchNorm2d(5), nn.ReLU(),
        OwnSpectralNorm(nn.Conv2d(5, 2, 3, padding=1), way), nn.Tanh(),
    )  # fmt: skip


def families() -> list[Case]:
    return [
        own_spectral_norm("a spectral norm of its own", "no_grad"),
        own_spectral_norm("a spectral norm by detached vectors", "detach"),
        case("stopped gradients", 122, (5,), (2, 2, 3), Stopped()),
        sequential(
            "maxout", 123, (5,), (2, 5, 4),
            nn.Linear(5, 2 * 9), Function(lambda x: torch.maximum(*x.chunk(2, 1))), nn.Linear(9, 3 * 20),
            nn.Unflatten(1, (3, 5, 4)), nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(),
            Function(lambda x: torch.max(x[:, ::2], x[:, 1::2])), nn.Conv2d(3, 3, 3, padding=1),
            nn.MaxPool2d(3, 1, 1), Function(lambda x: torch.minimum(x, x.mean((2, 3), keepdim=True) + 0.4)),
            nn.Conv2d(3, 2, 1), nn.Tanh(),
        ),
        sequential(
            "an error function", 124, (5,), (1, 3, 4),
            nn.Linear(5, 13), Function(lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5))), nn.Linear(13, 7), nn.Tanh(),
            Function(torch.erf), nn.Linear(7, 12), Function(torch.erf), nn.Unflatten(1, (1, 3, 4)),
        ),
    ]  # fmt: skip
