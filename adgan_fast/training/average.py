"""A running mean of a network's weights (Polyak averaging), steadier than the weights of any one step."""

from __future__ import annotations

import copy

import torch
from torch import nn


class RunningMean:
    """The mean of a network over its training, in which a step counts `decay` times as much as the one after it.

    Begins as the plain mean, so that nothing of the initial weights is left (`weight`). Running statistics are
    averaged as well.

    Args:
        network: as it is trained; not changed.
        decay: from 0 to below 1.

    Attributes:
        model: the network of the mean; its weights record no gradient.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(network).requires_grad_(False)
        self._pairs = list(zip(self.model.state_dict().values(), network.state_dict().values(), strict=True))

    def weight(self, step: int) -> float:
        """Of the network after `step` steps, in the mean that it joins."""
        return max(1 - self.decay, 1 / step)

    @torch.no_grad()
    def take(self, weight: torch.Tensor) -> None:
        """Joins the network as it is now, by a weight without dimensions on its device."""
        for mean, now in self._pairs:
            if mean.is_floating_point():
                mean.lerp_(now, weight.to(mean.dtype))
            else:
                mean.copy_(now)
