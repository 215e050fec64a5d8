"""PrivateMap in plain PyTorch: full weights, gradients and moments for every pair, one torch convolution a pair.

The oracle of the kernels. It computes in the dtype of its weights (float64 is what tests want), knows of a geometry no
more than its shapes, and reads like Algorithm 1.
"""

from __future__ import annotations

import torch
from adgan_fast.kernels.maps.private import AdamConstants

from tests.support.random_maps import Layer

ADAM = AdamConstants(lr=0.03, beta1=0.5, beta2=0.999, eps=1e-8)
"""A large step, so that the change is about as large as the weights, and an error of it shows in y."""
PRECISIONS = ["float32", "tf32", "bf16"]


class PlainMap:
    """As adgan_fast.kernels.maps.private.PrivateMap; every result is in theta's dtype.

    Attributes:
        weight: (G, *natural), W of each pair.
        gradients: (G, *natural) of each step that has been kept.
    """

    def __init__(self, layer: Layer, theta: torch.Tensor, *, pairs: int, steps: int, adam: AdamConstants) -> None:
        self.layer, self.steps, self.adam, self.theta = layer, steps, adam, theta
        self.weight = theta.expand(pairs, *theta.shape).clone()
        self.m, self.v = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.gradients: list[torch.Tensor] = []

    @property
    def delta(self) -> torch.Tensor:
        """The change so far, (G, *natural)."""
        return self.weight - self.theta

    def keep(self, step: int, x: torch.Tensor, gy: torch.Tensor) -> None:
        assert len(self.gradients) == step - 1 < self.steps
        found = []
        for weight, row, grad in zip(self.weight, x.to(self.theta), gy.to(self.theta), strict=True):
            leaf = weight.clone().requires_grad_()
            found.append(torch.autograd.grad(self.layer.run(row, leaf), leaf, grad)[0])
        self.gradients.append(torch.stack(found))

    def forward(self, x: torch.Tensor, step: int) -> torch.Tensor:
        assert len(self.gradients) == step - 1 >= 1
        self._update(step - 1)
        rows = x.to(self.theta)
        return torch.stack([self.layer.run(row, weight) for row, weight in zip(rows, self.weight, strict=True)])

    def input_grad(self, gy: torch.Tensor, step: int) -> torch.Tensor:
        assert step - 1 <= len(self.gradients) <= step
        geometry = self.layer.geometry
        leaf = self.theta.new_zeros(geometry.in_positions, geometry.inputs * geometry.groups).requires_grad_()
        return torch.stack(
            [
                torch.autograd.grad(self.layer.run(leaf, weight), leaf, grad)[0]
                for weight, grad in zip(self.weight, gy.to(self.theta), strict=True)
            ]
        )

    def _update(self, step: int) -> None:
        adam, gradient = self.adam, self.gradients[step - 1]
        self.m = adam.beta1 * self.m + (1 - adam.beta1) * gradient
        self.v = adam.beta2 * self.v + (1 - adam.beta2) * gradient.square()
        denom = self.v.sqrt() * adam.inv_sqrt_bias2(step) + adam.eps
        self.weight = self.weight - adam.step_size(step) * self.m / torch.where(denom == 0, 1.0, denom)
