"""Private weights of a map with one input position, by kernels, are those of plain PyTorch in float64.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see tests/support/interpreted.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.plain_maps import ADAM, PRECISIONS, PlainMap
from tests.support.random_maps import Layer, conv2d, conv_transpose2d, linear

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels.maps import choices as map_choices
from adgan_fast.kernels.maps import vector
from adgan_fast.kernels.maps.choices import Tiles
from adgan_fast.kernels.maps.private import AdamConstants
from adgan_fast.kernels.maps.vector import VectorMap

# Root mean square error that is allowed: of the change, of y and of gx, by the rms of what the change makes of them;
# to that comes the rounding of the shared part. float32 rounds a few times an update, float16 keeps Δ to 11 bits.
RMS = {"float32": 5e-7, "tf32": 5e-7, "bf16": 1e-3}
SHARED_RMS = 2e-7
LAYERS = [
    linear(1, 7, 37),
    linear(1, 1, 1),
    conv_transpose2d((1, 1), 5, 19, kernel=(4, 4)),  # several blocks
    # Taps that fall outside, and positions that none reaches: columns without weights.
    conv_transpose2d(
        (1, 1), 6, 5, kernel=(4, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1), dilation=(1, 2)
    ),
    conv2d((1, 1), 4, 3, kernel=(3, 3), padding=(2, 1), stride=(1, 2)),
]
BLOCKS, PARTIAL = LAYERS[2:4]

Step = tuple[torch.Tensor, torch.Tensor]


def theta_of(layer: Layer, scale: float = 0.02) -> torch.Tensor:
    return scale * torch.randn(layer.geometry.torch_shape, generator=torch.Generator().manual_seed(0))


def draw_steps(layer: Layer, pairs: int, steps: int, active: float = 0.4, seed: int = 1) -> list[Step]:
    """(x, gy) of steps 1..k + 1; each step lets another share `active` of the columns through, by pair."""
    generator = torch.Generator().manual_seed(seed)
    geometry = layer.geometry
    found = []
    for _ in range(steps + 1):
        x = torch.randn(pairs, 1, geometry.inputs, generator=generator)
        gy = torch.randn(pairs, geometry.out_positions, geometry.outputs, generator=generator)
        closed = torch.rand(gy.shape, generator=generator) >= active
        found.append((x, torch.where(closed, torch.where(gy > 0, 0.0, -0.0), gy)))
    return found


def make(
    layer: Layer, device: torch.device, pairs: int, steps: int, precision: str = "float32", adam: AdamConstants = ADAM,
    theta: torch.Tensor | None = None,
) -> VectorMap:  # fmt: skip
    """A map whose buffers hold NaN, or indices far outside, until they are written."""
    theta = theta_of(layer) if theta is None else theta
    made = VectorMap(
        layer.geometry, theta.to(device), pairs=pairs, steps=steps, adam=adam, precision=precision, device=device
    )
    poison(made)
    return made


def poison(made: VectorMap) -> None:
    for tensor in buffers(made):
        tensor.fill_(torch.nan if tensor.is_floating_point() else 2**30)


def buffers(made: VectorMap) -> list[torch.Tensor]:
    return [made._delta, made._gradients, made._xs, made._counts, made._column, made._slot]


def run(made: VectorMap | PlainMap, drawn: Sequence[Step], device: torch.device | None = None) -> list[torch.Tensor]:
    """y and gx of every step, in the order of calls of PrivateMap."""
    found = []
    for step, (x, gy) in enumerate(drawn, start=1):
        x, gy = x.to(device), gy.to(device)
        if step > 1:
            found.append(made.forward(x, step))
        if step < len(drawn):
            made.keep(step, x, gy)
            if step > 1:
                found.append(made.input_grad(gy, step))
    return found


def change(made: VectorMap, step: int) -> torch.Tensor:
    """Δ before update `step`, (G, K, J) float64: zero in columns without a slot."""
    counts = made._counts[:, step - 2].tolist()
    full = torch.zeros(made.pairs, made._rows, made._columns, dtype=torch.float64, device=made.device)
    for g, count in enumerate(counts):
        full[g][:, made._column[g, :count].long()] = made._delta[g, :, :count].double() / made._scale
    return full


def rms(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


def check_against_plain(layer: Layer, drawn: Sequence[Step], device: torch.device, precision: str) -> None:
    pairs, steps = len(drawn[0][0]), len(drawn) - 1
    theta = theta_of(layer).double()
    made = make(layer, device, pairs, steps, precision)
    found = run(made, drawn, device)
    plain = PlainMap(layer, theta, pairs=pairs, steps=steps, adam=ADAM)
    expected = run(plain, drawn)
    matrix = dense(layer, theta)
    inputs = [tensor.double().flatten(1) for pair in drawn[1:] for tensor in pair][: len(found)]
    for i, (ours, theirs, sent) in enumerate(zip(found, expected, inputs, strict=True)):
        assert ours.dtype == torch.float32 and ours.shape == theirs.shape and ours.is_contiguous()
        shared = (sent @ (matrix.T if i % 2 else matrix)).view(theirs.shape)
        bound = RMS[precision] * rms(theirs - shared) + SHARED_RMS * rms(shared)
        assert rms(ours.cpu() - theirs) <= bound, (i, rms(ours.cpu() - theirs) / bound)
    if steps > 1:  # the last update is not stored
        before = PlainMap(layer, theta, pairs=pairs, steps=steps, adam=ADAM)
        run(before, drawn[:steps])
        moved = torch.stack([dense(layer, delta) for delta in before.delta])
        stored = change(made, steps).cpu()
        assert torch.equal(stored == 0, moved == 0)
        assert rms(stored - moved) <= RMS[precision] * rms(moved)


def dense(layer: Layer, weight: torch.Tensor) -> torch.Tensor:
    """(K, J) of a natural weight: what the map makes of each unit latent."""
    return torch.stack(
        [layer.run(row.unsqueeze(0), weight).flatten() for row in torch.eye(layer.geometry.inputs).to(weight)]
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_maps_follow_plain_adam(device: torch.device, layer: Layer, precision: str) -> None:
    check_against_plain(layer, draw_steps(layer, 2, 3), device, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("steps", range(1, 7))
def test_any_number_of_steps_follows_plain_adam(device: torch.device, steps: int, precision: str) -> None:
    layer = linear(1, 5, 150)
    check_against_plain(layer, draw_steps(layer, 1, steps, active=0.3), device, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_histories_longer_than_registers_hold_follow_plain_adam(device: torch.device, precision: str) -> None:
    layer = linear(1, 3, 20)
    check_against_plain(layer, draw_steps(layer, 1, vector._RESIDENT + 2, active=0.2), device, precision)


@settings(max_examples=15)
@given(
    inputs=st.integers(1, 11),
    outputs=st.integers(1, 280),
    pairs=st.integers(1, 3),
    steps=st.integers(1, 4),
    active=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    precision=st.sampled_from(PRECISIONS),
    seed=st.integers(0, 2**20),
)
def test_any_shape_and_pattern_of_zeros_follows_plain_adam(
    device: torch.device, inputs: int, outputs: int, pairs: int, steps: int, active: float, precision: str, seed: int
) -> None:
    layer = linear(1, inputs, outputs)
    check_against_plain(layer, draw_steps(layer, pairs, steps, active, seed), device, precision)


@pytest.mark.parametrize("layer", [linear(1, 3, 100), linear(1, 40, 7), PARTIAL], ids=repr)
def test_slots_are_given_in_order_of_first_use_and_then_of_column(
    device: torch.device, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector, "_KEEP_BLOCK", 16)  # so that rows and columns take several turns
    pairs, steps = 3, 4
    drawn = draw_steps(layer, pairs, steps, active=0.2)
    made = make(layer, device, pairs, steps)
    live = dense(layer, torch.ones(layer.geometry.torch_shape)).any(0)
    expected: list[list[int]] = [[] for _ in range(pairs)]
    for step, (x, gy) in enumerate(drawn[:-1], start=1):
        made.keep(step, x.to(device), gy.to(device))
        for g, columns in enumerate(expected):
            opened = ((gy[g].flatten() != 0) & live).nonzero().flatten().tolist()
            columns += [j for j in opened if j not in set(columns)]
            assert made._counts[g, step - 1] == len(columns)
            assert made._column[g, : len(columns)].tolist() == columns
            kept = made._gradients[g, step - 1].cpu()
            assert torch.equal(kept[: len(columns)], gy[g].flatten()[columns])
            line = -(-len(columns) // 16) * 16
            assert not kept[len(columns) : line].any() and kept[line:].isnan().all()
        assert torch.equal(made._xs[:, step - 1].cpu(), x[:, 0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gradient_that_was_always_zero_is_exactly_no_update(device: torch.device, precision: str) -> None:
    layer = BLOCKS
    drawn = draw_steps(layer, 2, 3)
    never = torch.arange(layer.geometry.outputs) % 3 == 0
    drawn = [(x, gy.masked_fill(never, -0.0)) for x, gy in drawn]
    made = make(layer, device, 2, 3, precision)
    ys = [y for y in run(made, drawn, device) if y.shape[-1] == layer.geometry.outputs]
    for (x, _), y in zip(drawn[1:], ys, strict=True):
        shared = made.shared_forward(x.to(device))
        assert torch.equal(y[..., never], shared[..., never])
        assert (y != shared)[..., ~never].double().mean() > 0.35  # of 40 % and more with a gradient


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # NumPy's 0 / 0 under the interpreter
@pytest.mark.parametrize("eps", [1e-8, 0.0])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_latent_that_was_always_zero_is_exactly_no_update(device: torch.device, precision: str, eps: float) -> None:
    layer = linear(1, 6, 40)
    drawn = draw_steps(layer, 2, 3, active=0.8)
    for x, _ in drawn[:-1]:
        x[..., 2:4] = 0.0
    made = make(layer, device, 2, 3, precision, AdamConstants(0.03, 0.5, 0.999, eps))
    results = run(made, drawn, device)
    assert all(tensor.isfinite().all() for tensor in results)
    moved = change(made, 3)
    assert not moved[:, 2:4].any() and moved[:, :2].any() and moved[:, 4:].any()


def test_without_any_gradient_the_weights_stay_the_shared_ones(device: torch.device) -> None:
    layer = BLOCKS
    drawn = draw_steps(layer, 2, 3, active=0.0)
    made = make(layer, device, 2, 3)
    y2, gx2, *_ = run(made, drawn, device)
    assert not made._counts.any()
    assert torch.equal(y2, made.shared_forward(drawn[1][0].to(device)))
    assert torch.equal(gx2, made.shared_input_grad(drawn[1][1].to(device)))
    assert made._delta.isnan().all()  # nothing was written


def test_first_update_reads_no_change_and_last_writes_none(device: torch.device) -> None:
    layer = linear(1, 5, 150)
    drawn = draw_steps(layer, 2, 2)
    made = make(layer, device, 2, 2)
    run(made, drawn[:2], device)
    kept = made._delta.clone()
    made.keep(2, *(tensor.to(device) for tensor in drawn[1]))
    y = made.forward(drawn[2][0].to(device), 3)
    assert y.isfinite().all() and torch.equal(made._delta.nan_to_num(7.0), kept.nan_to_num(7.0))
    only = make(layer, device, 2, 1)
    only.keep(1, *(tensor.to(device) for tensor in drawn[0]))
    assert only.forward(drawn[1][0].to(device), 2).isfinite().all() and only._delta.isnan().all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_results_do_not_depend_on_what_memory_held_nor_on_earlier_searches(
    device: torch.device, precision: str
) -> None:
    layer = linear(1, 5, 150)
    drawn, other = draw_steps(layer, 2, 3), draw_steps(layer, 2, 3, active=1.0, seed=9)
    made = make(layer, device, 2, 3, precision)
    first = run(made, drawn, device)
    run(made, other, device)
    assert (made._counts[:, -1] == made._columns).all()
    again = run(made, drawn, device)
    assert all(map(torch.equal, first, again))


def test_a_pair_does_not_depend_on_how_many_others_share_the_launch(device: torch.device) -> None:
    layer = BLOCKS
    zero = torch.zeros(layer.geometry.torch_shape)  # a dense product's rows may depend on their number
    drawn = draw_steps(layer, 4, 2)
    many = run(make(layer, device, 4, 2, theta=zero), drawn, device)
    one = run(make(layer, device, 1, 2, theta=zero), [(x[2:3], gy[2:3]) for x, gy in drawn], device)
    assert all(torch.equal(a[2:3], b) for a, b in zip(many, one, strict=True))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_tiles_change_no_bit(device: torch.device, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw_steps(BLOCKS, 2, 3)
    default = run(make(BLOCKS, device, 2, 3, precision), drawn, device)
    for tiles in (Tiles(1, 1, 32, 1, 1), Tiles(4, 1, 64, 2, 1), Tiles(8, 1, 512, 1, 1)):
        monkeypatch.setattr(map_choices, "default_tiles", lambda *_, tiles=tiles: tiles)
        made = make(BLOCKS, device, 2, 3, precision)
        assert made._tiles == tiles
        assert all(map(torch.equal, run(made, drawn, device), default))


def test_a_pair_with_nan_harms_no_other(device: torch.device) -> None:
    layer = linear(1, 5, 150)
    drawn = draw_steps(layer, 3, 3)
    expected = run(make(layer, device, 3, 3), drawn, device)
    drawn[0][1][1, 0, 7] = torch.nan
    drawn[1][0][1, 0, 2] = torch.nan
    found = run(make(layer, device, 3, 3), drawn, device)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a[::2], b[::2]) and a[1].isnan().any()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tiny_and_huge_gradients_stay_finite_and_follow_plain_adam(device: torch.device, precision: str) -> None:
    layer = linear(1, 4, 50)
    drawn = draw_steps(layer, 1, 3, active=1.0)
    scales = torch.logspace(-44, 17, 50)
    drawn = [(x, gy * scales) for x, gy in drawn]
    made, plain = (
        make(layer, device, 1, 3, precision),
        PlainMap(layer, theta_of(layer).double(), pairs=1, steps=3, adam=ADAM),
    )
    for found, expected in zip(run(made, drawn, device)[::2], run(plain, drawn)[::2], strict=True):
        atol = {"bf16": 1e-3}.get(precision, 1e-5) * ADAM.lr * 3
        torch.testing.assert_close(found.double().cpu(), expected, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_of_a_pair_are_those_of_its_buffers(device: torch.device, precision: str) -> None:
    for layer in LAYERS:
        for steps in (1, 5):
            made = make(layer, device, 2, steps, precision)
            held = sum(tensor.numel() * tensor.element_size() for tensor in buffers(made))
            assert held == 2 * VectorMap.bytes_of_pair(layer.geometry, steps, precision)


def test_no_pairs_do_nothing(device: torch.device) -> None:
    layer = linear(1, 5, 7)
    y, gx, _ = run(make(layer, device, 0, 2), draw_steps(layer, 0, 2), device)
    assert y.shape == (0, 1, 7) and gx.shape == (0, 1, 5)


def test_what_a_vector_map_is_not_for_is_refused_with_the_reason(device: torch.device) -> None:
    def build(layer: Layer, **more) -> VectorMap:
        arguments = {"pairs": 1, "steps": 2, "adam": ADAM, "precision": "float32", "device": device, **more}
        return VectorMap(layer.geometry, theta_of(layer).to(device), **arguments)

    with pytest.raises(ValueError, match="one input position and one group, not 2 and 1"):
        build(linear(2, 3, 4))
    with pytest.raises(ValueError, match="one input position and one group, not 1 and 2"):
        build(conv_transpose2d((1, 1), 4, 4, kernel=(2, 2), groups=2))
    with pytest.raises(ValueError, match="remakes its moments"):
        build(linear(1, 3, 4), form="stored")
    with pytest.raises(ValueError, match="remakes its moments"):
        VectorMap.bytes_of_pair(linear(1, 3, 4).geometry, 2, "float32", "stored")
    with pytest.raises(ValueError, match="unknown precision"):
        build(linear(1, 3, 4), precision="fp8")
    with pytest.raises(ValueError, match=r"theta must be float32 of shape \(4, 3\), got torch.float32 \(3, 4\)"):
        VectorMap(
            linear(1, 3, 4).geometry, torch.zeros(3, 4, device=device), pairs=1, steps=2, adam=ADAM,
            precision="float32", device=device,
        )  # fmt: skip


def test_arguments_and_steps_out_of_order_are_named(device: torch.device) -> None:
    layer = linear(1, 3, 4)
    made = make(layer, device, 2, 2)
    (x, gy), *_ = [tuple(tensor.to(device) for tensor in step) for step in draw_steps(layer, 2, 2)]
    with pytest.raises(ValueError, match="step 2 needs step 1 to be the last that was kept, which is 0"):
        made.forward(x, 2)
    with pytest.raises(ValueError, match="step 2 of 2 cannot be kept after step 0"):
        made.keep(2, x, gy)
    with pytest.raises(ValueError, match=r"x must be contiguous float32 of shape \(2, 1, 3\), got torch.float64"):
        made.keep(1, x.double(), gy)
    with pytest.raises(ValueError, match=r"gy must be contiguous float32 of shape \(2, 1, 4\), got .* \(2, 4\)"):
        made.keep(1, x, gy[:, 0])
    made.keep(1, x, gy)
    with pytest.raises(ValueError, match="step 2 needs step 2 to be the last"):
        made.input_grad(gy, 2)
    with pytest.raises(ValueError, match="not contiguous"):
        made.forward(x.repeat(1, 1, 2)[..., ::2], 2)


def test_launches_use_only_specialisations_that_are_compiled_ahead(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = {(case.kernel, *case.constexprs.items()) for case in vector.cases()}
    seen = set()
    original = vector.launch

    def record(device, kernel, blocks, *arguments, **options):
        constants = {name: value for name, value in options.items() if name.isupper()}
        seen.add((kernel, *constants.items()))
        original(device, kernel, blocks, *arguments, **options)

    monkeypatch.setattr(vector, "launch", record)
    for precision in PRECISIONS:
        for steps in (1, 2, 3, 4, 5, vector._RESIDENT + 2):
            layer = linear(1, 2, 3)
            run(make(layer, device, 1, steps, precision), draw_steps(layer, 1, steps, active=1.0), device)
    run(make(PARTIAL, device, 1, 2), draw_steps(PARTIAL, 1, 2), device)
    long = {(kernel, *items) for kernel, *items in seen if ("LAST", True) in items and ("HISTORY", 0) in items}
    resident = {case for case in seen if ("HISTORY", 6) in case or ("HISTORY", 7) in case}
    assert len(long) == 3 and len(resident) == 6
    assert seen - long - resident <= ahead
    assert ahead <= seen
