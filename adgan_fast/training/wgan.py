"""The Wasserstein GAN (Arjovsky et al. 2017, Algorithm 1), by which the paper trains its generators (Sect. 4.2).

    for each generator step:
        n_critic times:  w <- descend  mean d_w(g(z)) - mean d_w(x)     (x: data, z ~ N(0, I)); keep d_w Lipschitz
        once:            g <- descend  -mean d_w(g(z))

d_w is kept Lipschitz by clipping its weights (``objective="clip"``, the paper's), or by adding to its loss
gp_weight * mean (|grad d_w(y)| - 1)^2, where y = u x + (1 - u) g(z), u uniform (``"gp"``, Gulrajani et al. 2017).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import nn

from ..given import flag, one_of, positive, whole
from ..models import DCGANCritic, DCGANGenerator
from ..models.parts import NORMS
from .config import TrainConfig
from .trainer import ImageTrainer

_LR = {"clip": 5e-5, "gp": 1e-4}
_NORM = {"clip": "batch", "gp": "layer"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WGANConfig(TrainConfig):
    """Settings of a WGAN's training, beside those of ``TrainConfig``.

    Attributes:
        objective: ``"clip"``: weight clipping with RMSprop, as in the paper; ``"gp"``: gradient penalty with Adam.
        lr: learning rate of both networks; by the objective when None: 5e-5 (Arjovsky et al. 2017) or 1e-4
            (Gulrajani et al. 2017).
        n_critic: critic steps before each generator step.
        clip: with ``"clip"``, bound of each critic weight.
        gp_weight: with ``"gp"``, weight of the penalty.
        betas: with ``"gp"``, Adam's decay rates.
        norm: normalisation in the critic, ``"batch"``, ``"layer"`` or ``"none"``; ``"batch"`` for clipping and
            ``"layer"`` for the penalty when None. ``"batch"`` does not go with the penalty.
        critic_boost: take 100 critic steps in place of n_critic at the first 25 and every 500th generator step, as
            Arjovsky et al.'s own program does.
    """

    objective: Literal["clip", "gp"] = "clip"
    lr: float | None = None
    n_critic: int = 5
    clip: float = 0.01
    gp_weight: float = 10.0
    betas: tuple[float, float] = (0.0, 0.9)
    norm: Literal["batch", "layer", "none"] | None = None
    critic_boost: bool = False

    def _check(self) -> None:
        self._set("n_critic", whole("n_critic", self.n_critic, 1))
        one_of("objective", self.objective, tuple(_LR))
        if self.lr is None:
            self._set("lr", _LR[self.objective])
        if self.norm is None:
            self._set("norm", _NORM[self.objective])
        one_of("norm", self.norm, NORMS, "or None")
        if self.objective == "gp" and self.norm == "batch":
            raise ValueError("norm='batch' does not go with objective='gp': take 'layer' or 'none'")
        for name in ("clip", "gp_weight"):
            self._set(name, positive(name, getattr(self, name)))
        self._set("critic_boost", flag("critic_boost", self.critic_boost))


class WGAN(ImageTrainer):
    """Generator and critic; a step is n_critic critic steps and one generator step.

    Its losses: ``"critic_loss"`` and ``"wasserstein"``, the estimate mean d(x) - mean d(g(z)), both of the last critic
    step before ``"generator_loss"``.
    """

    kind = "wgan"
    losses = ("critic_loss", "wasserstein", "generator_loss")
    shown = ("W", "wasserstein")
    config: WGANConfig

    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        config, shape = self.config, (self.image_size, self.channels)
        self.generator = DCGANGenerator(*shape, config.latent, config.width, generator=init)
        self.critic = DCGANCritic(*shape, config.width, str(config.norm), generator=init)
        return {"generator": self.generator, "critic": self.critic}

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.config.objective == "gp":
            return super().optimizer(model)
        assert self.config.lr is not None
        return torch.optim.RMSprop(model.parameters(), lr=self.config.lr, capturable=self.device.type == "cuda")

    @property
    def alike(self) -> bool:
        return not self.config.critic_boost

    def update(self, stream: np.random.Generator) -> dict[str, torch.Tensor]:
        boosted = self.config.critic_boost and (self.step < 25 or self.step % 500 == 0)
        for _ in range(100 if boosted else self.config.n_critic):
            loss, distance = self._critic_step(stream)
        return {"critic_loss": loss, "wasserstein": distance, "generator_loss": self._generator_step(stream)}

    def _critic_step(self, stream: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.config
        real = self.batch(stream)
        with torch.no_grad():
            fake = self.generator(self.latents(stream, len(real)))
        if config.norm == "batch":
            # Apart, as Arjovsky et al. do: batch statistics of the data, or of the generator, not of a mixture.
            distance = self.critic(real).mean() - self.critic(fake).mean()
        else:
            score = self.critic(torch.cat([real, fake]))
            distance = score[: len(real)].mean() - score[len(real) :].mean()
        loss = -distance
        if config.objective == "gp":
            shape = (len(real), 1, 1, 1)
            mix = self.feeds.put(lambda random: random.random(shape, dtype=np.float32), stream)
            loss = loss + config.gp_weight * _penalty(self.critic, torch.lerp(fake, real, mix))
        self.descend(loss, "critic")
        if config.objective == "clip":
            with torch.no_grad():
                for parameter in self.critic.parameters():
                    parameter.clamp_(-config.clip, config.clip)
        return loss.detach(), distance.detach()

    def _generator_step(self, stream: np.random.Generator) -> torch.Tensor:
        with self.passed_through(self.critic):
            loss = -self.critic(self.generator(self.latents(stream, self.config.batch_size))).mean()
            self.descend(loss, "generator")
        return loss.detach()


def _penalty(critic: Callable[[torch.Tensor], torch.Tensor], mixed: torch.Tensor) -> torch.Tensor:
    """mean (|grad d(y)| - 1)^2 over images y (B, C, H, W), |.| Euclidean; Gulrajani et al. 2017, eq. 3."""
    mixed = mixed.requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()
