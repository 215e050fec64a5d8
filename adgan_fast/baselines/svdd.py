"""Deep SVDD (Ruff et al. 2018, eq. 5): the distance of an image's code from the centre."""

from __future__ import annotations

import torch

from ..training import SVDDConfig
from .trained import Trained


class DeepSVDD(Trained):
    """Score: ‖φ(x) - c‖². Arguments: see `Trained`, with an ``SVDDConfig``."""

    settings = SVDDConfig

    def _of(self, images: torch.Tensor) -> torch.Tensor:
        return self.models_["centre"](self.models_["encoder"](images))
