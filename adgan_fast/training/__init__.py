"""Training of generators and encoders, and their storage."""

from __future__ import annotations

from .bigan import BiGANConfig
from .checkpoint import CheckpointError, load_generator, load_models, save_generator
from .config import TrainConfig
from .dcae import DCAEConfig
from .gan import GANConfig
from .gmmn import GMMNConfig
from .inverse import InverseConfig, encoder_starts
from .loop import TrainingDiverged, TrainResult, train
from .svdd import SVDDConfig
from .vae import VAEConfig
from .wgan import WGANConfig

__all__ = [
    "BiGANConfig",
    "CheckpointError",
    "DCAEConfig",
    "GANConfig",
    "GMMNConfig",
    "InverseConfig",
    "SVDDConfig",
    "TrainConfig",
    "TrainResult",
    "TrainingDiverged",
    "VAEConfig",
    "WGANConfig",
    "encoder_starts",
    "load_generator",
    "load_models",
    "save_generator",
    "train",
]
