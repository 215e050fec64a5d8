"""Generator → Program: the layers that each op becomes, and what is refused and by which name."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import adgan_fast
from adgan_fast.generator.program import Program, Unlowered
from adgan_fast.generator.rules import lower
from tests.support.families import FAMILIES
from tests.support.generators import Case
from tests.support.layers import Function, Residual, randomise
from tests.support.programs import assert_same_numbers

pytestmark = pytest.mark.usefixtures("one_thread")


def program_of(*layers: nn.Module, latent_shape: tuple[int, ...] = (4, 3, 3)) -> Program:
    return lower(randomise(nn.Sequential(*layers), 0).eval(), latent_shape)


def ops(program: Program) -> list[str]:
    return [layer.op for layer in program.layers]


@pytest.mark.parametrize(
    ("layer", "expected", "attrs"),
    [
        (
            nn.Conv2d(4, 6, (2, 3), (1, 2), (1, 0), (2, 1), groups=2),
            ["conv2d"],
            {"stride": (1, 2), "padding": (1, 0), "dilation": (2, 1), "groups": 2},
        ),
        (nn.Conv2d(4, 6, 3, padding="same", bias=False), ["conv2d"], {"padding": (1, 1), "groups": 1}),
        (nn.Conv2d(4, 6, 3, padding="valid"), ["conv2d"], {"padding": (0, 0)}),
        (
            nn.ConvTranspose2d(4, 6, 3, (3, 2), (1, 0), (2, 1), 2, True, (1, 2)),
            ["conv_transpose2d"],
            {"stride": (3, 2), "padding": (1, 0), "output_padding": (2, 1), "dilation": (1, 2), "groups": 2},
        ),
        (nn.BatchNorm2d(4, eps=1e-3), ["batch_norm"], {"eps": 1e-3}),
        (nn.BatchNorm2d(4, affine=False), ["batch_norm"], {}),
        (nn.ReLU(), ["relu"], {}),
        (nn.ReLU(inplace=True), ["relu"], {}),
        (nn.LeakyReLU(0.2), ["leaky_relu"], {"slope": 0.2}),
        (nn.LeakyReLU(0.2, inplace=True), ["leaky_relu"], {"slope": 0.2}),
        (nn.Tanh(), ["tanh"], {}),
        (nn.Sigmoid(), ["sigmoid"], {}),
        (nn.SiLU(), ["silu"], {}),
        (Function(torch.sin), ["sin"], {}),
        (nn.ELU(0.5), ["elu"], {"alpha": 0.5, "scale": 1.0, "input_scale": 1.0}),
        (nn.Softplus(2.0, 10.0), ["softplus"], {"beta": 2.0, "threshold": 10.0}),
        (nn.Upsample(scale_factor=2), ["upsample_nearest"], {"scale": (2, 2)}),
        (nn.Upsample(size=(3, 9)), ["upsample_nearest"], {"scale": (1, 3)}),
        (nn.PixelShuffle(2), ["pixel_shuffle"], {"factor": 2}),
        (Residual(nn.Tanh()), ["tanh", "add"], {"alpha": 1.0}),
        (Function(lambda x: x * 2), ["scale_shift"], {"scale": 2.0, "shift": 0.0}),
        (Function(lambda x: x / 4), ["scale_shift"], {"scale": 0.25, "shift": 0.0}),
        (Function(lambda x: x + 3), ["scale_shift"], {"scale": 1.0, "shift": 3.0}),
        (Function(lambda x: x - 3), ["scale_shift"], {"scale": 1.0, "shift": -3.0}),
        (Function(lambda x: 3 - x), ["scale_shift"], {"scale": -1.0, "shift": 3.0}),
        (Function(lambda x: -x), ["scale_shift"], {"scale": -1.0, "shift": 0.0}),
        (Function(lambda x: torch.add(x, torch.tanh(x), alpha=3)), ["tanh", "add"], {"alpha": 3.0}),
        (Function(lambda x: x - torch.tanh(x)), ["tanh", "add"], {"alpha": -1.0}),
        (Function(lambda x: x * torch.tanh(x)), ["tanh", "mul"], {}),
        (Function(lambda x: x / (torch.tanh(x) + 2)), ["tanh", "scale_shift", "div"], {}),
        (Function(lambda x: x.permute(0, 1, 3, 2)), ["permute"], {"dims": (0, 2, 1)}),
        (Function(lambda x: x.transpose(-1, -2)), ["permute"], {"dims": (0, 2, 1)}),
        (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (9, 2, 2))), ["reshape"], {}),
        (nn.GELU(), ["gelu"], {}),
        (nn.GELU("tanh"), ["gelu_tanh"], {}),
        (nn.Hardtanh(-0.5, 2.0), ["hardtanh"], {"low": -0.5, "high": 2.0}),
        (Function(lambda x: x.clamp(max=2)), ["clamp"], {"low": -math.inf, "high": 2.0}),
        (Function(lambda x: x.sqrt()), ["pow"], {"exponent": 0.5}),
        (Function(lambda x: x.exp().log().abs()), ["exp", "log", "abs"], {}),
        (nn.PReLU(4), ["prelu"], {}),
        (nn.InstanceNorm2d(4), ["standardize"], {"dims": (1, 2), "eps": 1e-5}),
        (nn.GroupNorm(2, 4), ["reshape", "standardize", "reshape", "reshape", "mul", "reshape", "add"], {}),
        (nn.LayerNorm(3), ["standardize", "mul", "add"], {}),
        (nn.BatchNorm2d(4, track_running_stats=False, affine=False), ["standardize"], {"dims": (1, 2)}),
        (nn.Softmax(1), ["softmax"], {"dim": 0}),
        (Function(lambda x: x.sum((1, -1), keepdim=True) * x), ["sum", "mul"], {}),
        (nn.Upsample(scale_factor=2, mode="bilinear"), ["resample"], {}),
        (nn.Upsample(size=(3, 4)), ["take"], {"dim": 2, "index": (0, 0, 1, 2)}),
        (nn.AvgPool2d(2), ["resample"], {}),
        (Function(lambda x: x[:, 1:3, :, ::2]), ["take", "take"], {"dim": 2, "index": (0, 2)}),
        (nn.ZeroPad2d((1, 2, 0, 3)), ["pad"], {"before": (0, 0, 1), "after": (0, 3, 2), "value": 0.0}),
        (Function(lambda x: torch.cat([x, x], -1)), ["cat"], {"dim": 2}),
        (Function(lambda x: x @ x.mT), ["permute", "matmul"], {}),
        (Function(lambda x: x[:, :1].expand(-1, 3, -1, -1)), ["take", "expand"], {}),
        (Function(lambda x: x.reshape(x.shape[0], 2, 3, 6)), ["reshape"], {}),
        (nn.Dropout(0.5), [], {}),
        (nn.Dropout2d(0.5), [], {}),
        (nn.Identity(), [], {}),
        (Function(lambda x: x.contiguous().clone()), [], {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_each_op_becomes_its_layer(layer, expected, attrs):
    """Behind a convolution, so that every one of them has an activation to work on."""
    program = program_of(nn.Conv2d(4, 4, 1), layer)
    assert ops(program) == ["conv2d", *expected]
    assert program.layers[-1].attrs | attrs == program.layers[-1].attrs


def test_a_linear_layer_and_the_products_it_may_be_written_as():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 8, bias=False)
            self.c = nn.Parameter(torch.zeros(8, 12))

        def forward(self, z):
            h = torch.addmm(self.a.bias, z, self.a.weight.t())
            return (torch.matmul(self.b(h), self.c)).view(-1, 1, 3, 4)

    program = lower(randomise(Written(), 0).eval(), (4,))
    assert [op for op in ops(program) if op != "permute"] == ["linear", "linear", "linear", "reshape"]
    assert len(program.parameters) == 4


def test_parameters_are_those_of_the_module_by_name_and_a_tied_one_is_there_once():
    module = FAMILIES["tied weights"].module.eval()
    program = lower(module, (6,))
    assert len(program.names) == 5
    assert {module.get_parameter(name) for name in program.names} == set(module.parameters())
    for name, parameter in zip(program.names, program.parameters, strict=True):
        assert parameter.data_ptr() == module.get_parameter(name).data_ptr()
        assert not parameter.requires_grad
    assert program.parameter_count == sum(p.numel() for p in module.parameters())


def test_what_the_image_does_not_depend_on_is_left_out():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle, self.aside = nn.Conv2d(4, 1, 1), nn.Linear(3, 3), nn.Conv2d(4, 1, 1)

        def forward(self, z):
            self.aside(z)
            return self.used(z)

    program = lower(Idle().eval(), (4, 3, 3))
    assert sorted(program.names) == ["used.bias", "used.weight"]
    assert ops(program) == ["conv2d"]


def test_a_learned_constant_input_is_a_parameter_like_any_other():
    program = lower(FAMILIES["learned constant input"].module.eval(), (4,))
    assert "constant" in program.names


def test_sizes_and_counts_are_those_of_the_layers():
    program = program_of(nn.ConvTranspose2d(4, 2, 4, 2, 1), nn.Tanh(), latent_shape=(4, 3, 3))
    assert (program.latent_shape, program.image_shape) == ((4, 3, 3), (2, 6, 6))
    assert program.parameter_count == 4 * 2 * 16 + 2
    assert program.multiply_adds == 4 * 2 * 16 * 9
    assert program.activation_count >= 2 * 2 * 36
    linear = program_of(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 5, 2), latent_shape=(4,))
    assert linear.multiply_adds == 48 + 5 * 3 * 4


class BatchMixing(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3, 3, padding_idx=1)

    def forward(self, x):
        return x * self.table(torch.tensor(1))


UNKNOWN = {
    "a median": (Function(lambda x: x - x.median(1, keepdim=True).values), "Function", "median"),
    "an inverse error function": (Function(lambda x: torch.erfinv(x.tanh() * 0.9)), "Function", "erfinv"),
    "the largest channel": (Function(lambda x: x - x.amax(1, keepdim=True)), "Function", "amax"),
    "sums on the way": (Function(lambda x: x.cumsum(-1)), "Function", "cumsum"),
    "a choice by values": (nn.Softshrink(), "Softshrink", "shrink"),
}


@pytest.mark.parametrize(("layer", "kind", "op"), UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_layer_is_refused_by_its_path_its_kind_and_its_op(layer, kind, op):
    with pytest.raises(Unlowered) as caught:
        program_of(nn.Conv2d(4, 4, 1), layer)
    message = str(caught.value)
    assert "'1 (" in message
    assert kind in message
    assert op in message.lower()


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (BatchMixing(), "aten.mean.dim over the batch dimension mixes the images of a batch"),
        (Function(lambda x: x.softmax(0)), "over the batch dimension mixes the images of a batch"),
        (Function(lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))), "aten.pad.default along the batch dimension"),
        (Function(lambda x: x.transpose(0, 1)), "the generator returns ('B', 4, 1, 3, 3), not (B, C, H, W)"),
        (Function(lambda x: torch.cat([x, x])), "the generator returns ('B', 2, 4, 3, 3), not (B, C, H, W)"),
        (Function(lambda x: x + torch.arange(2.0).view(2, 1, 1, 1)), "the generator returns"),
        (Function(lambda x: F.conv2d(x, x.mean((2, 3)).view(1, 4, 1, 1))), "a weight of aten.conv2d.default depends"),
        (Function(lambda x: F.prelu(x, x.mean((0, 2, 3)))), "mixes the images of a batch"),
        (Function(lambda x: F.prelu(x, x[0, :, 0, 0])), "a weight of aten.prelu.default depends on the latent"),
        (Function(lambda x: x[:, :, 0, :1].var(2)), "aten.var.dim of 1 numbers"),
        (Function(lambda x: F.layer_norm(x, x.shape)), "mixes the images of a batch"),
        (Function(lambda x: x.norm(p=1, dim=1, keepdim=True)), "the vector norm of order 1"),
        (Function(lambda x: x[:, x[0, :, 0, 0] > 0]), ""),
        (Function(lambda x: torch.where(x > 0, x, 0.1 * x)), "op aten.gt.Scalar is not known to the fast engines"),
        (Function(lambda x: x.roll(1)), "a roll over all dimensions at once"),
        (Function(lambda x: F.scaled_dot_product_attention(x, x, x, torch.zeros(3, 3).bool())), "see nothing"),
        (Function(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)), "dropout"),
        (Function(lambda x: F.interpolate(x, (6, 1), mode="bilinear", antialias=True)), "PyTorch's own gradient of"),
        (Padded(), "at its padding index"),
        (Function(lambda x: x.detach().mul_(2) + x), "aten.mul_.Tensor writes into a detached tensor"),
        (Function(lambda x: x.detach()), "no gradient reaches the generator's latent"),
        (Function(lambda x: x.double().float()), "dtype"),
        (Function(lambda x: F.dropout(x, 0.5, training=True)), "dropout"),
        (Function(lambda x: x + torch.randn_like(x)), "rand"),
        (Function(lambda x: x if x.sum() > 0 else -x), ""),
    ],
    ids=[
        "mean over the batch", "softmax over the batch", "padding of the batch", "transposed batch",
        "a batch in a row", "a constant for each image", "kernels of the latent", "slopes of the batch",
        "slopes of the latent", "variance of one number", "layer norm of the batch", "another norm",
        "indices by values", "a choice by values", "a roll over all", "a mask of nothing",
        "attention with dropout", "antialiased to one column", "the padding of an embedding",
        "a write into a detached tensor", "a latent behind a detach",
        "changed dtype", "live dropout", "random numbers", "a branch on values",
    ],
)  # fmt: skip
def test_what_would_change_the_meaning_is_refused(layer, why):
    with pytest.raises(Unlowered) as caught:
        program_of(nn.Conv2d(4, 4, 1), layer)
    assert why in str(caught.value)


def test_a_refusal_names_the_layer_by_its_path():
    with pytest.raises(Unlowered, match=r"layer '1\.0 \(Softshrink\)': op aten\.\S+ is not known"):
        program_of(nn.Conv2d(4, 4, 1), nn.Sequential(nn.Softshrink()))


@pytest.mark.parametrize(
    "function",
    [
        lambda z: (z, z),
        lambda z: z.flatten(1),
        lambda z: torch.zeros(1, 1, 2, 2),
    ],
    ids=["two tensors", "no image", "a constant"],
)
def test_what_makes_no_image_of_the_latent_is_refused(function):
    with pytest.raises(Unlowered):
        lower(Function(function).eval(), (4, 3, 3))


@pytest.mark.parametrize(("layer", "kind", "op"), UNKNOWN.values(), ids=UNKNOWN)
def test_auto_falls_to_an_engine_that_can_and_says_which_layer_prevented_the_fastest(layer, kind, op, caplog):
    module = randomise(nn.Sequential(nn.ConvTranspose2d(3, 4, 4), layer, nn.Conv2d(4, 1, 1)), 0).eval()
    image_shape = module(torch.zeros(1, 3, 1, 1)).shape[1:]
    caplog.set_level(logging.INFO, "adgan_fast")
    found = adgan_fast.search(module, torch.zeros(1, *image_shape), latent_shape=(3, 1, 1), n_seed=2, steps=1)
    assert found.engine == "eager"
    lines = [record.getMessage() for record in caplog.records if kind in record.getMessage()]
    assert len(lines) == 1
    assert "eager" in lines[0]
    assert "grouped" in lines[0]


@pytest.mark.parametrize("engine", ["grouped"])
def test_an_engine_asked_for_by_name_that_cannot_run_raises_with_reason_and_remedy(engine):
    module = nn.Sequential(nn.ConvTranspose2d(3, 4, 5), nn.Softshrink(1e-3))
    with pytest.raises(ValueError, match=r"grouped.*Softshrink.*(eager|auto)"):
        adgan_fast.score(module, torch.zeros(1, 4, 5, 5), latent_shape=(3, 1, 1), engine=engine)


@pytest.mark.parametrize("engine", ["native", "triton"])
def test_an_engine_that_is_not_here_raises_with_the_reason(engine):
    if any(e.available for e in adgan_fast.engines() if e.name == engine):
        pytest.skip(f"engine {engine} can run here")
    case = FAMILIES["DCGAN of 8"]
    with pytest.raises(ValueError, match=engine):
        adgan_fast.score(case.module, case.images(1), engine=engine)


def test_a_generator_that_no_batch_can_follow_goes_to_the_reference():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, z):
            h = self.layer(z)
            return (h if h.sum().item() > 0 else -2 * h).reshape(-1, 1, 2, 2)

    found = adgan_fast.search(Branching(), torch.zeros(1, 1, 2, 2), n_seed=2, steps=1)
    assert found.engine == "reference"


def test_nearest_upsampling_is_taken_for_one_by_a_whole_factor_only_where_it_is_that():
    assert ops(program_of(nn.Conv2d(4, 4, 1), nn.Upsample(scale_factor=3.0))) == ["conv2d", "upsample_nearest"]
    for factor in (3.2, 3.4):  # three pixels to nine, or ten
        assert ops(program_of(nn.Conv2d(4, 4, 1), nn.Upsample(scale_factor=factor))) == ["conv2d", "take", "take"]


class Product(nn.Module):
    """A product with a bias of any shape that broadcasts, written as addmm or as linear."""

    def __init__(self, bias: tuple[int, ...], added: bool):
        super().__init__()
        self.weight, self.bias, self.added = nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.zeros(bias)), added

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        if self.added:
            return torch.addmm(self.bias, z, self.weight.t()).reshape(-1, 1, 2, 3)
        return F.linear(z, self.weight, self.bias).reshape(-1, 1, 2, 3)


@pytest.mark.parametrize("bias", [(), (1,), (6,), (1, 1), (1, 6)], ids=str)
@pytest.mark.parametrize("added", [True, False], ids=["addmm", "linear"])
def test_a_bias_may_have_any_shape_that_broadcasts(bias, added):
    case = Case(randomise(Product(bias, added), 3), (4,), (1, 2, 3))
    assert_same_numbers(case)
    native = next(engine for engine in adgan_fast.engines() if engine.name == "native")
    if native.available:
        found, want = (
            adgan_fast.search(case.module, case.images(1), n_seed=2, engine=engine)
            for engine in ("native", "reference")
        )
        torch.testing.assert_close(found.losses, want.losses)


def vector_product() -> nn.Module:
    layer = nn.Linear(3, 1, bias=False)
    layer.weight = nn.Parameter(torch.ones(3))
    return layer


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ((vector_product(), nn.Unflatten(1, (1, 4))), r"shape \(3,\)"),
        (
            (nn.Unflatten(1, (1, 4)), nn.PixelShuffle(2), nn.Flatten(1, 2)),
            r"pixel_shuffle.* of shape \(1, 1, 4, 3, 3\)",
        ),
    ],
    ids=["a product by a vector", "a pixel shuffle of several maps"],
)
def test_shapes_that_engines_would_not_understand_are_refused(layers, why):
    with pytest.raises(Unlowered, match=why):
        lower(nn.Sequential(*layers).eval(), (4, 3, 3))
