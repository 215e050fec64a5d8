"""Convolutions of few outputs, which are not lifted: a generator's last layer, as a product and a sum by a table.

    columns[p, n, tap] = Σ_c x[p, c] · W[c, n, tap]        y[n, q] = bias[n] + Σ_tap columns[source[tap][q], n, tap]

Back, the gradient of y is taken apart into that of the columns, and two products make those of x and W. Activations are
channels last to the products, as the kernels of lift.py leave them and take them; y has its channels first.

Which convolutions: those of one group, with fewer than lift.LEAST_OUTPUTS outputs (the product is not tuned for more),
whose columns are no more than the patches that batched.py would make, by which memory is planned. So it is for nearly
every last layer.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from ...generator.program import Layer, Program
from ...kernels.gather import gather_sum
from ...kernels.maps.geometry import Geometry
from . import lift
from .products import Product


def thinned(program: Program) -> Program:
    """The program with "thin" in place of each such convolution; its attrs are {"geometry": the map's}."""
    return dataclasses.replace(program, layers=tuple(_replaced(program, layer) for layer in program.layers))


def _replaced(program: Program, layer: Layer) -> Layer:
    if layer.op not in ("conv2d", "conv_transpose2d") or layer.attrs["groups"] != 1:
        return layer
    x, weight = (program.values[i] for i in layer.inputs[:2] if i is not None)
    geometry = lift.GEOMETRIES[layer.op](layer, x.shape, weight.shape)
    # The patches of a transposed convolution are its columns.
    fewer = geometry.input_major or columns_of(geometry) <= geometry.inputs * geometry.taps * geometry.out_positions
    if not x.batched or geometry.outputs >= lift.LEAST_OUTPUTS or not fewer:
        return layer
    return dataclasses.replace(layer, op="thin", attrs={"geometry": geometry})


def columns_of(geometry: Geometry) -> int:
    """Numbers in the columns of one sample."""
    return geometry.in_positions * geometry.outputs * geometry.taps


def numbers_of_pair(program: Program) -> int:
    """What layers "thin" hold for a pair at most, beside activations and temporaries: conv2d's weights, twice.

    (In the order of the product: those of the first pass, for the whole search, and those of the step at work.)
    """
    geometries = (layer.attrs["geometry"] for layer in program.layers if layer.op == "thin")
    return sum(2 * math.prod(geometry.torch_shape) for geometry in geometries if not geometry.input_major)


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
        columns = Product.apply(lift.rows_of(x.squeeze(1)), matrices, self._precision)
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
    def backward(ctx: Any, gy: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        gy = gy.contiguous()
        need_columns, need_bias, *_ = ctx.needs_input_grad
        of_bias = gy.view(len(gy), ctx.outputs, -1).sum(2) if need_bias else None
        return gather_sum(gy, ctx.unfold) if need_columns else None, of_bias, None, None


def terms_of(geometry: Geometry) -> int:
    """Terms of the sum that makes a number of y: the taps of the largest class, one at least."""
    return max(1, *(len(part.taps) for part in geometry.classes))


def tables(geometry: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    """For gather_sum: from columns (P · N · taps) to y (N · Pout), and from y's gradient to that of the columns.

    A column's taps are in the order of the weight as torch holds it.
    """
    taps, outputs, positions = geometry.taps, geometry.outputs, geometry.out_positions
    most = terms_of(geometry)
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
