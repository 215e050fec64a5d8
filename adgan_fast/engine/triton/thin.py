"""Convolutions of few outputs, which are not lifted: a generator's last layer, as a product and a sum by a table.

    columns[p, n, tap] = Σ_c x[p, c] · W[c, n, tap]        y[n, q] = bias[n] + Σ_tap columns[source[tap][q], n, tap]

Where outputs are no more than inputs, these columns are fewer than a convolution's patches. Back, the gradient of y is
taken apart into that of the columns, and two products make those of x and W. Activations are channels last to the
products, as the kernels of lift.py leave them and take them: nothing is copied into another order.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ...generator.program import Layer, Program
from ...kernels.gather import gather_sum
from ...kernels.maps.geometry import Geometry
from .lift import GEOMETRIES, rows_of
from .products import Product


def thinned(program: Program) -> Program:
    """The program with "thin" in place of each such convolution; its attrs are {"geometry": the map's}."""
    return dataclasses.replace(program, layers=tuple(_thin(program, layer) for layer in program.layers))


def _thin(program: Program, layer: Layer) -> Layer:
    if layer.op not in ("conv2d", "conv_transpose2d") or layer.attrs["groups"] != 1:
        return layer
    x, weight = (program.values[i] for i in layer.inputs[:2] if i is not None)
    geometry = GEOMETRIES[layer.op](layer, x.shape, weight.shape)
    if not x.batched or geometry.outputs > geometry.inputs:
        return layer
    return dataclasses.replace(layer, op="thin", attrs={"geometry": geometry})


class ThinLayer:
    """A layer "thin" for G pairs; shape: of one sample of its output. Its tables are made once, on the device."""

    def __init__(self, geometry: Geometry, shape: tuple[int, ...], precision: str, device: torch.device):
        self._geometry, self._shape, self._precision = geometry, shape, precision
        self._fold, self._unfold = (table.to(device) for table in tables(geometry))

    def run(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(G, 1, C, H, W) by weights (G, *as torch holds them) to (G, 1, *shape). G of weights may be 1."""
        groups = len(x)
        major = weight if self._geometry.input_major else weight.transpose(1, 2)
        matrices = major.flatten(2).expand(groups, -1, -1)
        columns = Product.apply(rows_of(x.squeeze(1)), matrices, self._precision)
        bias = None if bias is None else bias.expand(groups, -1)
        y = _Folded.apply(columns.flatten(1), bias, self._fold, self._unfold)
        return y.view(groups, 1, *self._shape)


class _Folded(torch.autograd.Function):
    """Columns (G, P · N · taps) to y (G, N · Pout); bias (G, N)."""

    @staticmethod
    def forward(
        ctx: Any, columns: torch.Tensor, bias: torch.Tensor | None, fold: torch.Tensor, unfold: torch.Tensor
    ) -> torch.Tensor:
        ctx.unfold, ctx.outputs = unfold, None if bias is None else bias.shape[1]
        return gather_sum(columns, fold, None if bias is None else bias.contiguous())

    @staticmethod
    def backward(ctx: Any, gy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        gy = gy.contiguous()
        of_bias = None if ctx.outputs is None else gy.view(len(gy), ctx.outputs, -1).sum(2)
        return gather_sum(gy, ctx.unfold), of_bias, None, None


def tables(geometry: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    """For gather_sum: from columns (P · N · taps) to y (N · Pout), and from y's gradient to that of the columns.

    A column's taps are in the order of the weight as torch holds it.
    """
    taps, outputs, positions = geometry.taps, geometry.outputs, geometry.out_positions
    most = max(1, *(len(part.taps) for part in geometry.classes))
    fold = torch.full((most, positions), -1, dtype=torch.int64)
    unfold = torch.full((geometry.in_positions, taps), -1, dtype=torch.int64)
    for part in geometry.classes:
        for term, (tap, source) in enumerate(zip(part.taps, part.source.long(), strict=True)):
            inside, place = source >= 0, geometry.order[tap]
            fold[term, part.target.long()[inside]] = source[inside] * (outputs * taps) + place
            unfold[source[inside], place] = part.target.long()[inside]
    channels = torch.arange(outputs)
    of_y = torch.where(fold[:, None] < 0, -1, fold[:, None] + taps * channels[:, None])
    of_columns = torch.where(unfold[:, None] < 0, -1, unfold[:, None] + positions * channels[:, None])
    return of_y.reshape(most, -1).int(), of_columns.reshape(1, -1).int()
