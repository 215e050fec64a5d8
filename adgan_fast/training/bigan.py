"""BiGAN, or ALI without noise in its encoder: a GAN of pairs (Donahue et al. 2017; Dumoulin et al. 2017).

    min over g and e, max over d:  E log d(x, e(x)) + E log(1 - d(g(z), z))

At the optimum e inverts g (Donahue et al., Theorem 2): it says where in the latent space an image lies, and so where a
search may begin (Deecke et al. 2018, Sect. 5). d = sigmoid of a ``JointCritic``; generator and encoder descend the
non-saturating form, -mean log(1 - d(x, e(x))) - mean log d(g(z), z). Adam as for DCGAN.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

from ..models import DCGANEncoder, DCGANGenerator, JointCritic
from .config import TrainConfig
from .trainer import ImageTrainer


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiGANConfig(TrainConfig):
    """Settings of a BiGAN's training: those of ``TrainConfig``."""

    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)


class BiGAN(ImageTrainer):
    """Generator, encoder (B, latent) and critic of pairs.

    Its losses: ``"critic_loss"``, and ``"generator_loss"`` of generator and encoder together.
    """

    kind = "bigan"
    losses = ("critic_loss", "generator_loss")
    shown = ("D", "critic_loss")
    config: BiGANConfig

    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        config, shape = self.config, (self.image_size, self.channels)
        self.generator = DCGANGenerator(*shape, config.latent, config.width, generator=init)
        self.encoder = DCGANEncoder(*shape, config.latent, config.width, activation="leaky_relu", generator=init)
        self.critic = JointCritic(*shape, config.latent, config.width, generator=init)
        return {"generator": self.generator, "encoder": self.encoder, "critic": self.critic}

    def update(self, stream: np.random.Generator) -> dict[str, torch.Tensor]:
        real = self.batch(stream)
        z = self.latents(stream, len(real))
        made, code = self.generator(z), self.encoder(real)
        # -log sigmoid(a) = softplus(-a), and -log(1 - sigmoid(a)) = softplus(a).
        of_data, of_made = self.critic(real, code.detach()), self.critic(made.detach(), z)
        critic_loss = softplus(-of_data).mean() + softplus(of_made).mean()
        self.descend(critic_loss, "critic")
        with self.passed_through(self.critic):
            generator_loss = softplus(self.critic(real, code)).mean() + softplus(-self.critic(made, z)).mean()
            self.descend(generator_loss, "generator", "encoder")
        return {"critic_loss": critic_loss.detach(), "generator_loss": generator_loss.detach()}
