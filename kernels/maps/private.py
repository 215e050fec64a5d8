"""What all implementations of a map with private weights have in common: `PrivateMap`, and Adam's constants."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, Protocol

import torch

from .geometry import Geometry

__all__ = ["AdamConstants", "Form", "PrivateMap", "check_theta"]

Form = Literal["rebuild", "stored"]
"""Where the moments of step t come from: rebuilt from the history of inputs and output gradients, or stored."""


@dataclasses.dataclass(frozen=True)
class AdamConstants:
    """Adam's constants (Kingma & Ba 2015, algorithm 1), and what its step t needs of them, taken in double."""

    lr: float
    beta1: float
    beta2: float
    eps: float

    def step_size(self, step: int) -> float:
        """lr / (1 - β1^t)"""
        return self.lr / (1.0 - self.beta1**step)

    def inv_sqrt_bias2(self, step: int) -> float:
        """1 / √(1 - β2^t)"""
        return 1.0 / math.sqrt(1.0 - self.beta2**step)

    def factors(self, step: int) -> tuple[float, float]:
        """Of sums without (1 - β): lr · m̂ = factor · Σ β1^(t-s) g_s, and v̂ = factor · Σ β2^(t-s) g_s²."""
        return (1.0 - self.beta1) * self.step_size(step), (1.0 - self.beta2) * self.inv_sqrt_bias2(step) ** 2

    def largest_change(self, steps: int) -> float:
        """What no weight's change can exceed after `steps` steps, whatever the gradients.

        With a_s and b_s the weights of g_s in m̂_t and of g_s² in v̂_t, |m̂_t| ≤ √(Σ a_s² / b_s) · √v̂_t by Cauchy and
        Schwarz; ε only makes a step shorter. Infinite for β2 = 0 with β1 > 0: there b_s = 0 where a_s is not.
        """
        total = 0.0
        for t in range(1, steps + 1):
            ratio = 0.0
            for s in range(1, t + 1):
                a = (1.0 - self.beta1) * self.beta1 ** (t - s) / (1.0 - self.beta1**t)
                b = (1.0 - self.beta2) * self.beta2 ** (t - s) / (1.0 - self.beta2**t)
                ratio += a * a / b if b > 0.0 else (math.inf if a > 0.0 else 0.0)
            total += self.lr * math.sqrt(ratio)
        return total


class PrivateMap(Protocol):
    """One layer's weights, a private copy for each pair of a chunk: W = θ₀ + Δ, of which Δ alone is stored.

    Activations are channels last, float32 and contiguous: x (G, P, K·groups), y (G, Pout, N·groups). For k steps the
    order of calls is

        keep(1), forward(2), keep(2), input_grad(2), forward(3), ..., keep(k), input_grad(k), forward(k + 1)

    At step 1 all pairs share θ₀: `shared_forward` and `shared_input_grad`, at any time. All buffers are taken in the
    constructor, nothing waits for the device, and all launches go to the current stream: calls can be captured in a
    CUDA graph and replayed.
    """

    def __init__(
        self,
        geometry: Geometry,
        theta: torch.Tensor,
        *,
        pairs: int,
        steps: int,
        adam: AdamConstants,
        precision: str,
        device: torch.device,
        form: Form | None = None,
    ) -> None:
        """theta: the shared weight as torch holds it, float32. form: None for the cheaper one by the cost model."""
        ...

    def shared_forward(self, x: torch.Tensor) -> torch.Tensor:
        """y by θ₀ alone, for any number of pairs."""
        ...

    def shared_input_grad(self, gy: torch.Tensor) -> torch.Tensor:
        """gx by θ₀ alone, for any number of pairs."""
        ...

    def keep(self, step: int, x: torch.Tensor, gy: torch.Tensor) -> None:
        """The input and the output's gradient of step 1..k, in which x went through the weights before its update."""
        ...

    def forward(self, x: torch.Tensor, step: int) -> torch.Tensor:
        """y of step 2..k + 1, without bias, after the update of the step before."""
        ...

    def input_grad(self, gy: torch.Tensor, step: int) -> torch.Tensor:
        """gx of step 2..k, by the weights of that step's forward."""
        ...

    @staticmethod
    def bytes_of_pair(geometry: Geometry, steps: int, precision: str, form: Form | None = None) -> int:
        """Bytes of the buffers that each pair adds."""
        ...


def check_theta(theta: torch.Tensor, geometry: Geometry) -> None:
    """Raises ValueError unless `theta` is a weight of `geometry` as torch holds it, float32."""
    if tuple(theta.shape) != geometry.torch_shape or theta.dtype != torch.float32:
        raise ValueError(
            f"theta must be float32 of shape {geometry.torch_shape}, got {theta.dtype} {tuple(theta.shape)}"
        )
