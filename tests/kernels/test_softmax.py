"""The softmax of rows is what torch and its autograd make of them in float64.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see tests/support/interpreted.py.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import softmax as kernels

from tests.support.uninitialised import filled_with_nan

# Rows that share a program, with a rest and without; one to a program; rows of several blocks.
SHAPES = [(1, 1), (3, 1), (65, 3), (130, 16), (5, 17), (17, 65), (4, 256), (3, 1000), (2, 4096), (2, 4097), (1, 9000)]
EPS = torch.finfo(torch.float32).eps


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (20.0, 500.0)])
def test_value_and_gradient_are_those_of_autograd(
    device: torch.device, shape: tuple[int, int], scale: float, offset: float
) -> None:
    random = torch.Generator().manual_seed(sum(shape))
    x, gy = torch.randn(shape, generator=random) * scale + offset, torch.randn(shape, generator=random)
    wide = x.double().requires_grad_()
    want = wide.softmax(1)
    (of_x,) = torch.autograd.grad(want, wide, gy.double())
    with filled_with_nan():
        y = kernels.softmax(x.to(device))
        gx = kernels.softmax_grad(gy.to(device), y)
    torch.testing.assert_close(y.cpu().double(), want.detach(), rtol=16 * EPS, atol=torch.finfo(torch.float32).tiny)
    # y · (gy − mean): the difference has the error of its terms, y that of its exponent.
    size = want.detach() * (gy.abs().double() + (want.detach() * gy.abs()).sum(1, keepdim=True))
    assert ((gx.cpu() - of_x).abs() <= 32 * EPS * size + torch.finfo(torch.float32).tiny).all()
    assert (y.sum(1) - 1).abs().max() <= 8 * EPS


@pytest.mark.parametrize("n", [3, 4100])
def test_infinities_and_nan_are_as_torch_has_them_and_stay_in_their_rows(device: torch.device, n: int) -> None:
    x = torch.randn(8, n, generator=torch.Generator().manual_seed(0))
    x[1, 1] = x[2, :2] = -torch.inf
    x[3] = -torch.inf
    x[4, n - 1] = torch.inf
    x[5, 0] = torch.nan
    x[6, :2] = torch.tensor([torch.nan, -torch.inf])
    y = kernels.softmax(x.to(device)).cpu()
    want = x.softmax(1)
    assert want.isnan().any(1).tolist() == [False, False, False, True, True, True, True, False]
    torch.testing.assert_close(y, want, equal_nan=True, rtol=1e-5, atol=1e-7)
    assert y[1, 1] == 0 and not y[2, :2].any()
    gy = torch.ones_like(x)
    gy[0, 1] = torch.nan
    gy[7, 0] = torch.inf
    gx = kernels.softmax_grad(gy.to(device), y.to(device)).cpu()
    assert gx.isfinite().all(1).tolist() == [False, True, True, False, False, False, False, False]
    assert gx[1, 1] == 0  # what takes no part has no gradient
    assert torch.equal(gx.isfinite(), torch.ops.aten._softmax_backward_data(gy, want, 1, torch.float32).isfinite())


def test_every_launch_has_the_same_bits_and_a_row_those_that_it_has_alone(device: torch.device) -> None:
    for n in (7, 5000):
        x = torch.randn(70, n, generator=torch.Generator().manual_seed(3)).to(device)
        y = kernels.softmax(x)
        assert torch.equal(y, kernels.softmax(x)) and torch.equal(y[66:67], kernels.softmax(x[66:67].clone()))
        gx = kernels.softmax_grad(x, y)
        assert torch.equal(gx[66:67], kernels.softmax_grad(x[66:67].clone(), y[66:67].clone()))


def test_no_rows_and_rows_of_no_numbers_are_empty(device: torch.device) -> None:
    for shape in ((0, 3), (3, 0), (0, 0)):
        x = torch.ones(shape, device=device)
        assert kernels.softmax(x).shape == kernels.softmax_grad(x, x).shape == shape


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    x = torch.ones(2, 3, device=device)
    for wrong in (x.double(), x[0], x.T):
        with pytest.raises(ValueError, match=r"x must be \(R, n\), float32 and contiguous"):
            kernels.softmax(wrong)
        with pytest.raises(ValueError, match="y must be"):
            kernels.softmax_grad(x, wrong)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.softmax_grad(x, torch.ones(3, 3, device=device))


def test_launches_use_only_specialisations_that_are_compiled_ahead() -> None:
    ahead = [case.constexprs for case in kernels.cases()]
    for n in (1, 16, 64, 256, 1000, 2048, 4096, 9000):
        assert kernels._tile(n) in ahead
