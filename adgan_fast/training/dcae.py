"""The deep convolutional autoencoder (Deecke et al. 2018, Sect. 4.2; Masci et al. 2011).

Encoder e and decoder g descend mean ‖x - g(e(x))‖². The code is the bottleneck: with as many numbers as
the image has, every image could be copied.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from ..core.losses import l2
from ..models import DCGANEncoder, DCGANGenerator
from .config import TrainConfig
from .trainer import ImageTrainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCAEConfig(TrainConfig):
    """Settings of an autoencoder's training, beside those of ``TrainConfig``.

    Attributes:
        latent: length of the code (Ruff et al. 2018, Sect. 4.2: 32 for MNIST, 128 for CIFAR-10).
    """

    latent: int = 32


class DCAE(ImageTrainer):
    """Encoder (B, latent) and generator (the decoder). Its loss, ``"reconstruction"``: the sum over C·H·W, an image."""

    kind = "dcae"
    losses = ("reconstruction",)
    shown = ("l2", "reconstruction")
    config: DCAEConfig

    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        config, shape = self.config, (self.image_size, self.channels)
        self.encoder = DCGANEncoder(*shape, config.latent, config.width, generator=init)
        self.generator = DCGANGenerator(*shape, config.latent, config.width, generator=init)
        return {"encoder": self.encoder, "generator": self.generator}

    def update(self, stream: np.random.Generator) -> dict[str, torch.Tensor]:
        real = self.batch(stream)
        loss = l2(self.generator(self.encoder(real)), real).mean()
        self.descend(loss, "encoder", "generator")
        return {"reconstruction": loss.detach()}

    def samples(self) -> torch.Tensor:
        """Images, each followed by its reconstruction."""
        real = self.some(max(1, self.config.sample_count // 2))
        return torch.stack([real, self.generator(self.encoder(real))], dim=1).flatten(0, 1)
