"""The table of objectives: settings of this class are trained by that trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .bigan import BiGAN, BiGANConfig
from .config import TrainConfig
from .dcae import DCAE, DCAEConfig
from .gan import GAN, GANConfig
from .gmmn import GMMN, GMMNConfig
from .inverse import Inverse, InverseConfig
from .svdd import SVDD, SVDDConfig
from .trainer import Trainer
from .vae import VAE, VAEConfig
from .wgan import WGAN, WGANConfig

OBJECTIVES: dict[type[TrainConfig], Callable[[Any, Any], Trainer]] = {
    WGANConfig: WGAN,
    GANConfig: GAN,
    VAEConfig: VAE,
    DCAEConfig: DCAE,
    GMMNConfig: GMMN,
    SVDDConfig: SVDD,
    BiGANConfig: BiGAN,
    InverseConfig: Inverse,
}


def trainer_of(config: TrainConfig) -> Callable[[Any, Any], Trainer]:
    """The trainer for `config`; TypeError naming the classes of settings that there are, where it is of none."""
    for kind in type(config).__mro__:
        if kind in OBJECTIVES:
            return OBJECTIVES[kind]
    remedy = ": WGANConfig(**config), say, makes one of it" if isinstance(config, dict) else ""
    known = ", ".join(kind.__name__ for kind in OBJECTIVES)
    raise TypeError(f"config must be one of {known}, got a {type(config).__name__}{remedy}")
