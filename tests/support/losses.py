"""Losses that are functions, to search with."""

from __future__ import annotations

import torch


def squares(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """l2, as a function that no engine knows: (B,)."""
    return (reconstruction - image).square().flatten(1).sum(1)


class Failing:
    """`squares`, which counts its calls and raises `error` at one of them, counted from one."""

    def __init__(self, error: BaseException | type[BaseException], at: int) -> None:
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return squares(reconstruction, image)
