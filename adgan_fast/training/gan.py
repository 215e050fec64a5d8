"""The GAN of equation (1) of the paper (Goodfellow et al. 2014), and the least-squares GAN (Mao et al. 2017).

    min over g, max over d:  E log d(x) + E log(1 - d(g(z)))

d = sigmoid(a), a the critic's output. A step is one of the critic and one of the generator, each on a batch:

    objective           critic descends                              generator descends
    "non_saturating"    -mean log d(x) - mean log(1 - d(g(z)))       -mean log d(g(z))      (Goodfellow et al., Sect. 3)
    "saturating"        the same                                      mean log(1 - d(g(z)))  (equation (1) as it stands)
    "least_squares"     ½ mean (a(x) - 1)² + ½ mean a(g(z))²          ½ mean (a(g(z)) - 1)²  (Mao et al., eq. 9)

Adam at 2e-4 with betas (0.5, 0.999), as DCGAN has it (Radford et al. 2016, Sect. 4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

from ..given import one_of
from ..models import DCGANCritic, DCGANGenerator
from .config import TrainConfig
from .trainer import ImageTrainer

Objective = Literal["non_saturating", "saturating", "least_squares"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GANConfig(TrainConfig):
    """Settings of a GAN's training, beside those of ``TrainConfig``.

    Attributes:
        objective: ``"non_saturating"``, ``"saturating"`` or ``"least_squares"``, see above.
    """

    objective: Objective = "non_saturating"
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)

    def _check(self) -> None:
        one_of("objective", self.objective, get_args(Objective))


class GAN(ImageTrainer):
    """Generator and critic. Its losses, ``"critic_loss"`` and ``"generator_loss"``, are those of the table above."""

    kind = "gan"
    losses = ("critic_loss", "generator_loss")
    shown = ("D", "critic_loss")
    config: GANConfig

    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        config, shape = self.config, (self.image_size, self.channels)
        self.generator = DCGANGenerator(*shape, config.latent, config.width, generator=init)
        self.critic = DCGANCritic(*shape, config.width, generator=init)
        return {"generator": self.generator, "critic": self.critic}

    def update(self, stream: np.random.Generator) -> dict[str, torch.Tensor]:
        of_data, of_made, wanted = _TERMS[self.config.objective]
        real = self.batch(stream)
        with torch.no_grad():
            made = self.generator(self.latents(stream, len(real)))
        # Apart, so that batch norm has statistics of the data, or of the generator, not of a mixture.
        critic_loss = of_data(self.critic(real)).mean() + of_made(self.critic(made)).mean()
        self.descend(critic_loss, "critic")
        with self.passed_through(self.critic):
            generator_loss = wanted(self.critic(self.generator(self.latents(stream, len(real))))).mean()
            self.descend(generator_loss, "generator")
        return {"critic_loss": critic_loss.detach(), "generator_loss": generator_loss.detach()}


Term = Callable[[torch.Tensor], torch.Tensor]

# For each objective, of the critic's output a: the critic's loss on data, on what is made, and the generator's.
# -log sigmoid(a) = softplus(-a), and -log(1 - sigmoid(a)) = softplus(a), without overflow.
_TERMS: dict[str, tuple[Term, Term, Term]] = {
    "non_saturating": (lambda a: softplus(-a), softplus, lambda a: softplus(-a)),
    "saturating": (lambda a: softplus(-a), softplus, lambda a: -softplus(a)),
    "least_squares": (lambda a: (a - 1).square() / 2, lambda a: a.square() / 2, lambda a: (a - 1).square() / 2),
}
