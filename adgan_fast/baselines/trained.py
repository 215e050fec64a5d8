"""`Trained`: what the detectors have in common that are networks of `adgan_fast.training`, fitted by its loop."""

from __future__ import annotations

import abc
import os
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..core.ambient import neutral
from ..core.precision import arithmetic
from ..training import TrainConfig, train
from .base import Baseline, batches


class Trained(Baseline):
    """A detector that fits by `adgan_fast.training.train`.

    Networks score in eval mode, so an image's score has nothing of the images beside it.

    Args:
        config: settings of the training; the defaults of its class when None.
        out: folder for checkpoints and sample pictures. A `fit` on the same images and settings goes on from the
            checkpoint there, or is done at once; on others it raises CheckpointError. Nothing is written when None.
        progress: show a progress bar on stderr while training.

    Attributes:
        models_: the networks by name, after `fit`; see the trainer of the objective.

    Raises:
        TypeError: a config of another objective.
    """

    settings: ClassVar[type[TrainConfig]]
    """The class of its config."""

    models_: dict[str, nn.Module]

    def __init__(
        self, config: TrainConfig | None = None, out: str | os.PathLike[str] | None = None, progress: bool = False
    ) -> None:
        config = self.settings() if config is None else config
        if not isinstance(config, self.settings):
            wanted, found = self.settings.__name__, type(config).__name__
            raise TypeError(f"{type(self).__name__} takes a {wanted} as config, got a {found}")
        self.config, self.out, self.progress = config, out, progress

    def _fit(self, images: torch.Tensor) -> None:
        trained = train(images, self.config, out=self.out, resume=self.out is not None, progress=self.progress)
        self.models_ = trained.models

    def _scores(self, images: torch.Tensor) -> npt.NDArray[np.float64]:
        device = next(next(iter(self.models_.values())).parameters()).device
        with neutral(device), arithmetic("float32"), torch.no_grad():
            return torch.cat([self._of(part.to(device)).double().cpu() for part in batches(images)]).numpy()

    @abc.abstractmethod
    def _of(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (B,) of images (B, C, H, W), float32 in [-1, 1], on the networks' device."""
