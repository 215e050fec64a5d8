"""The table of precisions, and the scale by which a change is kept in 16 bits."""

from __future__ import annotations

import math

import pytest
import torch
from adgan_fast.kernels.maps.precision import MAP_PRECISIONS, MapPrecision, delta_scale
from adgan_fast.kernels.maps.private import AdamConstants
from hypothesis import given
from hypothesis import strategies as st

PAPER = AdamConstants(5e-5, 0.5, 0.999, 1e-8)
REAL = st.floats(-1e3, 1e3, allow_subnormal=False)


def changes(adam: AdamConstants, gradients: list[float]) -> list[float]:
    """The change of one weight after each of Adam's steps."""
    m = v = change = 0.0
    found = []
    for step, g in enumerate(gradients, start=1):
        m = adam.beta1 * m + (1 - adam.beta1) * g
        v = adam.beta2 * v + (1 - adam.beta2) * g * g
        denom = math.sqrt(v) * adam.inv_sqrt_bias2(step) + adam.eps
        change -= adam.step_size(step) * m / denom if denom else 0.0
        found.append(change)
    return found


@given(
    st.lists(REAL, min_size=1, max_size=12), st.floats(0.0, 0.95), st.floats(0.5, 0.999), st.sampled_from([0.0, 1e-8])
)
def test_no_gradients_change_a_weight_by_more_than_the_bound(
    gradients: list[float], beta1: float, beta2: float, eps: float
) -> None:
    adam = AdamConstants(1e-3, beta1, beta2, eps)
    for step, change in enumerate(changes(adam, gradients), start=1):
        assert abs(change) <= adam.largest_change(step) * (1 + 1e-9)


def test_bound_is_met_by_the_worst_gradients() -> None:
    # At step 1 by any; later by those proportional to a_s / b_s.
    assert abs(changes(PAPER, [3.0])[0]) == pytest.approx(PAPER.largest_change(1), rel=1e-6)
    worst = [0.5 ** (2 - s) / 0.999 ** (2 - s) for s in (1, 2)]
    second = changes(PAPER, worst)[1] - changes(PAPER, worst)[0]
    assert abs(second) == pytest.approx(PAPER.largest_change(2) - PAPER.largest_change(1), rel=1e-6)


@pytest.mark.parametrize("lr", [1e-9, 5e-5, 0.25, 10.0])
@pytest.mark.parametrize("steps", [1, 5, 100])
def test_scaled_changes_fill_float16_and_never_overflow(lr: float, steps: int) -> None:
    adam = AdamConstants(lr, 0.5, 0.999, 1e-8)
    scale = delta_scale(MapPrecision.of("bf16"), adam, steps)
    assert math.log2(scale).is_integer()
    assert 2**14 <= scale * adam.largest_change(steps) < 2**15 < torch.finfo(torch.float16).max
    assert delta_scale(MapPrecision.of("float32"), adam, steps) == 1.0


def test_a_change_without_bound_or_without_size_is_not_scaled() -> None:
    assert delta_scale(MapPrecision.of("bf16"), AdamConstants(1e-3, 0.5, 0.0, 1e-8), 3) == 1.0
    assert delta_scale(MapPrecision.of("bf16"), AdamConstants(0.0, 0.5, 0.999, 1e-8), 3) == 1.0


def test_every_precision_has_modes_that_each_backend_knows() -> None:
    known = {
        "cuda": {"tf32x3", "tf32", "bf16"},
        "hip": {"ieee", "bf16"},
        "interpreter": {"ieee", "tf32", "bf16 in float32"},
    }
    for backend, modes in known.items():
        for name in MAP_PRECISIONS:
            row = MapPrecision.of(name, backend)
            assert {row.shared, row.change, row.gradient} <= modes
    with pytest.raises(ValueError, match="unknown precision 'half'; the known ones are float32, tf32, bf16"):
        MapPrecision.of("half")
