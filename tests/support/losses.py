"""Losses that are functions, to search with."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def squares(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """l2, as a function that no engine knows: (B,)."""
    return (reconstruction - image).square().flatten(1).sum(1)


def huber(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A loss that no engine knows, flatter than l2 far from zero: (B,)."""
    return F.huber_loss(reconstruction, image, reduction="none", delta=0.4).flatten(1).sum(1)


LOSSES = ("l2", "l1", "laplacian", huber)


class Failing:
    """`squares`, which counts its calls and raises `error` at one of them, counted from one."""

    def __init__(self, error: BaseException | type[BaseException], at: int) -> None:
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return squares(reconstruction, image)
