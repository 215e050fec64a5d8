"""The deep convolutional autoencoder, scored by its reconstruction loss (Deecke et al. 2018, Sect. 4.2)."""

from __future__ import annotations

import torch

from ..core.losses import l2
from ..training import DCAEConfig
from .trained import Trained


class DCAE(Trained):
    """Score: ‖x - g(e(x))‖², the sum over C·H·W. Arguments: see `Trained`, with a ``DCAEConfig``."""

    settings = DCAEConfig

    def _of(self, images: torch.Tensor) -> torch.Tensor:
        return l2(self.models_["generator"](self.models_["encoder"](images)), images)
