"""Generator → Program: the layers that each op becomes, and what is refused and by which name."""

from __future__ import annotations

import logging

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
        (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (9, 2, 2))), ["reshape", "reshape"], {}),
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


class Attention(nn.Module):
    def forward(self, x):
        q = x.flatten(2)
        return F.scaled_dot_product_attention(q, q, q).reshape(x.shape)


class BatchMixing(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


UNKNOWN = {
    "bilinear upsampling": (nn.Upsample(scale_factor=2, mode="bilinear"), "Upsample", "bilinear"),
    "GELU": (nn.GELU(), "GELU", "gelu"),
    "InstanceNorm": (nn.InstanceNorm2d(4), "InstanceNorm2d", "norm"),
    "GroupNorm": (nn.GroupNorm(2, 4), "GroupNorm", "norm"),
    "attention": (Attention(), "Attention", "attention"),
    "nearest by 3.4": (nn.Upsample(scale_factor=(1, 3.4)), "Upsample", "nearest"),
    "nearest to no whole factor": (nn.Upsample(size=(4, 4)), "Upsample", "nearest"),
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
        (nn.BatchNorm2d(4, track_running_stats=False), "running statistics"),
        (BatchMixing(), "mean"),
        (Function(lambda x: x.transpose(0, 1).reshape(1, 4, 3, 3)), "batch"),
        (Function(lambda x: x + torch.tanh(x[0])), ""),
        (Function(lambda x: x.flip(0)), "flip"),
        (Function(lambda x: x + torch.arange(2.0).view(2, 1, 1, 1)), ""),
        (Function(lambda x: x.detach() + x), "detach"),
        (Function(lambda x: x.double().float()), "dtype"),
        (Function(lambda x: F.dropout(x, 0.5, training=True)), "dropout"),
        (Function(lambda x: x + torch.randn_like(x)), "rand"),
        (Function(lambda x: x if x.sum() > 0 else -x), ""),
    ],
    ids=[
        "batch norm without running statistics", "mean over the batch", "transposed batch", "first image to all",
        "flipped batch", "a constant for each image", "detach", "changed dtype", "live dropout", "random numbers",
        "a branch on values",
    ],
)  # fmt: skip
def test_what_would_change_the_meaning_is_refused(layer, why):
    with pytest.raises(Unlowered) as caught:
        program_of(nn.Conv2d(4, 4, 1), layer)
    assert why in str(caught.value)


def test_batch_norm_without_running_statistics_is_refused_by_the_name_of_its_layer():
    with pytest.raises(Unlowered, match=r"'1\.0 \(BatchNorm2d\)'.*running statistics"):
        program_of(nn.Conv2d(4, 4, 1), nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)))


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


@pytest.mark.parametrize(("layer", "kind", "op"), list(UNKNOWN.values())[:5], ids=list(UNKNOWN)[:5])
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
    module = nn.Sequential(nn.ConvTranspose2d(3, 4, 4), nn.GELU())
    with pytest.raises(ValueError, match=r"grouped.*GELU.*(eager|auto)"):
        adgan_fast.score(module, torch.zeros(1, 4, 4, 4), latent_shape=(3, 1, 1), engine=engine)


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
        with pytest.raises(Unlowered, match="nearest"):
            program_of(nn.Conv2d(4, 4, 1), nn.Upsample(scale_factor=factor))


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
        ((nn.Unflatten(1, (1, 4)), nn.PixelShuffle(2), nn.Flatten(1, 2)), "pixel shuffle"),
    ],
    ids=["a product by a vector", "a pixel shuffle of several maps"],
)
def test_shapes_that_engines_would_not_understand_are_refused(layers, why):
    with pytest.raises(Unlowered, match=why):
        lower(nn.Sequential(*layers).eval(), (4, 3, 3))
