"""Private weights by the Triton kernels are those of plain PyTorch in float64, whatever the map, form and precision.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see conftest.py. Memory that is not
written yet holds NaN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.plain_maps import ADAM, PRECISIONS, PlainMap
from tests.support.random_maps import Layer, conv2d, conv_transpose2d, layers, linear, unpack

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels.maps import choices as map_choices
from adgan_fast.kernels.maps.general import Maps
from adgan_fast.kernels.maps.precision import round_to_tf32
from adgan_fast.kernels.maps.private import AdamConstants

FORMS = ["rebuild", "stored"]
# What the kernels may differ from float64 by, rms, given the same gradients up to float32 rounding: (y and gx, Δ).
# "tf32" rounds both operands of a product to 2⁻¹², "bf16" those of the change to 2⁻⁹ and each Δ to 2⁻¹²; m and v,
# where stored in bf16, to 2⁻⁹ each time. The two products of y may cancel, which makes its error larger.
ROUNDING = {
    ("float32", "rebuild"): (1e-6, 2e-6),
    ("float32", "stored"): (1e-6, 2e-6),
    ("tf32", "rebuild"): (5e-4, 5e-6),
    ("tf32", "stored"): (5e-4, 5e-6),
    ("bf16", "rebuild"): (6e-3, 1e-3),
    ("bf16", "stored"): (6e-3, 3e-3),
}
# More than a block of channels and of outputs, several classes, classes of different sizes, positions that no tap
# reaches, taps that reach no position, more rows than are fused.
LAYERS = [
    linear(5, 40, 70),
    linear(70, 5, 6),
    conv_transpose2d((2, 1), 5, 3, kernel=(4, 2), stride=(2, 2), padding=(1, 0)),
    conv_transpose2d((2, 2), 4, 6, kernel=(3, 2), stride=(2, 3), output_padding=(1, 0), dilation=(2, 1), groups=2),
    conv_transpose2d((1, 3), 3, 2, kernel=(1, 5), stride=(2, 1), padding=(0, 3)),
    conv2d((3, 3), 4, 6, kernel=(3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 2), groups=2),
    conv2d((9, 8), 2, 3, kernel=(2, 1)),
]


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Memory that torch.empty gives holds NaN."""
    empty = torch.empty

    def nan(*args, **kwargs) -> torch.Tensor:
        made = empty(*args, **kwargs)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    with mock.patch.object(torch, "empty", nan):
        yield


def rms(error: torch.Tensor, scale: torch.Tensor) -> float:
    """Root mean square of the one by that of the other; 0 of nothing."""
    if error.numel() == 0 or not error.any():
        return 0.0
    return float(error.double().square().mean().sqrt() / scale.double().square().mean().sqrt())


def delta_of(made: Maps) -> torch.Tensor:
    """Δ as it is in memory, (G, *natural) float32; zero for taps that reach nothing. It lacks the last update."""
    held = made._delta.float() / made._scale
    missing = made.geometry.taps - made.geometry.live_taps
    return unpack(made.geometry, torch.nn.functional.pad(held, (0, 0, 0, 0, 0, missing)))


def buffers(made: Maps) -> tuple[torch.Tensor, ...]:
    """Those that each pair adds to: Δ, m, v, and the history of x and gy."""
    return made._delta, made._m, made._v, made._kept_x, made._kept_gy


def kept(x: torch.Tensor, precision: str) -> torch.Tensor:
    """x as a product of gradients takes it."""
    if precision == "bf16":
        return x.bfloat16().float()
    return round_to_tf32(x) if precision == "tf32" else x


def search(
    layer: Layer,
    device: torch.device,
    *,
    pairs: int = 2,
    steps: int = 3,
    precision: str = "float32",
    form: str | None = "rebuild",
    adam: AdamConstants = ADAM,
    seed: int = 0,
) -> None:
    """Run k steps with random x and gy beside the oracle, and compare all that comes out."""
    generator = torch.Generator().manual_seed(seed)
    geometry = layer.geometry
    theta = 0.1 * torch.randn(geometry.torch_shape, generator=generator)
    x_shape = (pairs, geometry.in_positions, geometry.inputs * geometry.groups)
    y_shape = (pairs, geometry.out_positions, geometry.outputs * geometry.groups)
    expected = PlainMap(layer, theta.double(), pairs=pairs, steps=steps, adam=adam)
    with poisoned():
        found = Maps(
            geometry, theta.to(device), pairs=pairs, steps=steps, adam=adam, precision=precision, device=device,
            form=form,
        )  # fmt: skip
    output, change = ROUNDING[precision, found.form]
    for step in range(1, steps + 2):
        x, gy = torch.randn(x_shape, generator=generator), torch.randn(y_shape, generator=generator)
        if step > 1:
            with poisoned():
                y = found.forward(x.to(device), step).cpu()
            wanted = expected.forward(x, step)
            assert rms(y - wanted, wanted) <= output, step
        if 1 < step <= steps:
            assert rms(delta_of(found).cpu() - expected.delta, expected.delta) <= change, step
            with poisoned():
                gx = found.input_grad(gy.to(device), step).cpu()
            wanted = expected.input_grad(gy, step)
            assert rms(gx - wanted, wanted) <= output, step
        if step <= steps:
            found.keep(step, x.to(device), gy.to(device))
            expected.keep(step, kept(x, precision), kept(gy, precision))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_three_steps_in_float32_are_the_oracles(device: torch.device, form: str, layer: Layer) -> None:
    search(layer, device, form=form)


@pytest.mark.parametrize("layer", [LAYERS[0], LAYERS[2]], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_low_precisions_round_as_they_say(device: torch.device, precision: str, form: str, layer: Layer) -> None:
    search(layer, device, precision=precision, form=form)


@pytest.mark.parametrize("steps", [1, 2, 4, 6])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_number_of_steps(device: torch.device, precision: str, form: str, steps: int) -> None:
    search(linear(3, 5, 7), device, pairs=1, steps=steps, precision=precision, form=form)
    search(linear(66, 3, 2), device, pairs=1, steps=steps, precision=precision, form=form)


@settings(max_examples=12)
@given(
    layers(side=4, channels=4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from(PRECISIONS),
    st.sampled_from(FORMS),
)
def test_any_map(device: torch.device, layer: Layer, pairs: int, steps: int, precision: str, form: str) -> None:
    search(layer, device, pairs=pairs, steps=steps, precision=precision, form=form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("eps", [1e-8, 0.0])
@pytest.mark.parametrize("positions", [4, 65])
def test_zero_gradients_are_exactly_no_update(
    device: torch.device, positions: int, eps: float, precision: str, form: str
) -> None:
    layer, steps = linear(positions, 4, 6), 3
    geometry = layer.geometry
    theta = torch.randn(geometry.torch_shape, generator=torch.Generator().manual_seed(0)).to(device)
    adam = AdamConstants(0.03, 0.5, 0.999, eps)
    with poisoned():
        found = Maps(geometry, theta, pairs=2, steps=steps, adam=adam, precision=precision, device=device, form=form)
        x = torch.randn(2, positions, 4, generator=torch.Generator().manual_seed(1)).to(device)
        x[0, :, 1] = -0.0  # weights of input 1 have no gradient in pair 0
        gy = torch.randn(2, positions, 6, generator=torch.Generator().manual_seed(2)).to(device)
        gy[:, :, 2] = 0.0  # nor those of output 2 in both
        for step in range(1, steps + 1):
            found.keep(step, x, gy)
            y = found.forward(x, step + 1)
            if step < steps:
                delta = delta_of(found)
                assert not delta[:, 2].any() and not delta[0, :, 1].any()
                assert delta[1, :2].all() and delta[0, :2, 0].all()
            assert torch.equal(y[:, :, 2], found.shared_forward(x)[:, :, 2])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layer", [LAYERS[0], LAYERS[3]], ids=str)
def test_shared_products_are_torchs(device: torch.device, layer: Layer, precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    geometry = layer.geometry
    theta = torch.randn(geometry.torch_shape, generator=generator)
    found = Maps(geometry, theta.to(device), pairs=1, steps=1, adam=ADAM, precision=precision, device=device)
    x = torch.randn(3, geometry.in_positions, geometry.inputs * geometry.groups, generator=generator)
    gy = torch.randn(3, geometry.out_positions, geometry.outputs * geometry.groups, generator=generator)
    expected = PlainMap(layer, theta.double(), pairs=3, steps=1, adam=ADAM)
    y = torch.stack([layer.run(row, theta.double()) for row in x.double()])
    with poisoned():
        bound = 1e-6 if precision == "float32" else 5e-4
        assert rms(found.shared_forward(x.to(device)).cpu() - y, y) <= bound
        gx = expected.input_grad(gy, 1)
        assert rms(found.shared_input_grad(gy.to(device)).cpu() - gx, gx) <= bound


def test_last_update_writes_no_change_and_a_stored_one_no_moments(device: torch.device) -> None:
    layer = linear(3, 4, 5)
    for form in FORMS:
        found = Maps(
            layer.geometry, torch.zeros(5, 4, device=device), pairs=1, steps=2, adam=ADAM, precision="float32",
            device=device, form=form,
        )  # fmt: skip
        x, gy = torch.randn(1, 3, 4, device=device), torch.randn(1, 3, 5, device=device)
        found.keep(1, x, gy)
        found.forward(x, 2)
        found.keep(2, x, gy)
        before = [tensor.clone() for tensor in buffers(found)]
        y = found.forward(x, 3)
        assert all(map(torch.equal, buffers(found), before))
        assert not torch.equal(y, x @ delta_of(found)[0].T)


def test_tiles_change_no_more_than_the_order_of_sums(device: torch.device) -> None:
    layer = conv_transpose2d((2, 3), 20, 20, kernel=(2, 2), stride=(2, 1))
    tiles = map_choices.Tiles(16, 16, 16, 4, 1)
    with mock.patch.object(map_choices, "default_tiles", lambda *_: tiles):
        search(layer, device, steps=2, form="rebuild")
        search(linear(80, 20, 20), device, pairs=1, steps=2, form="stored")


def test_every_launch_gives_the_same_bits(device: torch.device) -> None:
    layer = LAYERS[2]
    geometry = layer.geometry
    results = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        theta = torch.randn(geometry.torch_shape, generator=generator).to(device)
        found = Maps(geometry, theta, pairs=2, steps=1, adam=ADAM, precision="float32", device=device)
        x = torch.randn(2, geometry.in_positions, geometry.inputs, generator=generator).to(device)
        gy = torch.randn(2, geometry.out_positions, geometry.outputs, generator=generator).to(device)
        found.keep(1, x, gy)
        results.append(found.forward(x, 2))
    assert torch.equal(*results)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("form", [None, *FORMS])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_of_a_pair_are_those_of_its_buffers(device: torch.device, precision: str, form: str, steps: int) -> None:
    for layer in LAYERS:
        geometry = layer.geometry
        theta = torch.zeros(geometry.torch_shape, device=device)
        found = Maps(geometry, theta, pairs=3, steps=steps, adam=ADAM, precision=precision, device=device, form=form)
        held = sum(tensor.numel() * tensor.element_size() for tensor in buffers(found))
        assert held == 3 * Maps.bytes_of_pair(geometry, steps, precision, form)


def test_no_pairs_and_no_steps_are_nothing(device: torch.device) -> None:
    geometry = linear(2, 3, 4).geometry
    theta = torch.zeros(4, 3, device=device)
    found = Maps(geometry, theta, pairs=0, steps=1, adam=ADAM, precision="float32", device=device)
    found.keep(1, torch.zeros(0, 2, 3, device=device), torch.zeros(0, 2, 4, device=device))
    assert found.forward(torch.zeros(0, 2, 3, device=device), 2).shape == (0, 2, 4)
    assert Maps.bytes_of_pair(geometry, 0, "float32") == 0


def test_unfit_arguments_are_named(device: torch.device) -> None:
    geometry = linear(2, 3, 4).geometry
    theta = torch.zeros(4, 3, device=device)

    def make(**changes) -> Maps:
        arguments = {"pairs": 1, "steps": 2, "adam": ADAM, "precision": "float32", "device": device, "form": None}
        return Maps(geometry, changes.pop("theta", theta), **{**arguments, **changes})

    found = make()
    x, gy = torch.zeros(1, 2, 3, device=device), torch.zeros(1, 2, 4, device=device)
    with pytest.raises(ValueError, match=r"theta must be float32 of shape \(4, 3\), got torch.float32 \(3, 4\)"):
        make(theta=theta.T)
    with pytest.raises(ValueError, match="unknown precision 'fp8'; the known ones are float32, tf32, bf16"):
        make(precision="fp8")
    with pytest.raises(ValueError, match="form must be 'rebuild', 'stored' or None, got 'kept'"):
        make(form="kept")
    with pytest.raises(ValueError, match="form 'rebuild' is for 8 steps at most, got 9"):
        make(form="rebuild", steps=9)
    with pytest.raises(ValueError, match=r"x must be contiguous float32 of shape \(1, 2, 3\), got .* \(1, 2, 4\)"):
        found.keep(1, gy, gy)
    with pytest.raises(ValueError, match=r"gy must be contiguous float32 .* got torch.float64"):
        found.keep(1, x, gy.double())
    with pytest.raises(ValueError, match="not contiguous"):
        found.forward(torch.zeros(1, 3, 2, device=device).mT, 2)
    for call in (lambda: found.keep(3, x, gy), lambda: found.forward(x, 1), lambda: found.input_grad(gy, 3)):
        with pytest.raises(ValueError, match=r"step must be in \d..\d, got \d"):
            call()
