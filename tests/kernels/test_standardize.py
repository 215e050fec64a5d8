"""Rows are standardized as torch and its autograd do in float64.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see tests/support/interpreted.py.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import standardize as kernels

from tests.support.uninitialised import filled_with_nan

SHAPES = [(1, 1), (3, 2), (5, 127), (4, 128), (2, 1000), (2, 4096), (2, 4097), (1, 9000)]


def plain(x: torch.Tensor, eps: float) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_value_and_gradient_are_those_of_autograd(device: torch.device, shape: tuple[int, int], offset: float) -> None:
    random = torch.Generator().manual_seed(sum(shape))
    x, gy = torch.randn(shape, generator=random) + offset, torch.randn(shape, generator=random)
    wide = x.double().requires_grad_()
    want = plain(wide, 1e-5)
    (of_x,) = torch.autograd.grad(want, wide, gy.double())
    with filled_with_nan():
        y, inverse = kernels.standardize(x.to(device), 1e-5)
        gx = kernels.standardize_grad(gy.to(device), y, inverse)
    rounding = 4e-7 * max(1.0, offset)  # x itself has no more digits than its mean leaves it
    assert (y.cpu() - want).abs().max() <= rounding * (4 + want.abs().max())
    assert (gx.cpu() - of_x).abs().max() <= rounding * (4 + of_x.abs().max()) * max(1.0, float(inverse.max()))


def test_rows_of_one_number_are_zero_and_nan_stays_in_its_row(device: torch.device) -> None:
    x = torch.tensor([[2.0, 2.0, 2.0], [1.0, float("nan"), 2.0], [1.0, 2.0, 3.0]], device=device)
    y, inverse = kernels.standardize(x, 1e-5)
    assert torch.equal(y[0], torch.zeros_like(y[0])) and inverse[0].item() == pytest.approx(1e-5**-0.5, rel=1e-6)
    assert y[1].isnan().all() and y[2].isfinite().all()
    gx = kernels.standardize_grad(torch.ones_like(x), y, inverse)
    assert torch.equal(gx[0], torch.zeros_like(gx[0])) and gx[1].isnan().all() and gx[2].isfinite().all()


def test_every_launch_has_the_same_bits_and_a_row_those_that_it_has_alone(device: torch.device) -> None:
    x = torch.randn(6, 5000, generator=torch.Generator().manual_seed(3)).to(device)
    y, inverse = kernels.standardize(x, 1e-5)
    again, _ = kernels.standardize(x, 1e-5)
    alone, _ = kernels.standardize(x[4:5].clone(), 1e-5)
    assert torch.equal(y, again) and torch.equal(y[4:5], alone)
    grads = [
        kernels.standardize_grad(x[r].contiguous(), y[r].contiguous(), inverse[r]) for r in (slice(6), slice(4, 5))
    ]
    assert torch.equal(grads[0][4:5], grads[1])


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    x = torch.ones(2, 3, device=device)
    for wrong in (x.double(), x[0], x.T, torch.ones(2, 0, device=device)):
        with pytest.raises(ValueError, match="must be"):
            kernels.standardize(wrong, 1e-5)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.standardize_grad(x, torch.ones(3, 3, device=device), x[:, 0])
