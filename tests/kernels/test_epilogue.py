"""The fused batch norm (or bias) and activation compute what torch and its autograd do.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see tests/support/interpreted.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import aot, epilogue

from tests.support.uninitialised import filled_with_nan

SLOPE = 0.2
TORCH = {
    "none": lambda u: u,
    "relu": torch.relu,
    "leaky_relu": lambda u: F.leaky_relu(u, SLOPE),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
EPS = torch.finfo(torch.float32).eps


def draw(
    shape: tuple[int, int, int], shared: bool, seed: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, epilogue.Affine]:
    """ga, y and what makes u of y."""
    random = torch.Generator().manual_seed(seed)
    pairs, _, channels = shape
    rows = 1 if shared else pairs
    ga, y = (torch.randn(shape, generator=random).to(device) for _ in range(2))
    mean, inverse = (torch.rand(channels, generator=random).to(device) for _ in range(2))
    scale, shift = (torch.randn(rows, channels, generator=random).to(device) for _ in range(2))
    return ga, y, epilogue.Affine(mean, inverse, scale, shift)


def identity(channels: int, device: torch.device) -> epilogue.Affine:
    """u = y"""
    one, zero = torch.ones(channels, device=device), torch.zeros(channels, device=device)
    return epilogue.Affine(zero, one, one[None], zero[None])


def by_autograd(
    ga: torch.Tensor, y: torch.Tensor, affine: epilogue.Affine, act: str
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The value, and the three gradients, in float64; scale and shift of each pair."""
    y = y.double().requires_grad_()
    rows = [s.double().expand(y.shape[0], -1).clone().requires_grad_() for s in (affine.scale, affine.shift)]
    z = (y - affine.mean.double()) * affine.inverse.double()
    a = TORCH[act](z * rows[0][:, None] + rows[1][:, None])
    return a.detach(), list(torch.autograd.grad(a, [y, *rows], ga.double()))


@pytest.fixture
def poisoned() -> Iterator[None]:
    with filled_with_nan():
        yield


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 150), st.sampled_from([1, 3, 16, 17, 64, 70])),
    act=st.sampled_from(epilogue.ACTIVATIONS),
    shared=st.booleans(),
    seed=st.integers(0, 9),
)
@pytest.mark.usefixtures("poisoned")
def test_any_shape_has_the_value_and_the_gradients_of_autograd(
    device: torch.device, shape: tuple[int, int, int], act: str, shared: bool, seed: int
) -> None:
    ga, y, affine = draw(shape, shared, seed, device)
    a = epilogue.affine_act(y, affine, act, SLOPE)
    gy, gscale, gshift = epilogue.affine_act_grad(ga, y, affine, act, SLOPE)
    want, (want_y, want_scale, want_shift) = by_autograd(ga, y, affine, act)
    size = 1 + max((float(t.abs().max()) for t in (ga, y, *affine) if t.numel()), default=0.0)
    torch.testing.assert_close(a.double(), want, rtol=0, atol=8 * EPS * size**2)
    torch.testing.assert_close(gy.double(), want_y, rtol=0, atol=16 * EPS * size**3)
    # A sum of P terms; d · y is the larger one.
    bound = 8 * EPS * size**3 * (1 + shape[1])
    torch.testing.assert_close(gscale.double(), want_scale, rtol=0, atol=bound)
    torch.testing.assert_close(gshift.double(), want_shift, rtol=0, atol=bound)


@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_activations_are_near_to_the_last_bit_from_tiny_to_huge(device: torch.device, act: str) -> None:
    magnitudes = torch.logspace(-30, 30, 2001, dtype=torch.float64)
    u = torch.cat([-magnitudes.flip(0), torch.zeros(1, dtype=torch.float64), magnitudes]).float()
    found = epilogue.affine_act(u.reshape(1, -1, 1).to(device), identity(1, device), act).flatten().cpu().double()
    want = TORCH[act](u.double())
    torch.testing.assert_close(found, want, rtol=8 * EPS, atol=torch.finfo(torch.float32).tiny)


@pytest.mark.parametrize("act", epilogue.ACTIVATIONS)
def test_infinities_saturate_and_nan_passes_through(device: torch.device, act: str) -> None:
    u = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0], device=device).reshape(1, 5, 1)
    found = epilogue.affine_act(u, identity(1, device), act, SLOPE)
    torch.testing.assert_close(found, TORCH[act](u), equal_nan=True)


def test_the_corner_has_torchs_slope(device: torch.device) -> None:
    y = torch.zeros(1, 1, 3, device=device)
    assert not epilogue.affine_act_grad(torch.ones_like(y), y, identity(3, device), "relu")[0].any()
    leaky = epilogue.affine_act_grad(torch.ones_like(y), y, identity(3, device), "leaky_relu", SLOPE)[0]
    torch.testing.assert_close(leaky, torch.full_like(y, SLOPE))


def test_a_pair_has_the_same_bits_alone_as_among_others_and_at_every_launch(device: torch.device) -> None:
    ga, y, affine = draw((5, 333, 20), False, 0, device)
    many, again = (epilogue.affine_act_grad(ga, y, affine, "tanh") for _ in range(2))
    one = affine._replace(scale=affine.scale[3:4], shift=affine.shift[3:4])
    alone = epilogue.affine_act_grad(ga[3:4], y[3:4], one, "tanh")
    for together, twice, single in zip(many, again, alone, strict=True):
        assert torch.equal(together, twice)
        assert torch.equal(together[3:4], single)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"act": "gelu"}, "unknown activation 'gelu'"),
        (lambda t: t | {"y": t["y"].double()}, "y must be"),
        (lambda t: t | {"y": t["y"].transpose(1, 2)}, "y must be"),
        (lambda t: t | {"affine": t["affine"]._replace(scale=torch.ones(2, 3))}, r"scale must be \(2, 4\) or \(1, 4\)"),
        (lambda t: t | {"affine": t["affine"]._replace(shift=torch.ones(3, 4))}, "shift must be"),
        (lambda t: t | {"affine": t["affine"]._replace(mean=torch.ones(1, 4))}, r"mean must be \(4,\)"),
    ],
)
def test_what_does_not_fit_is_named(device: torch.device, change, message: str) -> None:
    _, y, affine = draw((2, 3, 4), True, 0, device)
    given = change({"y": y, "affine": affine, "act": "relu"})
    with pytest.raises(ValueError, match=message):
        epilogue.affine_act(**given)


def test_launches_use_only_specialisations_that_are_compiled_ahead() -> None:
    ahead = {tuple(case.constexprs.items()) for case in epilogue.cases()}
    for act in epilogue.ACTIVATIONS:
        for channels in (1, 16, 17, 64, 512):
            assert tuple(epilogue._constexprs(act, channels).items()) in ahead


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("name", [case.name for case in epilogue.cases()])
def test_every_specialisation_compiles_without_spills_and_with_wide_accesses(name: str, target: str) -> None:
    case = next(case for case in epilogue.cases() if case.name == name)
    resources = aot.compile_case(case, target)
    assert resources.spills == 0
    assert resources.registers <= 168  # as in test_adam_compiled.py
    assert resources.wide_load_bytes >= case.wide_load_bytes
    assert resources.wide_store_bytes >= case.wide_store_bytes
