"""What each rule makes is what its module makes: images and all gradients, in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adgan_fast.engine import batched
from adgan_fast.generator.rules import lower
from tests.support.families.parts import case
from tests.support.generators import Case
from tests.support.layers import Function
from tests.support.programs import assert_same_numbers

pytestmark = pytest.mark.usefixtures("one_thread")


class Weighted(nn.Module):
    """A function of x and of a learned matrix (4, 3)."""

    def __init__(self, function):
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.zeros(4, 3)), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.weight)


class Given(nn.Module):
    """A function of x and of a constant (4, 3)."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("numbers", torch.zeros(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.numbers)


def behind(layer, seed: int = 1) -> Case:
    """The layer, of maps (4, 2, 3), behind a convolution; a linear layer makes an image of what it gives."""
    layer = Function(layer) if not isinstance(layer, nn.Module) else layer
    with torch.no_grad():
        count = layer.eval()(torch.ones(1, 4, 2, 3)).numel()
    layers = nn.Conv2d(4, 4, 1), layer, nn.Flatten(), nn.Linear(count, 6), nn.Unflatten(1, (1, 2, 3))
    return case("", seed, (4, 2, 3), (1, 2, 3), nn.Sequential(*layers))


def into_slice(x: torch.Tensor) -> torch.Tensor:
    x = x * 1
    x[0].mul_(0.5)
    x[:, 1:3] *= 2
    x[:, 0].tanh_()
    return x


def filled(x: torch.Tensor) -> torch.Tensor:
    made = torch.zeros_like(x)
    made[:, 1], made[:, :, 1] = x[:, 2], 0.5
    return made + x.new_full((4, 1, 1), 0.3) + torch.ones_like(x)


LAYERS = {
    "GELU": nn.GELU(), "GELU by tanh": nn.GELU("tanh"), "Hardtanh": nn.Hardtanh(-0.5, 0.7), "ReLU6": nn.ReLU6(),
    "Hardswish": nn.Hardswish(), "Mish": nn.Mish(), "LogSigmoid": nn.LogSigmoid(), "SELU": nn.SELU(),
    "CELU": nn.CELU(0.5), "RReLU": nn.RReLU(), "Softsign": nn.Softsign(), "Tanhshrink": nn.Tanhshrink(),
    "GLU": nn.GLU(1), "GLU of the first half": nn.GLU(-3), "Softmax": nn.Softmax(-2), "Softmax2d": nn.Softmax2d(),
    "PReLU of one": nn.PReLU(), "PReLU of channels": nn.PReLU(4),
    "clamp": lambda x: x.clamp(-0.2, 0.5) + x.clamp(min=0.1) + x.clamp_max(0.3),
    "powers": lambda x: x**3 + (x * x + 1).sqrt() + x.square() + (x.abs() + 1) ** -0.7 + x**2,
    "reciprocals": lambda x: 1 / (x.abs() + 1) + (x.exp() + 1).reciprocal() + torch.rsqrt(x * x + 0.5),
    "exp and log": lambda x: torch.log(x.exp() + 0.5),
    "lerp": lambda x: torch.lerp(x, x.tanh(), 0.3).lerp(x.sigmoid(), x.abs()),
    "sums": lambda x: x.sum((1, -1)) + x.sum(1).sum(2) + x.mean((-3, 3)) + x.sum() + x.mean(),
    "sums that keep dimensions": lambda x: x - x.mean((2, 3), keepdim=True) * x.sum(-1, keepdim=True),
    "variances": lambda x: x.var((2, 3)) + x.var((2, 3), correction=0) + x.std((-2, -1)) + x.flatten(2).var(2, False),
    "norms": lambda x: x.norm(dim=1) + torch.linalg.vector_norm(x, dim=(1,)) + F.normalize(x, dim=-1).sum(1),
    "InstanceNorm": nn.InstanceNorm2d(4), "InstanceNorm, affine": nn.InstanceNorm2d(4, affine=True, eps=1e-2),
    "InstanceNorm by running statistics": nn.InstanceNorm2d(4, track_running_stats=True),
    "GroupNorm": nn.GroupNorm(2, 4), "GroupNorm of one group": nn.GroupNorm(1, 4, affine=False),
    "GroupNorm of tokens": lambda x: F.group_norm(x.flatten(2), 4),
    "LayerNorm": nn.LayerNorm(3), "LayerNorm of maps": nn.LayerNorm((4, 2, 3), eps=1e-3),
    "LayerNorm without weights": nn.LayerNorm((2, 3), elementwise_affine=False),
    "RMSNorm": nn.RMSNorm((2, 3), eps=1e-3), "RMSNorm with the dtype's eps": nn.RMSNorm(3),
    "BatchNorm by the image": nn.BatchNorm2d(4, track_running_stats=False),
    "weight norm": nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 2)),
    "spectral norm": nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 3, 2)),
    "a kernel scaled by its norm": Weighted(
        lambda x, w: F.conv2d(x, (w / w.norm(dim=1, keepdim=True)).mT[..., None, None])
    ),
    "bilinear": lambda x: F.interpolate(x, (5, 4), mode="bilinear"),
    "bilinear with corners": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "bilinear, antialiased": lambda x: F.interpolate(x, (1, 2), mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, scale_factor=(1.5, 3), mode="bicubic"),
    "nearest by 1.7": nn.Upsample(scale_factor=1.7), "nearest exact": nn.Upsample(size=(5, 2), mode="nearest-exact"),
    "AvgPool": nn.AvgPool2d((2, 2), 1, 1, count_include_pad=False), "AvgPool, ceil": nn.AvgPool2d(2, ceil_mode=True),
    "AdaptiveAvgPool": nn.AdaptiveAvgPool2d((3, 2)),
    "edges": lambda x: F.pad(x, (1, -1, 2, 0, 0, 1), value=0.5),
    "mirrored edges": lambda x: F.pad(F.pad(x, (2, 1, 1, 0), mode="reflect"), (1, 0, 0, 3), mode="replicate"),
    "circular edges": nn.Conv2d(4, 2, 3, padding=(1, 2), padding_mode="circular"),
    "slices": lambda x: x[:, 1:, ::2, -2:] + x.narrow(-1, 1, 2)[:, :3, -1:] + x[:, 0, 1, 1].view(-1, 1, 1, 1),
    "splits": lambda x: torch.cat([a.tanh() * (i + 1) for i, a in enumerate(x.split([1, 3], 1))], 1),
    "chunks": lambda x: x.chunk(2, -3)[1] * x.unbind(1)[2].unsqueeze(1) - torch.stack(x.unbind(-1)[:2], -1).sum(),
    "indices": lambda x: x[:, [3, 0, 0, 2]] + x.index_select(1, torch.tensor([1, 1, 2, 0])),
    "turns": lambda x: x.flip(1, -1) + x.roll(2, -1) * x.roll((1, -1), (1, 3)),
    "repeats": lambda x: x.repeat(1, 2, 1, 1) * x.repeat_interleave(2, 1) + x.tile(2)[..., :3].sum(),
    "moved": lambda x: x.permute(2, 0, 3, 1).softmax(-1).flip(0).permute(1, 3, 0, 2),
    "moved by movedim": lambda x: x.movedim(0, -1).tanh().movedim(3, 0) + x.movedim((1, 2, 3), (2, 3, 1)).mT.sum(),
    "batch last": lambda x: (x.flatten(1).T * 2).T.view(x.shape) + x.mT.mT,
    "the first image": lambda x: x * x[0].tanh() + x.transpose(0, 1).reshape(1, 4, 2, 3),
    "written in place": into_slice, "made of zeros": filled,
    "expanded": lambda x: x.mean(1, keepdim=True).expand(-1, 4, -1, -1) + x.mean(1)[:, None].expand_as(x),
    "where": Given(lambda x, n: torch.where(n[:2] > 0, x[:, :1], n[:, 0].view(4, 1, 1)).sum(1)),
    "masks": Given(lambda x, n: x.masked_fill(n[:2] > 0, 0.4) + torch.where(n[:2] < 0.1, x, 1.5) + x * (n[2:] > 0)),
    "causal": lambda x: F.scaled_dot_product_attention(x, x * 2, x.tanh(), is_causal=True),
    "attention, masked": Given(lambda x, n: F.scaled_dot_product_attention(x.mT, x.mT, x.mT, n[:3] > n.min())),
    "attention, biased": Weighted(lambda x, w: F.scaled_dot_product_attention(x.mT, x.mT, x.mT, w[:3], scale=0.3)),
    "products": Weighted(lambda x, w: w.mT @ (w @ x.mT) + x.mT @ w[0, :2, None] + (w[0] @ w.mT @ x[:, :, 0]).sum()),
    "einsum": Weighted(lambda x, w: torch.einsum("bchw,cw,bdhw->bdh", x, w, x)),
    "a product of weights": Weighted(lambda x, w: x @ (w.mT @ w) + (w.expand(2, 4, 3) @ w.mT)[0, 0, :3]),
    "tokens first": lambda x: F.linear(x.flatten(2).permute(2, 0, 1), torch.ones(2, 4).to(x)).permute(1, 2, 0),
    "one-hot": lambda x: x * F.one_hot(torch.full((x.shape[0],), 2), 3).view(-1, 1, 1, 3) + torch.eye(3).to(x)[1:],
    "unknown ops of constants": lambda x: x + torch.linspace(0, 1, 3).cumsum(0).sin().to(x),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name):
    assert_same_numbers(behind(LAYERS[name]))


def test_a_hardsigmoid():
    """Whose gradient in PyTorch is by a sixth in float32, whatever the dtype."""
    assert_same_numbers(behind(nn.Hardsigmoid()), rtol=1e-6)


@pytest.mark.parametrize("form", ["buffer", "full", "weight"])
def test_an_embedding_of_a_constant(form):
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3, padding_idx=0)
            self.register_buffer("label", torch.tensor([4, 1]))

        def forward(self, x):
            if form == "buffer":
                return x * self.table(self.label)
            if form == "full":
                return x + self.table(torch.full((x.shape[0],), 3)).view(-1, 1, 1, 3)
            return x - self.table.weight[4]

    assert_same_numbers(behind(Embedded()))


# -- where numbers end ---------------------------------------------------------------------------------------------

FLAT = {
    "InstanceNorm": nn.InstanceNorm2d(4), "GroupNorm": nn.GroupNorm(2, 4), "LayerNorm": nn.LayerNorm((4, 2, 3)),
    "BatchNorm by the image": nn.BatchNorm2d(4, track_running_stats=False), "RMSNorm": nn.RMSNorm(3, eps=1e-6),
    "standard deviation": lambda x: x / (x.std((2, 3), keepdim=True) + 0.1),
    "variance": lambda x: x * (x.var((1, 2, 3), keepdim=True) + 1e-3).rsqrt(),
    "normalize": lambda x: F.normalize(x, dim=1),
    "norm": lambda x: x + x.norm(dim=(2, 3), keepdim=True), "softmax": lambda x: x.softmax(-1),
}  # fmt: skip


@pytest.mark.parametrize("number", [0.0, 1.0])
@pytest.mark.parametrize("name", FLAT)
def test_statistics_of_numbers_that_are_all_alike(name, number):
    """No variance, and (of zeros) no norm: gradients are as PyTorch has them, none of them NaN."""
    layer = FLAT[name] if isinstance(FLAT[name], nn.Module) else Function(FLAT[name])
    assert_same_numbers(behind(nn.Sequential(Function(lambda x: x * 0 + number), layer)))


BOUNDS = {
    "Hardtanh": (nn.Hardtanh(), 1.0), "ReLU6": (nn.ReLU6(), 6.0), "Hardswish": (nn.Hardswish(), 3.0),
    "clamp": (Function(lambda x: x.clamp(-1, 1)), 1.0), "abs": (Function(torch.abs), 0.0),
    "ReLU": (nn.ReLU(), 0.0), "PReLU": (nn.PReLU(), 0.0), "power": (Function(lambda x: x**2), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", BOUNDS)
def test_gradients_on_bounds_are_pytorchs(name, sign):
    layer, bound = BOUNDS[name]
    assert_same_numbers(behind(nn.Sequential(Function(lambda x: x * 0 + sign * bound), layer)))


PROPAGATES = {**{name: layer for name, layer in LAYERS.items() if not name.startswith("attention")}, **FLAT}


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize(
    "name", ["clamp", "Hardtanh", "GELU", "norms", "where", "masks", "slices", "LayerNorm", "Softmax"]
)
def test_what_is_not_finite_stays_where_pytorch_has_it(name, number):
    """One pixel of a channel is not finite: the same numbers of the result are not."""
    layer = copy.deepcopy(PROPAGATES[name]) if isinstance(PROPAGATES[name], nn.Module) else Function(PROPAGATES[name])
    with torch.no_grad():
        count = layer.eval()(torch.ones(1, 4, 2, 3)).numel()
    module = (
        nn.Sequential(Function(lambda z: z * 1), layer, nn.Flatten(), nn.Unflatten(1, (1, 1, count))).double().eval()
    )
    program = lower(module, (4, 2, 3))
    z = torch.randn(1, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[0, 1, 1, 0] = number
    made = batched.forward(program, z[None], [p[None] for p in program.parameters], program.constants)
    torch.testing.assert_close(made[0], module(z), equal_nan=True)
