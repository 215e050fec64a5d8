"""Training of generators, and their storage."""

from __future__ import annotations

from .checkpoint import CheckpointError, load_generator, save_generator
from .loop import TrainingDiverged, TrainResult, train
from .wgan import WGANConfig

__all__ = [
    "CheckpointError",
    "TrainResult",
    "TrainingDiverged",
    "WGANConfig",
    "load_generator",
    "save_generator",
    "train",
]
