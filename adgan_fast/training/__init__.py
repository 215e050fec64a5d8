"""Training of generators, and their storage."""

from __future__ import annotations

from .checkpoint import CheckpointError, load_generator, save_generator
from .wgan import TrainingDiverged, TrainResult, WGANConfig, train

__all__ = [
    "CheckpointError",
    "TrainResult",
    "TrainingDiverged",
    "WGANConfig",
    "load_generator",
    "save_generator",
    "train",
]
