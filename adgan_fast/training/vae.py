"""The variational autoencoder (Kingma & Welling 2014), convolutional (Deecke et al. 2018, Sect. 4.2).

    ELBO(x) = E log p(x | z) - KL(q(z | x) ‖ N(0, I)),    z ~ q(z | x) = N(μ(x), diag σ²(x))

The encoder gives μ and log σ², the decoder the mean of p(x | z) = N(g(z), s² I): ``GaussianLikelihood``, whose one
scale s is learned by default. The expectation is estimated by one z a step (Kingma & Welling, Sect. 2.4, eq. 10).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from ..given import positive
from ..models import DCGANEncoder, DCGANGenerator, GaussianLikelihood
from .config import TrainConfig
from .trainer import ImageTrainer

_BEGIN = 0.5  # a learned scale, of images that span 2
_FASTER = 10.0
"""Learning rate of the scale's logarithm, in those of the networks: Adam moves it by a rate a step, and it has to go
with the reconstruction error, which falls by an order of magnitude in some hundred steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig(TrainConfig):
    """Settings of a VAE's training, beside those of ``TrainConfig``.

    Attributes:
        scale: s, the standard deviation of a pixel around the decoder's mean (images span 2); learned when None.
    """

    scale: float | None = None

    def _check(self) -> None:
        if self.scale is not None:
            self._set("scale", positive("scale", self.scale))


class VAE(ImageTrainer):
    """Encoder (B, 2·latent), generator (the decoder's mean) and likelihood.

    Its losses, in nats an image: ``"loss"``, -ELBO; ``"reconstruction"``, -log p(x | z); ``"kl"``.
    """

    kind = "vae"
    losses = ("loss", "reconstruction", "kl")
    shown = ("-ELBO", "loss")
    config: VAEConfig

    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        config, shape = self.config, (self.image_size, self.channels)
        self.encoder = DCGANEncoder(*shape, 2 * config.latent, config.width, generator=init)
        self.generator = DCGANGenerator(*shape, config.latent, config.width, generator=init)
        self.likelihood = GaussianLikelihood(config.scale or _BEGIN, fixed=config.scale is not None)
        return {"encoder": self.encoder, "generator": self.generator, "likelihood": self.likelihood}

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if model is not self.likelihood:
            return super().optimizer(model)
        return self.adam(model, faster=_FASTER)

    def update(self, stream: np.random.Generator) -> dict[str, torch.Tensor]:
        real = self.batch(stream)
        mean, log_variance = self.encoder(real).chunk(2, dim=1)
        z = mean + (log_variance / 2).exp() * self.latents(stream, len(real))
        reconstruction = -self.likelihood(self.generator(z), real).mean()
        divergence = kl(mean, log_variance).mean()
        loss = reconstruction + divergence
        self.descend(loss, *self.optimizers)
        return {"loss": loss.detach(), "reconstruction": reconstruction.detach(), "kl": divergence.detach()}


def kl(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, diag exp(log_variance)) ‖ N(0, I)): (B, latent) twice to (B,), nats (Kingma & Welling, Appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
