"""Convolutions of few outputs: which they are, what they compute, and what is launched for them."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
from hypothesis import example, given, settings
from torch import nn

from adgan_fast.engine.triton import search as triton_search
from adgan_fast.engine.triton.lift import lift
from adgan_fast.engine.triton.thin import ThinLayer, columns_of, thinned
from adgan_fast.generator.rules import lower
from adgan_fast.models import DCGANGenerator
from adgan_fast.testing import REDUCED
from tests.support.families import FAMILIES
from tests.support.generators import Case
from tests.support.jobs import make_job
from tests.support.layers import randomise
from tests.support.operations import operations
from tests.support.random_maps import Layer, conv2d, conv_transpose2d, layers
from tests.support.triton import ENGINE, assert_agrees, lowered

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
@given(layer=layers(side=5, channels=4).filter(lambda layer: layer.geometry.groups == 1))
@example(layer=LAST)
@example(layer=conv2d((4, 4), 3, 1, kernel=(3, 3), padding=(1, 1)))
@example(layer=conv2d((5, 5), 3, 1, kernel=(5, 5), stride=(2, 2)))  # 25 terms
def test_any_convolution_is_torchs_with_all_its_gradients(device: torch.device, layer: Layer) -> None:
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


STRAIGHT = conv2d((4, 4), 3, 2, kernel=(3, 3), padding=(1, 1))
PRODUCT, SUM = "matmul_kernel", "gather_sum_kernel"


@pytest.mark.parametrize(
    ("layer", "want"), [(LAST, [PRODUCT, SUM]), (STRAIGHT, ["clone", PRODUCT, SUM])], ids=["transposed", "conv2d"]
)
def test_of_copies_there_is_that_of_conv2ds_weights_alone(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, layer: Layer, want: list[str]
) -> None:
    if device.type != "cpu":
        pytest.skip("launches are told by Triton's interpreter")
    x, weight, bias = (part.requires_grad_() for part in draw(layer))
    mine = made(layer, device)
    with operations(monkeypatch) as forward:
        y = mine.run(x, weight, bias)
    assert forward == want
    gy = torch.ones_like(y)
    with operations(monkeypatch) as backward:
        gx, *_ = torch.autograd.grad(y, (x, weight, bias), gy)
    assert sorted(backward) == [SUM, PRODUCT, PRODUCT, "sum"]  # the last of the bias
    assert gx.movedim(2, -1).is_contiguous()


class Mixed(nn.Sequential):
    """Convolutions of which some are thin: two that share a weight among them."""

    def __init__(self) -> None:
        super().__init__()
        self.wider = nn.ConvTranspose2d(2, 8, 2)
        self.thin = nn.Conv2d(8, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 4, 1, groups=2)
        self.transposed = nn.ConvTranspose2d(4, 7, 4, 2, 1)
        self.shrinking = nn.Conv2d(7, 7, 2, 2)  # four positions of columns for one of patches
        self.tied = nn.Conv2d(7, 7, 1)
        self.again = nn.Conv2d(7, 7, 1)
        self.again.weight = self.tied.weight


def test_convolutions_of_few_outputs_whose_columns_are_few_are_thin() -> None:
    program = lower(DCGANGenerator(32, 1, 256, 64).eval(), (256,))
    left = thinned(lift(program)[0])
    assert [layer.op for layer in left.layers if layer.op != "reshape"] == ["private"] * 3 + ["thin", "tanh"]
    mixed = lower(Mixed().eval(), (2, 1, 1))
    ops = {layer.name.split()[0]: layer.op for layer in thinned(mixed).layers}
    assert ops == {
        "wider": "conv_transpose2d", **dict.fromkeys(("grouped", "shrinking"), "conv2d"),
        **dict.fromkeys(("thin", "transposed", "tied", "again"), "thin"),
    }  # fmt: skip


def test_the_memory_of_a_pair_has_the_columns_and_conv2ds_weights_in_the_products_order() -> None:
    module = randomise(nn.Sequential(nn.Conv2d(3, 2, 5, padding=2), nn.Conv2d(2, 1, 3)), 0)
    case = Case(module, (3, 8, 8), (1, 6, 6), "two thin convolutions")
    job = make_job(case, lowered(case), "cpu", engine="triton")
    program = job.lowered
    numbers = 5 * program.parameter_count + 2 * (3 * 2 * 25 + 2 * 9) + 4 * program.activation_count
    assert ENGINE.bytes_of_pair(job) == 4 * (numbers + 3 * 3 * 25 * 64)  # conv2d's patches are the larger ones
    assert columns_of(thinned(program).layers[0].attrs["geometry"]) == 64 * 2 * 25


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
