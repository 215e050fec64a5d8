"""Convolutions of few outputs: which they are, what they compute, and that nothing is copied on the way."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
from hypothesis import assume, example, given, settings
from torch import nn

from adgan_fast.engine.triton import search as triton_search
from adgan_fast.engine.triton.lift import lift
from adgan_fast.engine.triton.thin import ThinLayer, thinned
from adgan_fast.generator.rules import lower
from adgan_fast.models import DCGANGenerator
from adgan_fast.testing import REDUCED
from tests.support.families import FAMILIES
from tests.support.operations import operations
from tests.support.random_maps import Layer, conv2d, conv_transpose2d, layers
from tests.support.triton import assert_agrees

pytestmark = pytest.mark.usefixtures("one_thread")

LAST = conv_transpose2d((4, 4), 5, 3, kernel=(4, 4), stride=(2, 2), padding=(1, 1))


def sides(layer: Layer) -> tuple[int, ...]:
    """(N, H, W) of the output."""
    x = torch.zeros(1, *layer.in_shape)
    return tuple(layer.function(x, torch.zeros(layer.geometry.torch_shape)).shape[1:])


def draw(layer: Layer, pairs: int = 2) -> list[torch.Tensor]:
    """x (G, 1, C, H, W), channels last in memory, weights and biases of each pair."""
    random = torch.Generator().manual_seed(0)
    c, h, w = layer.in_shape
    x = torch.randn(pairs, 1, h, w, c, generator=random).movedim(-1, 2)
    weight = torch.randn(pairs, *layer.geometry.torch_shape, generator=random)
    return [x, weight, torch.randn(pairs, layer.geometry.outputs, generator=random)]


def made(layer: Layer, device: torch.device, precision: str = "float32") -> ThinLayer:
    return ThinLayer(layer.geometry, sides(layer), precision, device)


@settings(max_examples=30)
@given(layer=layers(side=5, channels=4))
@example(layer=LAST)
@example(layer=conv2d((4, 4), 3, 1, kernel=(3, 3), padding=(1, 1)))
@example(layer=conv2d((5, 5), 3, 1, kernel=(5, 5), stride=(2, 2)))  # 25 terms
def test_any_convolution_is_torchs_with_all_its_gradients(device: torch.device, layer: Layer) -> None:
    assume(layer.geometry.groups == 1)
    mine = [part.to(device).requires_grad_() for part in draw(layer)]
    wide = [part.double().requires_grad_() for part in draw(layer)]
    found = made(layer, device).run(*mine)
    want = torch.stack([layer.function(x, w) + b.view(1, -1, 1, 1) for x, w, b in zip(*wide, strict=True)])
    assert found.shape == want.shape
    torch.testing.assert_close(found.cpu().double(), want, rtol=1e-5, atol=1e-5)
    gy = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    of_mine = torch.autograd.grad(found, mine, gy.to(device))
    for one, other in zip(of_mine, torch.autograd.grad(want, wide, gy.double()), strict=True):
        torch.testing.assert_close(one.cpu().double(), other, rtol=1e-5, atol=1e-5)


def test_weights_that_all_pairs_share_have_the_sum_of_their_gradients(device: torch.device) -> None:
    x, weight, bias = (part.to(device) for part in draw(LAST))
    shared = [weight[:1].requires_grad_(), bias[:1].requires_grad_()]
    apart = [part.detach().expand(2, *part.shape[1:]).clone().requires_grad_() for part in shared]
    layer = made(LAST, device)
    found, want = layer.run(x, *shared), layer.run(x, *apart)
    assert torch.equal(found, want)
    sums = torch.autograd.grad(found.square().sum(), shared)
    for one, other in zip(sums, torch.autograd.grad(want.square().sum(), apart), strict=True):
        torch.testing.assert_close(one, other.sum(0, keepdim=True))


def test_activations_are_never_copied_into_another_order(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("launches are told by Triton's interpreter")
    x, weight, bias = (part.requires_grad_() for part in draw(LAST))
    layer = made(LAST, device)
    with operations(monkeypatch) as forward:
        y = layer.run(x, weight, bias)
    assert forward == ["matmul_kernel", "gather_sum_kernel"]
    gy = torch.ones_like(y)
    with operations(monkeypatch) as backward:
        gx, gw, _ = torch.autograd.grad(y, (x, weight, bias), gy)
    assert sorted(backward) == ["gather_sum_kernel", "matmul_kernel", "matmul_kernel", "sum"]  # the bias's
    assert gx.movedim(2, -1).is_contiguous() and gw.is_contiguous()


class Mixed(nn.Sequential):
    """Convolutions of which some are thin: two that share a weight among them."""

    def __init__(self) -> None:
        super().__init__()
        self.wider = nn.ConvTranspose2d(2, 4, 2)
        self.thin = nn.Conv2d(4, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.narrower = nn.ConvTranspose2d(4, 3, 4, 2, 1)
        self.tied = nn.Conv2d(3, 3, 1)
        self.again = nn.Conv2d(3, 3, 1)
        self.again.weight = self.tied.weight


def test_convolutions_of_no_more_outputs_than_inputs_are_thin() -> None:
    program = lower(DCGANGenerator(32, 1, 256, 64).eval(), (256,))
    left = thinned(lift(program)[0])
    assert [layer.op for layer in left.layers if layer.op != "reshape"] == ["private"] * 3 + ["thin", "tanh"]
    mixed = lower(Mixed().eval(), (2, 1, 1))
    ops = {layer.name.split()[0]: layer.op for layer in thinned(mixed).layers}
    assert ops == {
        "wider": "conv_transpose2d", "grouped": "conv2d",
        **dict.fromkeys(("thin", "narrower", "tied", "again"), "thin"),
    }  # fmt: skip


@pytest.mark.parametrize("family", ["DCGAN of 8", "upsample and convolve", "SNGAN"])
def test_a_search_runs_them_and_agrees_with_the_reference(
    device: torch.device, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    class Told(ThinLayer):
        def run(self, *inputs):
            ran.append(type(self))
            return super().run(*inputs)

    monkeypatch.setattr(triton_search, "ThinLayer", Told)
    assert_agrees(FAMILIES[family], device, steps=3)
    assert ran
    assert_agrees(FAMILIES[family], device, REDUCED, precision="bf16")
