"""Rules composed of others' layers, and blocks without gradients: numbers and gradients are those of the module."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import adgan_fast
from adgan_fast.generator.program import Unlowered
from adgan_fast.generator.rules import lower
from adgan_fast.testing import violations
from tests.support.families import FAMILIES
from tests.support.generators import Case
from tests.support.layers import Function, randomise
from tests.support.programs import assert_same_numbers

pytestmark = pytest.mark.usefixtures("one_thread")


def case_of(*layers: nn.Module, latent_shape: tuple[int, ...] = (4, 6, 6)) -> Case:
    module = randomise(nn.Sequential(*layers), 0).eval()
    with torch.no_grad():
        image = module(torch.zeros(1, *latent_shape))
    return Case(module, latent_shape, tuple(image.shape[1:]))


class OfWeights(nn.Module):
    """x by a function of a weight that is learned."""

    def __init__(self, shape: tuple[int, ...], function):
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.zeros(shape)), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.weight)


def stopped_in_place(x: torch.Tensor) -> torch.Tensor:
    """What was made of y before it is stopped keeps its gradient."""
    y = torch.sigmoid(x)
    before, ends = y * 2, y + x
    y.detach_()
    return before + y * x + ends


def in_groups(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Every channel an image of its own, as filters that know one channel are applied."""
    return F.conv2d(x.reshape(-1, 1, *x.shape[2:]), w, padding=1).reshape(x.shape[0], -1, *x.shape[2:])


def by_batch_norm(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Instance norm as batch norm of a batch of one, its weights made of the input."""
    b, c = x.shape[:2]
    style = x.mean((2, 3)).reshape(b * c)
    mean, var = torch.zeros(b * c, dtype=x.dtype), torch.ones(b * c, dtype=x.dtype)
    made = F.batch_norm(x.reshape(1, b * c, *x.shape[2:]), mean, var, style + w.repeat(b), style, True)
    return made.reshape(x.shape)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d((2, 3), (1, 2), (1, 0)),
        nn.MaxPool2d(2, 1, 0, dilation=(2, 3)),
        nn.MaxPool2d((3, 2), (2, 3), (1, 1), dilation=(2, 1)),
        nn.MaxPool2d((3, 4), 2, ceil_mode=True),
        nn.MaxPool2d(3, 4, 1, ceil_mode=True),
        Function(lambda x: torch.minimum(x[:, :2], x[:, 2:]) + torch.max(x, x.mean(1, keepdim=True))[:, 1:3]),
        Function(lambda x: torch.min(F.relu(x), F.relu(-x[:, :1]))),
        Function(lambda x: torch.maximum(torch.ones(4, 1, 6, dtype=x.dtype) * 0.1, x)),
        Function(stopped_in_place),
        Function(lambda x: x * x.detach().square().sum((1, 2, 3), keepdim=True).rsqrt() + torch.tensor(2.0)),
        OfWeights((6,), lambda x, w: F.linear(x, w.detach() * torch.eye(6).to(w), w.detach() * w)),
        Function(lambda x: F.unfold(x, 3, padding=1).reshape(x.shape[0], -1, 6, 6)),
        Function(lambda x: x[:, :, [[0, 1], [2, 5]], [[3, -1], [0, 0]]]),
        Function(lambda x: x[:, [3, 0], [1, 2]].unsqueeze(1)),
        Function(lambda x: x * torch.full_like(x, 2) + torch.ones_like(x) + x.new_full((6,), 2) + torch.zeros_like(x)),
        OfWeights((4, 1), lambda x, w: x * w.expand(4, 6)[:, :1, None] * w.repeat(1, 6)[:, :, None]),
        OfWeights((4, 4, 3, 3), lambda x, w: F.conv2d(x, w / w.pow(2).sum((1, 2, 3), keepdim=True).expand_as(w))),
        OfWeights((4, 3), lambda x, w: x + F.linear(torch.ones(1, 6, 6, 3, dtype=x.dtype), w).permute(0, 3, 1, 2)),
        OfWeights((2, 4, 5), lambda x, w: x + (torch.ones(3, 1, 6, 4, dtype=x.dtype) @ w).sum((0, 1))[:, :1]),
        OfWeights((1, 1, 3, 3), in_groups),
        OfWeights((2, 1, 3, 3), in_groups),
    ],
    ids=[
        "max pooling by 2", "max pooling with pads", "max pooling of uneven windows", "max pooling with dilation",
        "max pooling with pads and dilation", "max pooling, rounded up", "max pooling, rounded up, with pads",
        "the smaller and the larger", "the smaller of many alike", "the larger of a constant", "stopped in place",
        "divided by a stopped norm", "a weight by a stopped one", "unfold",
        "pixels by two indices", "rows of channels", "constants shaped as a tensor", "a weight expanded",
        "a weight divided by its norm, expanded", "a product of a constant image by a weight",
        "a product of weights that broadcast", "a convolution of every channel alone", "two filters of every channel",
    ],
)  # fmt: skip
def test_numbers_and_gradients_are_those_of_the_module(layer):
    assert_same_numbers(case_of(nn.Conv2d(4, 4, 1), layer))


def test_batch_norm_of_a_batch_of_one_by_weights_of_the_latent():
    case = case_of(nn.Conv2d(4, 4, 1), OfWeights((4,), by_batch_norm))
    program = lower(case.double().eval(), case.latent_shape)
    assert "standardize" in [layer.op for layer in program.layers]
    assert_same_numbers(case)


def test_a_weight_that_is_expanded_stays_a_weight():
    program = lower(case_of(OfWeights((4, 1, 1, 1), lambda x, w: F.conv2d(x, w.expand(4, 4, 3, 3)))).module, (4, 6, 6))
    assert "expand" not in [layer.op for layer in program.layers]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 3, ceil_mode=True)], ids=["", "rounded up"])
def test_max_pooling_of_equal_pixels_has_the_gradient_at_the_first(pool):
    assert_same_numbers(case_of(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Upsample(scale_factor=2), pool))


def test_of_two_alike_each_has_half_of_the_gradient_as_pytorch_has_it():
    both = Function(lambda x: torch.maximum(x.relu(), -x.flip(1).relu()) + torch.minimum(x, x.clone()))
    assert_same_numbers(case_of(nn.Conv2d(4, 4, 1), nn.ReLU(), both))


@pytest.mark.parametrize("engine", ["grouped", "native"])
@pytest.mark.parametrize("far", [-math.inf, 1e30], ids=["-inf", "far apart"])
def test_the_larger_of_numbers_far_apart_keeps_its_digits(engine, far):
    """Where a + relu(b − a) is NaN, or 0."""
    case = case_of(nn.Conv2d(4, 4, 1), Function(lambda x: torch.maximum(x, torch.full_like(x, -abs(far)))))
    found, want = (
        adgan_fast.search(gen, images, engine=name, n_seed=2, latent_shape=case.latent_shape)
        for gen, images, name in [
            (case.module, case.images(2), engine), (case.double(), case.images(2).double(), "reference")
        ]
    )  # fmt: skip
    assert not violations(found, want)


def test_a_weight_that_is_read_behind_stops_alone_is_no_parameter_and_moves_no_more_than_with_pytorch():
    case = FAMILIES["stopped gradients"]
    program = lower(case.module.eval(), case.latent_shape)
    assert sorted(program.names) == ["first.bias", "first.weight", "last.bias", "last.weight", "table"]
    for weights in ("per_seed", "per_sample"):
        found, want = (
            adgan_fast.search(gen, case.images(2).double(), engine=engine, n_seed=2, weights=weights, lr_weights=0.05)
            for gen, engine in [(case.double(), "grouped"), (case.double(), "reference")]
        )
        torch.testing.assert_close(found.losses, want.losses, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.data.mul_(2), lambda x: x.detach()[:, :2].add_(1), lambda x: F.relu(x.detach().view(-1), True),
        lambda x: x.detach().chunk(2, 1)[1].zero_(), lambda x: F.dropout(x.detach(), 0.5, False).neg_(),
    ],
    ids=["data", "a slice", "in place", "a piece", "in place behind dropout"],
)  # fmt: skip
def test_a_write_by_way_of_a_detached_tensor_is_refused(write):
    """It changes x, and leaves it its gradient; the functional form would take that from it."""

    def written(x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x)
        write(x)
        return x

    with pytest.raises(Unlowered, match="writes into a detached tensor"):
        lower(case_of(nn.Conv2d(4, 4, 1), Function(written)).module, (4, 6, 6))


def test_a_write_into_a_copy_of_a_detached_tensor_is_none_into_it():
    assert_same_numbers(case_of(nn.Conv2d(4, 4, 1), Function(lambda x: x + x.detach().clone().mul_(2).relu_())))


class Block(nn.Module):
    """A block under torch.no_grad of a constant or of the weight, beside work in place, which takes a graph apart."""

    def __init__(self, of_constant: bool, inplace: bool, detach: str = "block"):
        super().__init__()
        self.layer, self.act, self.of_constant, self.detach = nn.Linear(4, 9), nn.ReLU(inplace), of_constant, detach
        self.register_buffer("table", torch.linspace(1, 2, 9))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        made = self.table if self.of_constant else self.layer.weight.pow(2).sum(1)
        if self.detach == "block":
            with torch.no_grad():
                made = made + 1
                size = made.sum().sqrt()
        else:
            made, size = made.clone().detach_(), 2.0
        return self.act(self.layer(z) * made / size).reshape(-1, 1, 3, 3)


@pytest.mark.parametrize("inplace", [False, True])
def test_what_is_made_without_gradients_of_constants_is_a_constant(inplace):
    assert_same_numbers(Case(randomise(Block(True, inplace), 0), (4,), (1, 3, 3)))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("detach", ["block", "in place"])
def test_what_is_made_without_gradients_of_weights_has_none_however_the_graph_is_taken_apart(inplace, detach):
    assert_same_numbers(Case(randomise(Block(False, inplace, detach), 0), (4,), (1, 3, 3)))


def scaled_by_shape(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """A weight scaled by its fan-in, which is asked of its data, as equalized learning rates do."""
    return F.conv2d(x, w * (2 / (w.data.size(1) * w.data[0][0].numel())) ** 0.5, padding=1)


def in_place(x: torch.Tensor) -> torch.Tensor:
    made = x * 1
    made.mul_(2)
    made[:, 1] += 2
    made[..., 1:5:2] = torch.tanh(x[..., :2])
    made[:, :, -1] = 0.5
    made[:, 2:3] += x[:, :1]
    return made


@pytest.mark.parametrize("layer", [OfWeights((4, 4, 3, 3), scaled_by_shape), Function(in_place)])
def test_data_asked_for_its_shape_and_results_that_nobody_names_are_followed(layer):
    assert_same_numbers(case_of(nn.Conv2d(4, 4, 1), layer))


class Held(nn.Module):
    """Its parameters are in a list besides, and its forward reads that one."""

    def __init__(self):
        super().__init__()
        self.layer, self.shift = nn.Linear(4, 9), nn.Parameter(torch.zeros(1, 9))
        self.held = [self.shift, {"weight": self.layer.weight}]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (self.layer(z) + self.held[0] * self.held[1]["weight"].sum(1)).reshape(-1, 1, 3, 3)


def test_a_parameter_that_is_held_in_a_list_is_learned():
    module = randomise(Held(), 0).eval()
    assert sorted(lower(module, (4,)).names) == ["layer.bias", "layer.weight", "shift"]
    image = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    found, want = (
        adgan_fast.search(module.double(), image, n_seed=2, engine=engine, verify=False)
        for engine in ("grouped", "reference")
    )
    torch.testing.assert_close(found.losses, want.losses, rtol=1e-9, atol=0)


def test_the_numbers_of_data_are_without_a_gradient():
    assert_same_numbers(case_of(OfWeights((4, 4, 1, 1), lambda x, w: F.conv2d(x, w / w.data.norm()))))


def test_autocast_is_put_in_line_where_it_is_off_and_refused_where_it_is_on():
    def cast(enabled: bool) -> nn.Module:
        layer = nn.Linear(4, 9)

        def forward(z: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                return layer(z).relu_().float().reshape(-1, 1, 3, 3)

        module = Function(forward)
        module.layer = layer
        return module.eval()

    assert "linear" in [layer.op for layer in lower(cast(False), (4,)).layers]
    with pytest.raises(Unlowered):
        lower(cast(True), (4,))


def test_a_number_chosen_often_is_not_read_from_one_place():
    """Else its gradient would be summed over a list of all its readers, for each slice of x."""
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    masked = Function(lambda x: x.view(-1, 1, 6, 6).masked_fill(mask, 0.5))
    program = lower(nn.Sequential(nn.Linear(4, 36), masked), (4,))
    (choice,) = (layer for layer in program.layers if layer.op == "take" and len(layer.attrs["index"]) == 36)
    assert len(set(choice.attrs["index"])) == 36


class WritesWithoutGradient(nn.Module):
    """Autograd's gradient of x.mul_(2) under no_grad is 1, of the functional form that a capture makes of it 2."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.layer(z))
        x = x.clone()
        with torch.no_grad():
            x.mul_(2)
        return x.view(-1, 1, 2, 2)


def test_a_write_under_no_grad_is_refused():
    with pytest.raises(Unlowered, match=r"mul_\.Tensor writes into a tensor under torch\.no_grad"):
        lower(WritesWithoutGradient().eval(), (4,))


@pytest.mark.parametrize(
    "product",
    [
        lambda v, many: v @ many.transpose(1, 2),
        lambda v, many: (many.mT @ v.mT).mT,
        lambda v, many: torch.bmm(v, many.permute(0, 2, 1)),
    ],
    ids=["from the right", "from the left", "by bmm"],
)
def test_a_product_turns_the_smaller_of_its_matrices(product):
    """What attention over many places reads transposed is far larger than what it is multiplied by."""

    def attention(x: torch.Tensor) -> torch.Tensor:
        v = x.flatten(2)
        return product(v, torch.softmax(v.mT @ v, -1)).view(x.shape)

    case = case_of(nn.Conv2d(4, 4, 1), Function(attention))
    program = lower(case.module, case.latent_shape)
    sizes = [math.prod(program.values[layer.output].shape) for layer in program.layers if layer.op == "permute"]
    assert max(sizes) == 4 * 36
    assert_same_numbers(case)
