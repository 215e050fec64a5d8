"""A map's private weights in float64, by autograd through the geometry's definition: what its kernels are held to."""

from __future__ import annotations

import torch
from adgan_fast.kernels.maps.geometry import Geometry
from adgan_fast.kernels.maps.private import AdamConstants


class Oracle:
    """As kernels/maps/private.py's PrivateMap; float64 on theta's device, whole weights, gradients and moments."""

    def __init__(self, geometry: Geometry, theta: torch.Tensor, *, pairs: int, adam: AdamConstants) -> None:
        self.geometry, self.adam = geometry, adam
        packed = geometry.pack(theta.detach().double())
        self.weight = packed.expand(pairs, *packed.shape).clone()
        self.m, self.v = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.gradient = self.m

    def product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """y of x (G, P, K·groups) by weight (G, groups, taps, K, N)."""
        geometry = self.geometry
        rows = x.double().unflatten(2, (geometry.groups, geometry.inputs))
        y = rows.new_zeros(len(x), geometry.out_positions, geometry.groups, geometry.outputs)
        for part in geometry.classes:
            total = torch.zeros_like(y[:, : part.target.numel()])
            for tap, source in zip(part.taps, part.source.long().to(x.device), strict=True):
                inside = (source >= 0).double()[:, None, None]
                total = total + torch.einsum(
                    "gqik,gikn->gqin", rows[:, source.clamp(min=0)] * inside, weight[:, :, tap]
                )
            y = y.index_copy(1, part.target.long().to(x.device), total)
        return y.flatten(2)

    def keep(self, x: torch.Tensor, gy: torch.Tensor) -> None:
        """The gradient of a step."""
        leaf = self.weight.clone().requires_grad_()
        self.gradient = torch.autograd.grad(self.product(x, leaf), leaf, gy.double())[0]

    def update(self, step: int) -> None:
        """Adam's step by what was kept."""
        adam, g = self.adam, self.gradient
        self.m = adam.beta1 * self.m + (1 - adam.beta1) * g
        self.v = adam.beta2 * self.v + (1 - adam.beta2) * g.square()
        denom = self.v.sqrt() * adam.inv_sqrt_bias2(step) + adam.eps
        self.weight = self.weight - adam.step_size(step) * torch.where(denom == 0, 0.0, self.m / denom)

    def input_grad(self, x: torch.Tensor, gy: torch.Tensor) -> torch.Tensor:
        """gx; of x the shape alone counts."""
        leaf = torch.zeros_like(x, dtype=torch.float64).requires_grad_()
        return torch.autograd.grad(self.product(leaf, self.weight), leaf, gy.double())[0]
