"""What stands behind an encoder or a generator, with a few numbers of its own: a likelihood, and a centre."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..given import flag, positive, whole
from .parts import Model

_FINEST = 1 / 127.5
"""The step between two values of an 8-bit pixel in [-1, 1]: no finer scale is known of an image."""


class GaussianLikelihood(Model):
    """log N(x | mean, s² I) of images x (B, C, H, W) around means of that shape: (B,), in nats.

    One scale s for all pixels. It is learned unless ``fixed``, and then settles where s² is the mean squared error
    (Rybkin et al. 2021, "Simple and effective VAE training with calibrated decoders", Sect. 4): so the weight of the
    reconstruction against the prior is the likelihood's own, not one more setting. s² = (1/127.5)² + exp(log_variance),
    which keeps a perfect reconstruction from an infinite density.

    Args:
        scale: s, or where it begins.
        fixed: whether s stays as it is.
    """

    def __init__(self, scale: float = 0.5, fixed: bool = False) -> None:
        super().__init__()
        self.scale, self.fixed = positive("scale", scale), flag("fixed", fixed)
        if self.scale <= _FINEST:
            raise ValueError(f"scale must be above {_FINEST:.4g}, the step of an 8-bit pixel, got {scale!r}")
        begin = torch.tensor(math.log(self.scale**2 - _FINEST**2))
        self.log_variance = nn.Parameter(begin, requires_grad=not self.fixed)

    @property
    def variance(self) -> torch.Tensor:
        """s², a tensor without dimensions."""
        return _FINEST**2 + self.log_variance.exp()

    def forward(self, mean: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) twice to (B,)."""
        variance = self.variance
        squares = (x - mean).square().flatten(1)
        return -0.5 * (squares.sum(1) / variance + squares.shape[1] * torch.log(2 * math.pi * variance))


class Centre(Model):
    """Squared distance of codes (B, outputs) from one point: (B,). The point, a buffer, is set by the training."""

    centre: torch.Tensor

    def __init__(self, outputs: int = 32) -> None:
        super().__init__()
        self.outputs = whole("outputs", outputs, 1)
        self.register_buffer("centre", torch.zeros(self.outputs))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(B, outputs) to (B,)."""
        return (codes - self.centre).square().sum(1)
