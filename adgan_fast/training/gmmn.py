"""The generative moment matching network (Li, Swersky & Zemel 2015): a generator trained without a critic.

It descends the square root of the squared maximum mean discrepancy between images and samples, in pixel space (eq. 3):

    MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y),    k(u, v) = mean over b of exp(-|u - v|² / (2 b²))

over all pairs of a batch: the biased estimate, at least 0. The bandwidths b are multiples of the root of the median
squared distance in the data. (Li et al. take a sum of six kernels with b = 2, 5, 10, 20, 40, 80 on MNIST in [0, 1],
where that root is about 10.) The estimate is noisy in small batches, hence the larger default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ..given import positive
from ..models import DCGANGenerator
from .config import TrainConfig
from .trainer import ImageTrainer

_MEASURED = 1000  # images between which the median distance is taken


@dataclasses.dataclass(frozen=True, kw_only=True)
class GMMNConfig(TrainConfig):
    """Settings of a GMMN's training, beside those of ``TrainConfig``.

    Attributes:
        bandwidths: b of each kernel, in units of the root of the median squared distance between two images.
    """

    batch_size: int = 256
    bandwidths: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)

    def _check(self) -> None:
        if not isinstance(self.bandwidths, (tuple, list)) or not self.bandwidths:
            raise ValueError(f"bandwidths must be one or more numbers, got {self.bandwidths!r}")
        self._set("bandwidths", tuple(positive("bandwidths", width) for width in self.bandwidths))


class GMMN(ImageTrainer):
    """The generator alone. Its loss: ``"mmd"``, the root of MMD² of a batch."""

    kind = "gmmn"
    losses = ("mmd",)
    shown = ("MMD", "mmd")
    config: GMMNConfig

    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        config = self.config
        unit = median_distance(self.some(_MEASURED).flatten(1))
        self.bandwidths = [width * unit for width in config.bandwidths]
        self.generator = DCGANGenerator(self.image_size, self.channels, config.latent, config.width, generator=init)
        return {"generator": self.generator}

    def update(self, stream: np.random.Generator) -> dict[str, torch.Tensor]:
        real = self.batch(stream)
        made = self.generator(self.latents(stream, len(real)))
        loss = squared_mmd(real.flatten(1), made.flatten(1), self.bandwidths).clamp_min(_LEAST).sqrt()
        self.descend(loss, "generator")
        return {"mmd": loss.detach()}


_LEAST = 1e-10  # below it MMD² is rounding, and its root has no useful slope


def squared_mmd(x: torch.Tensor, y: torch.Tensor, bandwidths: Sequence[float]) -> torch.Tensor:
    """MMD² (no dimensions) of x (N, D) and y (M, D), over all pairs, by the mean of the Gaussian kernels."""

    def mean_kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        squares = squared_distances(a, b)
        return torch.stack([(-squares / (2 * width**2)).exp().mean() for width in bandwidths]).mean()

    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)


def squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|a_i - b_j|²: (N, D) and (M, D) to (N, M)."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T
    return squares.clamp_min(0)


def median_distance(x: torch.Tensor) -> float:
    """The root of the median squared distance between two of x (N, D); 1 where all are alike."""
    squares = squared_distances(x, x)
    first, second = torch.triu_indices(len(x), len(x), 1)
    pairs = squares[first, second]
    median = float(pairs.median()) if len(pairs) else 0.0
    return median**0.5 or 1.0
