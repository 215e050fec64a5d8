"""Deep SVDD (Ruff et al. 2018), the one-class objective (eq. 4): codes are drawn to one fixed point c.

    min over W:  mean ‖φ_W(x) - c‖² + λ/2 ‖W‖²

A φ that maps everything to c must be out of reach (Propositions 1 to 3): it has no biases, its activation is unbounded
(leaky ReLU), and c is not 0: it is the mean code of the images in an initial forward pass, coordinates near zero moved
away from it. With ``pretrain_steps`` φ is first the encoder of an autoencoder, as Ruff et al. begin (Sect. 4.1).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..core.losses import l2
from ..given import is_number, whole
from ..models import Centre, DCGANEncoder, DCGANGenerator
from .config import TrainConfig
from .trainer import ImageTrainer

_PASSED = 2048  # images of the forward pass that gives the centre
_NEAR_ZERO = 0.1  # the least absolute coordinate of the centre, as in Ruff et al.'s own program


@dataclasses.dataclass(frozen=True, kw_only=True)
class SVDDConfig(TrainConfig):
    """Settings of Deep SVDD, beside those of ``TrainConfig``.

    Attributes:
        latent: length of the code (Ruff et al. 2018, Sect. 4.2: 32 for MNIST, 128 for CIFAR-10).
        lr: Ruff et al., Sect. 4.1: 1e-4.
        weight_decay: λ (Ruff et al., Sect. 4.1: 1e-6).
        pretrain_steps: how many of the steps train an autoencoder; the centre is set after them.
    """

    latent: int = 32
    lr: float = 1e-4
    weight_decay: float = 1e-6
    pretrain_steps: int = 0

    def _check(self) -> None:
        if not is_number(self.weight_decay) or not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be a finite number of at least 0, got {self.weight_decay!r}")
        self._set("weight_decay", float(self.weight_decay))
        self._set("pretrain_steps", whole("pretrain_steps", self.pretrain_steps, 0))


class SVDD(ImageTrainer):
    """Encoder (B, latent) and centre, and, while there is a pretraining, the decoder.

    Its loss, ``"distance"``: the mean of ‖φ(x) - c‖²; during the pretraining that of ‖x - decoder(φ(x))‖².
    """

    kind = "svdd"
    losses = ("distance",)
    shown = ("distance", "distance")
    config: SVDDConfig

    def __init__(self, images: torch.Tensor | npt.NDArray[Any], config: SVDDConfig) -> None:
        super().__init__(images, config)
        self._set_centre()

    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        config, shape = self.config, (self.image_size, self.channels)
        self.encoder = DCGANEncoder(
            *shape, config.latent, config.width, activation="leaky_relu", bias=False, generator=init
        )
        self.centre = Centre(config.latent)
        models: dict[str, nn.Module] = {"encoder": self.encoder, "centre": self.centre}
        if config.pretrain_steps:
            self.decoder = DCGANGenerator(*shape, config.latent, config.width, generator=init)
            models["decoder"] = self.decoder
        return models

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.adam(model, weight_decay=self.config.weight_decay)

    @property
    def alike(self) -> bool:
        return not self.config.pretrain_steps

    def update(self, stream: np.random.Generator) -> dict[str, torch.Tensor]:
        if 0 < self.step == self.config.pretrain_steps:
            self._set_centre()
        real = self.batch(stream)
        if self.step < self.config.pretrain_steps:
            loss = l2(self.decoder(self.encoder(real)), real).mean()
            self.descend(loss, "encoder", "decoder")
        else:
            loss = self.centre(self.encoder(real)).mean()
            self.descend(loss, "encoder")
        return {"distance": loss.detach()}

    @torch.no_grad()
    def _set_centre(self) -> None:
        """c: the mean code, in batches as the training has them: so batch norm has the statistics of the data."""
        codes = torch.cat([self.encoder(part) for part in self.some(_PASSED).split(self.config.batch_size)])
        mean = codes.mean(0)
        away = torch.where(mean < 0, -_NEAR_ZERO, _NEAR_ZERO)
        self.centre.centre.copy_(torch.where(mean.abs() < _NEAR_ZERO, away, mean))
