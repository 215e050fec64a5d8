"""The k steps of Algorithm 1 over many pairs in one batch: z and w by fused Adam, from gradients at the same (z, w)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from .. import ops
from ..config import SearchConfig


class State(NamedTuple):
    """What Adam writes: latents (G, B, *latent) and private weights (G, ...), and their moments m and v."""

    values: list[torch.Tensor]
    moments: list[torch.Tensor]
    squares: list[torch.Tensor]

    @staticmethod
    def like(leaves: Sequence[torch.Tensor]) -> State:
        """Uninitialised: the first step reads none of it."""
        return State(*([leaf.new_empty(leaf.shape) for leaf in leaves] for _ in range(3)))


Gradient = Callable[[list[torch.Tensor]], tuple[list[torch.Tensor], torch.Tensor]]
"""Leaves (z, *w) to their gradients, contiguous, and the losses."""


def descend(
    config: SearchConfig,
    gradient: Gradient,
    leaves: list[torch.Tensor],
    initial: list[torch.Tensor],
    state: State,
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """`config.steps` Adam steps from `leaves`.

    Args:
        gradient: called once a step, the first time on `leaves` and then on `state.values`.
        leaves: the latents and, but for weights="frozen", each group's weights: views of θ.
        initial: the same values where the first step reads them: the latents, and θ once for all groups.
        state: written.

    Returns:
        The losses at `leaves`, and the leaves after the last step (`state.values`); without a step, None and `leaves`.
    """
    rates = [config.lr_z] + [config.lr_weights] * (len(leaves) - 1)
    first: torch.Tensor | None = None
    for step in range(1, config.steps + 1):
        grads, losses = gradient(leaves)
        first = losses if first is None else first
        old = initial if step == 1 else []
        ops.adam_step_(*state, grads, old, rates, *config.betas, config.eps, step, step == config.steps)
        del grads  # their memory serves the next ones
        leaves = state.values
    return first, leaves
