"""Geometry says of linear, conv2d and conv_transpose2d what torch computes, forward and both gradients."""

from __future__ import annotations

import pytest
import torch
from adgan_fast.kernels.maps.geometry import Geometry
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.support.random_maps import Layer, layers, linears, unpack


def forward(geometry: Geometry, packed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(groups, taps, K, N) and (P, K·groups) to (Pout, N·groups), by the formula of the module."""
    y = torch.full((geometry.out_positions, geometry.groups, geometry.outputs), torch.nan, dtype=x.dtype)
    padded = F.pad(x.view(-1, geometry.groups, geometry.inputs), (0, 0, 0, 0, 0, 1))  # row -1 is zero
    for part in geometry.classes:
        rows = padded[part.source.long()]  # (T, Q, groups, K)
        y[part.target.long()] = torch.einsum("tqgk,gtkn->qgn", rows, packed[:, part.taps.start : part.taps.stop])
    return y.flatten(1)


def weight_grad(geometry: Geometry, x: torch.Tensor, gy: torch.Tensor) -> torch.Tensor:
    """(groups, taps, K, N); zero for taps that no class has."""
    g = x.new_zeros(geometry.groups, geometry.taps, geometry.inputs, geometry.outputs)
    padded = F.pad(x.view(-1, geometry.groups, geometry.inputs), (0, 0, 0, 0, 0, 1))
    gy = gy.view(-1, geometry.groups, geometry.outputs)
    for part in geometry.classes:
        rows = padded[part.source.long()]
        part_g = torch.einsum("tqgk,qgn->gtkn", rows, gy[part.target.long()])
        g[:, part.taps.start : part.taps.stop] = part_g
    return g


def input_grad(geometry: Geometry, packed: torch.Tensor, gy: torch.Tensor) -> torch.Tensor:
    padded = F.pad(gy.view(-1, geometry.groups, geometry.outputs), (0, 0, 0, 0, 0, 1))
    rows = padded[geometry.sink.long()]  # (taps, P, groups, N)
    return torch.einsum("tpgn,gtkn->pgk", rows, packed).flatten(1)


def check(layer: Layer) -> None:
    geometry = layer.geometry
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(geometry.torch_shape, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(
        geometry.in_positions, geometry.inputs * geometry.groups, generator=generator, dtype=torch.float64
    ).requires_grad_()
    y = layer.run(x, weight)
    assert y.shape == (geometry.out_positions, geometry.outputs * geometry.groups)
    gy = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    gx, gw = torch.autograd.grad(y, [x, weight], gy, materialize_grads=True)
    with torch.no_grad():
        packed = geometry.pack(weight)
        assert packed.shape == (geometry.groups, geometry.taps, geometry.inputs, geometry.outputs)
        assert packed.is_contiguous()
        assert torch.equal(unpack(geometry, packed), weight)
        torch.testing.assert_close(forward(geometry, packed, x), y)
        torch.testing.assert_close(unpack(geometry, weight_grad(geometry, x, gy)), gw)
        torch.testing.assert_close(input_grad(geometry, packed, gy), gx)


@given(layers())
def test_any_convolution_is_torchs(layer: Layer) -> None:
    check(layer)


@given(linears())
def test_any_linear_is_torchs(layer: Layer) -> None:
    check(layer)


@given(st.one_of(layers(), linears()))
def test_classes_part_the_outputs_and_the_taps(layer: Layer) -> None:
    geometry = layer.geometry
    targets = torch.cat([part.target for part in geometry.classes])
    assert torch.equal(targets.sort().values, torch.arange(geometry.out_positions, dtype=torch.int32))
    taps = [tap for part in geometry.classes for tap in part.taps]
    assert taps == list(range(geometry.live_taps))
    assert sorted(geometry.order) == list(range(geometry.taps))
    assert (geometry.sink[geometry.live_taps :] == -1).all()
    assert (geometry.sink[: geometry.live_taps] >= 0).any(1).all()
    for part in geometry.classes:
        assert part.source.shape == (len(part.taps), len(part.target)) and len(part.target) > 0


def test_transposed_convolution_of_stride_two_has_four_classes_without_holes() -> None:
    geometry = Geometry.conv_transpose2d((4, 4), 6, 5, (4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1)
    assert [len(part.taps) for part in geometry.classes] == [4] * 4
    assert [len(part.target) for part in geometry.classes] == [16] * 4


@pytest.mark.parametrize("batch", [(), (3,)])
def test_packing_takes_batches(batch: tuple[int, ...]) -> None:
    geometry = Geometry.conv_transpose2d((2, 3), 6, 4, (3, 2), (2, 1), (1, 0), (1, 0), (1, 2), 2)
    weight = torch.randn(*batch, *geometry.torch_shape)
    packed = geometry.pack(weight)
    assert packed.shape == (*batch, 2, 6, 3, 2)
    assert torch.equal(unpack(geometry, packed), weight)
