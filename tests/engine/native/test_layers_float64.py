"""Each layer by itself against PyTorch in float64: image, gradients of the latent and of all weights, and searches.

The layers are those of tests/support/single_layers.py.
"""

from __future__ import annotations

import math

import pytest
import torch

from adgan_fast import ops
from adgan_fast.config import WEIGHTS
from adgan_fast.engine.native.encode import encode, unknown
from adgan_fast.generator.program import Program
from tests.support.by_hand import Net, reconstruction
from tests.support.engines import NEEDS_EXTENSION
from tests.support.native import HERE
from tests.support.single_layers import CASES, FLAT, TOKENS

pytestmark = NEEDS_EXTENSION


def alone(name: str) -> Program:
    shape, layer = CASES[name]
    net = Net(*shape)
    return net.program(layer(net, net.latent))


def between(name: str) -> Program:
    """Where it may be computed in place itself, and what follows on its output."""
    shape, layer = CASES[name]
    net = Net(*shape)
    y = layer(net, net.times_parameter(net.latent))
    y = net.same("tanh", net.same("scale_shift", y, scale=0.7, shift=0.1))
    size = math.prod(net.shape(y))
    flat = net.add("reshape", y, (size,))
    return net.program(net.add("linear", (flat, net.parameter(net.normal(12, size, std=0.3)), None), (12,)))


def before_a_map(name: str) -> Program:
    """Behind a ReLU, and right before a linear layer, which asks for no gradient where a ReLU's output is zero."""
    shape, layer = CASES[name]
    net = Net(*shape)
    y = layer(net, net.same("relu", net.times_parameter(net.latent)))
    size = math.prod(net.shape(y))
    flat = net.add("reshape", y, (size,))
    return net.program(net.add("linear", (flat, net.parameter(net.normal(12, size, std=0.3)), None), (12,)))


def used_twice(name: str) -> Program:
    """The layer's input has another use, and so has its output; the layer is there two times."""
    shape, layer = CASES[name]
    net = Net(*shape)
    x = net.times_parameter(net.latent)
    y = layer(net, x)
    y = net.add("mul", (layer(net, x), net.add("add", (y, net.same("tanh", y)), net.shape(y), alpha=1.0)), net.shape(y))
    flat = [net.add("reshape", v, (math.prod(net.shape(v)),)) for v in (x, y)]
    return net.program(net.add("cat", flat, (sum(math.prod(net.shape(v)) for v in flat),), dim=0))


SETTINGS = {"alone": alone, "between": between, "before a map": before_a_map, "used twice": used_twice}


def arguments(program: Program, weights: str, n: int = 1, s: int = 1, **changed: object) -> ops.SearchArguments:
    random = torch.Generator().manual_seed(3)
    starts = torch.randn(s, *program.latent_shape, generator=random)
    if not changed.pop("quiet", False):
        images = torch.randn(n, *program.image_shape, generator=random)
    else:
        images = torch.zeros(n, *program.image_shape)
    assert unknown(program) is None
    return ops.SearchArguments(
        images, starts, list(program.parameters), list(program.constants), *encode(program),
        WEIGHTS.index(weights), 0, 1, [0.25, 5e-5, 0.5, 0.999, 1e-8],
    )._replace(**changed)  # fmt: skip


def double(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [t.double().requires_grad_() for t in tensors]


def assert_close(found: torch.Tensor, true: torch.Tensor) -> None:
    """To what float32 gives, by the size of the largest."""
    scale = float(true.abs().max()) if true.numel() else 0.0
    torch.testing.assert_close(found.double(), true, rtol=2e-5, atol=2e-6 + 2e-5 * scale)


@pytest.mark.parametrize("where", SETTINGS)
@pytest.mark.parametrize("name", CASES)
def test_image_and_gradients(name, where):
    program = SETTINGS[where](name)
    given = arguments(program, "per_seed")
    (z,), weights, constants = (
        double([given.starts[0]]),
        double(given.parameters),
        [c.double() for c in given.constants],
    )
    made = reconstruction(program, z, weights, constants)
    (made - given.images[0].double()).square().sum().backward()
    zero = torch.zeros_like
    true = [z.grad, *(zero(w) if w.grad is None else w.grad for w in weights)]
    assert_close(ops.native_search(*given._replace(steps=0))[3][0, 0], made.detach())
    for mode in WEIGHTS:
        of_latent, *of_weights = ops.native_gradients(given._replace(weights=WEIGHTS.index(mode)))
        assert len(of_weights) == (0 if mode == "frozen" else len(weights))
        for found, wanted in zip((of_latent[0], *of_weights), true, strict=mode != "frozen"):
            assert_close(found, wanted)


FEW = [
    "gelu of 37", "prelu by channel of 5x6x7", "prelu of 2x3x5x4", "standardize over (1, 2) of 5x6x7",
    "groups (1, 2, 3) between convolutions of 6x5x4", "softmax over 1 of 19x21", "sum over (0, 2) of 5x6x7",
    "attention of 18x10", "matmul of stored operands of 19x21", "enlarging of 3x6x7",
    "expand a parameter of 19x21", "take from a parameter of 1x4x21", "pad of 5x6x7", "cat along 1 of 5x6x7",
    "mul by channel of 17x5x6",
]  # fmt: skip


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", FEW)
def test_two_steps_of_many_starts(name, weights):
    """Steps of g / (|g| + eps), more starts than pass at a time, on each instruction set; threads change no bit."""
    program = used_twice(name)
    n, s, steps, lr, eps = 2, 18, 2, 0.02, 30.0
    rates = [lr, lr / s, 0.0, 0.0, eps]
    given = arguments(program, weights, n=n, s=s, steps=steps, rates=rates)
    found = {isa: ops.native_search(*given._replace(isa=isa, threads=1)) for isa in range(len(HERE))}
    shared = ops.native_search(*given._replace(threads=2, poison=True))
    assert all(torch.equal(a, b) for a, b in zip(found[len(HERE) - 1], shared, strict=True))
    true = [searched(program, given, image, weights) for image in range(n)]
    for results in found.values():
        for i, (initial, final, latents, made) in enumerate(true):
            for ours, theirs in zip((part[i] for part in results), (initial, final, latents, made), strict=True):
                assert_close(ours, theirs)


def searched(program: Program, given: ops.SearchArguments, image: int, weights: str) -> tuple[torch.Tensor, ...]:
    """One image's search in float64: losses before and after, latents, images."""
    lr_z, lr_weights, _, _, eps = given.rates
    constants = [c.double() for c in given.constants]
    target = given.images[image].double()
    together = [range(len(given.starts))] if weights == "per_sample" else [[s] for s in range(len(given.starts))]
    kept: list[tuple[torch.Tensor, ...]] = []
    for group in together:
        zs, own = [double([given.starts[s]])[0] for s in group], double(given.parameters)
        first = None
        for step in range(given.steps + 1):
            made = [reconstruction(program, z, own, constants) for z in zs]
            losses = [(y - target).square().sum() for y in made]
            first = losses if first is None else first
            if step == given.steps:
                kept += [tuple(t.detach() for t in of) for of in zip(first, losses, zs, made, strict=True)]
                break
            leaves = [*zs, *own] if weights != "frozen" else zs
            for leaf, g in zip(leaves, torch.autograd.grad(sum(losses), leaves, allow_unused=True), strict=True):
                rate = lr_z if any(leaf is z for z in zs) else lr_weights
                if g is not None:
                    leaf.data -= rate * g / (g.abs() + eps)
    return tuple(torch.stack(part) for part in zip(*kept, strict=True))


@pytest.mark.parametrize("name", FEW)
def test_a_garbled_program_is_refused_or_runs_but_never_crashes(name):
    given = arguments(used_twice(name), "per_seed")
    random = torch.Generator().manual_seed(0)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=random))

    refused = 0
    for _ in range(100):
        code = list(given.code)
        for _ in range(draw(1, 4)):
            code[draw(0, len(code))] = draw(-2, 41)
        try:
            ops.native_search(*given._replace(code=code))
        except (RuntimeError, ValueError):
            refused += 1
    assert refused >= 40


def test_resampling_by_what_is_learned_is_refused():
    net = Net(2, 3, 3)
    matrices = net.constant(torch.eye(3)), net.parameter(torch.eye(3))
    program = net.program(net.add("resample", (net.latent, *matrices), (2, 3, 3)))
    assert unknown(program) == "layer '0': its matrices are no constants"


# -- the ends of the numbers -----------------------------------------------------------------------------------------


def gradient_and_image(net: Net, output: int, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    given = arguments(net.program(output), "frozen", quiet=True)._replace(starts=z.unsqueeze(0))
    return ops.native_gradients(given)[0][0], ops.native_search(*given._replace(steps=0))[3][0, 0].reshape(-1)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("hardtanh", {"low": -1.0, "high": 1.0}),
        ("clamp", {"low": -1.0, "high": 1.0}),
        ("clamp", {"low": 1.0, "high": -1.0}),
        ("abs", {}),
        ("gelu", {}),
        ("gelu_tanh", {}),
        *(("pow", {"exponent": e}) for e in (0.0, 1.0, 2.0, 3.0)),
    ],
)
def test_bounds_and_zeros(op, attrs):
    """Gradients on the bounds, and at zero, are PyTorch's; also those that a linear layer hands back."""
    z = torch.tensor([-9.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 9.0] * 3)
    for mapped in (False, True):
        net = Net(24)
        y = net.same(op, net.same("scale_shift", net.latent, scale=1.0, shift=0.0), **attrs)
        if mapped:
            y = net.add("linear", (y, net.parameter(net.normal(24, 24)), None), (24,))
        found, image = gradient_and_image(net, y, z)
        (leaf,) = double([z])
        program = net.program(y)
        made = reconstruction(program, leaf, [p.double() for p in program.parameters], []).reshape(-1)
        made.square().sum().backward()
        assert_close(image, made.detach())
        assert_close(found, leaf.grad)


@pytest.mark.parametrize(
    "name",
    [
        name for name, (shape, _) in CASES.items()
        if shape in (FLAT, TOKENS) and not name.startswith(("sum", "pow 0", "take", "matmul"))
    ],
)  # fmt: skip
def test_nan_stays_nan(name):
    """Where PyTorch has NaN the engine has, and nowhere else."""
    shape, layer = CASES[name]
    net = Net(*shape)
    program = net.program(layer(net, net.latent))
    given = arguments(program, "frozen")
    z = given.starts[0].clone()
    z.view(-1)[5] = math.nan
    made = ops.native_search(*given._replace(starts=z.unsqueeze(0), steps=0))[3][0, 0]
    true = reconstruction(
        program, z.double(), [p.double() for p in given.parameters], [c.double() for c in given.constants]
    )
    assert torch.equal(made.isnan(), true.isnan())
    torch.testing.assert_close(made.double(), true, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dims", [(0,), (1,), (0, 1)])
def test_no_variance(dims):
    """All numbers alike become zero, and take no gradient that is not there."""
    for number in (0.0, 0.1, 1000.0):
        net = Net(*TOKENS)
        z = torch.full(TOKENS, number)
        found, image = gradient_and_image(net, net.same("standardize", net.latent, dims=dims, eps=1e-5), z)
        assert float(image.abs().max()) < 0.03 and bool(found.isfinite().all())
        if number == 0:
            assert float(image.abs().max()) == 0 and float(found.abs().max()) == 0


@pytest.mark.parametrize("shape", [(4000,), (500, 20)])
def test_large_means_lose_no_variance(shape):
    """Two passes: the squares are those of differences."""
    net = Net(*shape)
    z = 1000 + torch.randn(shape, generator=net.random)
    _, image = gradient_and_image(net, net.same("standardize", net.latent, dims=(0,), eps=1e-5), z)
    variance, mean = torch.var_mean(z.double(), 0, correction=0)
    true = (z.double() - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(image.reshape(shape).double(), true, rtol=1e-4, atol=1e-4)


def test_softmax_of_large_and_masked_scores():
    net = Net(3, 20)
    z = 1000 * torch.randn(3, 20, generator=net.random)
    z[0, :7] = -math.inf
    z[1] = -math.inf
    _, image = gradient_and_image(net, net.same("softmax", net.latent, dim=1), z)
    torch.testing.assert_close(image.reshape(3, 20), torch.softmax(z.double(), 1).float(), equal_nan=True)


@pytest.mark.parametrize("isa", range(len(HERE)))
@pytest.mark.parametrize(
    ("op", "numbers"),
    [
        ("exp", [88.7, 88.8, -200.0, math.inf, -math.inf, math.nan]),
        ("log", [0.0, -1.0, -math.inf, math.inf, math.nan, 1e-40, 1.0, 1.0001, 0.9999, 0.7072, 0.7071, 3e38, 2e-38]),
        ("gelu", [-5.0, -3.0, -1e-3, 1e-3, 3.0, 9.0, math.nan]),
    ],
)
def test_ends_of_the_numbers(op, numbers, isa):
    """On each instruction set, in whole vectors and in what is left over."""
    for repeated in (1, 16):
        z = torch.tensor(numbers * repeated)
        net = Net(len(z))
        given = arguments(net.program(net.same(op, net.latent)), "frozen", starts=z.unsqueeze(0), steps=0, isa=isa)
        made = ops.native_search(*given)[3].reshape(-1)
        true = reconstruction(net.program(1), z.double(), [], []).reshape(-1).float()
        torch.testing.assert_close(made, true, rtol=1e-6, atol=1e-37, equal_nan=True)
