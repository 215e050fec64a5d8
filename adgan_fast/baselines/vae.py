"""The variational autoencoder, scored by its evidence lower bound (Deecke et al. 2018, Sect. 4.2)."""

from __future__ import annotations

import math
import os
from typing import Literal, get_args

import torch

from ..core import starts
from ..given import one_of, whole
from ..training import VAEConfig
from ..training.vae import kl
from .trained import Trained

Score = Literal["elbo", "prior", "variance"]


class VAE(Trained):
    """Scores by the bound, or by one of the two that the paper found worse. q(z | x) = N(μ, diag σ²) is the encoder's.

    Args:
        config: see `Trained`; a ``VAEConfig``.
        score: ``"elbo"``: -ELBO in nats, the expectation a mean over ``samples`` draws of z, the divergence exact;
            ``"prior"``: -log N(μ; 0, I) in nats; ``"variance"``: the sum of σ².
        samples: draws of z for ``"elbo"``. They are the same for all images, so a score depends on its image alone.
        seed: key of these draws, 0 <= seed < 2**64.
        out, progress: see `Trained`.

    Raises:
        ValueError: an argument that is none of these, naming it.
    """

    settings = VAEConfig

    def __init__(
        self,
        config: VAEConfig | None = None,
        *,
        score: Score = "elbo",
        samples: int = 16,
        seed: int = 0,
        out: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(config, out, progress)
        one_of("score", score, get_args(Score))
        self.score, self.samples, self.seed = score, whole("samples", samples, 1), whole("seed", seed, 0)
        if self.seed >= 2**64:
            raise ValueError(f"seed must be below 2**64, got {self.seed}")

    def _of(self, images: torch.Tensor) -> torch.Tensor:
        mean, log_variance = self.models_["encoder"](images).chunk(2, dim=1)
        if self.score == "prior":  # in double, as the next: what images share is large beside what tells them apart
            return 0.5 * (mean.double().square().sum(1) + mean.shape[1] * math.log(2 * math.pi))
        if self.score == "variance":
            return log_variance.double().exp().sum(1)
        generator, likelihood = self.models_["generator"], self.models_["likelihood"]
        noise = starts.draw(self.seed, None, self.samples, (mean.shape[1],), "normal").to(mean)
        scale = (log_variance / 2).exp()
        drawn = [likelihood(generator(mean + scale * one), images) for one in noise]
        return kl(mean, log_variance) - torch.stack(drawn).mean(0)
