"""Layers with kernels of their own: that those run, and what their gradients are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch

from adgan_fast.engine import batched
from adgan_fast.engine.triton import products
from adgan_fast.engine.triton.products import multiplied
from adgan_fast.engine.triton.rows import softmaxed
from adgan_fast.engine.triton.search import TileSearch
from adgan_fast.models import DCGANGenerator
from tests.support.families import FAMILIES
from tests.support.generators import Case
from tests.support.jobs import make_job
from tests.support.operations import operations
from tests.support.triton import lowered, search

pytestmark = pytest.mark.usefixtures("one_thread")


def test_attention_and_norms_never_reach_pytorchs(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    case = FAMILIES["TransGAN"]
    settings = {"n_seed": 1, "steps": 1, "weights": "frozen"}
    want = search(case, device, **settings)
    for op in ("matmul", "softmax", "standardize"):
        monkeypatch.setitem(batched._RUN, op, lambda *_, op=op: pytest.fail(f"{op} is PyTorch's"))
    assert torch.equal(search(case, device, **settings).losses, want.losses)


def layer_over(*shape: int, batched: bool = True, **attrs: int) -> tuple[SimpleNamespace, SimpleNamespace]:
    """A program of one layer, of which its functions see no more than this; shape: of one sample of its output."""
    return SimpleNamespace(values=[SimpleNamespace(shape=shape, batched=batched)]), SimpleNamespace(
        output=0, attrs=attrs
    )


@pytest.mark.parametrize("shared", ["neither", "a", "b"])
def test_an_operand_that_all_groups_share_has_the_sum_of_their_gradients(device: torch.device, shared: str) -> None:
    random = torch.Generator().manual_seed(0)
    groups = {name: 1 if name == shared else 3 for name in "ab"}
    a = torch.randn(groups["a"], 2, 4, 5, generator=random).to(device).requires_grad_()
    b = torch.randn(groups["b"], 2, 6, 5, generator=random).to(device).requires_grad_()
    gc = torch.randn(6, 2, 3, 4, generator=random).permute(2, 1, 3, 0).to(device)
    found = multiplied(*layer_over(4, 6), a, b.mT, precision="float32")
    wide = [x.detach().double().requires_grad_() for x in (a, b)]
    want = wide[0] @ wide[1].mT
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-5)
    of_found, of_want = torch.autograd.grad(found, (a, b), gc), torch.autograd.grad(want, wide, gc.double())
    for one, other in zip(of_found, of_want, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_only_what_is_asked_for_is_multiplied_backward(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(products, "product", lambda a, b, precision: calls.append(precision) or a @ b)
    a, b = torch.ones(1, 1, 2, 3, device=device, requires_grad=True), torch.ones(1, 1, 3, 2, device=device)
    multiplied(*layer_over(2, 2), a, b, precision="tf32").sum().backward()
    assert calls == ["tf32", "tf32"] and a.grad is not None
    calls.clear()
    multiplied(*layer_over(1, 2, 2, batched=False), a, b, precision="tf32")
    assert calls == ["float32"]  # of weights alone


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_softmax_goes_along_any_dimension(device: torch.device, dim: int) -> None:
    random = torch.Generator().manual_seed(dim)
    x = torch.randn(2, 3, 4, 5, 6, generator=random).to(device).transpose(2, 3).requires_grad_()
    gy = torch.randn(x.shape, generator=random).to(device)
    found = softmaxed(*layer_over(5, 4, 6, dim=dim), x)
    wide = x.detach().double().requires_grad_()
    want = wide.softmax(dim + 2)
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=1e-7)
    (of_found,), (of_want,) = torch.autograd.grad(found, x, gy), torch.autograd.grad(want, wide, gy.double())
    torch.testing.assert_close(of_found.double(), of_want, rtol=1e-5, atol=1e-6)


def test_softmax_of_nothing_is_nothing(device: torch.device) -> None:
    for shape in ((2, 1, 0, 3), (2, 1, 3, 0), (0, 1, 3, 2)):
        assert softmaxed(*layer_over(*shape[2:], dim=1), torch.ones(shape, device=device)).shape == shape


@pytest.mark.usefixtures("all_maps_but_the_last")
def test_a_step_of_a_dcgan_launches_no_more_than_this(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """Nothing is copied into another order, or made twice: copied are the history, and gradients to their place."""
    if device.type != "cpu":
        pytest.skip("launches are told by Triton's interpreter")
    case = Case(DCGANGenerator(16, 1, 16, 8), (16,), (1, 16, 16), "two maps of eight outputs or more, and one of one")
    job = make_job(case, lowered(case), "cpu", engine="triton", steps=2)
    work = TileSearch(job.lowered, job.loss, job.config, job.device, (1, 2))
    work.starts.normal_(generator=torch.Generator().manual_seed(0))
    work.images.zero_()
    work.first()
    with operations(monkeypatch) as seen:
        work.run()
    last_back = ["pixel_loss_kernel", "tanh_backward", "gather_sum_kernel", "matmul_kernel", "matmul_kernel"]
    map_back = ["affine_act_grad_kernel", "copy_", "copy_", "shared_kernel"]
    first_back = ["affine_act_grad_kernel", "keep_kernel", "mm"]
    adam = ["_foreach_copy_", "adam_step_"]
    first = ["mm", "forward_kernel", "affine_act_kernel"]
    rest = ["shared_kernel", "change_kernel", "affine_act_kernel", "matmul_kernel", "gather_sum_kernel", "tanh"]
    step_1 = [*last_back, *map_back, *first_back, *adam, *first, *rest]
    step_2 = [*last_back, *map_back, "product_kernel", *first_back, "input_grad_kernel", *adam, *first, *rest]
    assert seen == [*step_1, *step_2, "pixel_loss_kernel"]
