"""The rule of agreement on numbers worked out by hand, and the check of an engine that holds to it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import ops, testing
from adgan_fast.testing import FLOAT32, FLOAT64, REDUCED, Bound, Losses, check_engine, errors, improvement, violations
from tests.support.engines import ON_CPU
from tests.support.losses import huber
from tests.support.small import CASE

pytestmark = pytest.mark.usefixtures("one_thread")
NAN = float("nan")


def losses(initial: list[list[float]], final: list[list[float]]) -> Losses:
    return Losses(torch.tensor(initial, dtype=torch.float64), torch.tensor(final, dtype=torch.float64))


def shifted(by: float, pairs: int = 1) -> Losses:
    """EXACT with the final losses of its first pairs off by so much."""
    off = torch.zeros(2, 2, dtype=torch.float64)
    off.view(-1)[:pairs] = by
    return Losses(EXACT.initial, EXACT.final + off)


# d is 3, 4 and 0, 5: of mean square 12.5. Mean initial losses are 10 and 20.
EXACT = losses([[10.0, 10.0], [20.0, 20.0]], [[7.0, 6.0], [20.0, 15.0]])
RMS_D = math.sqrt(12.5)

# -- errors --------------------------------------------------------------------------------------------------------


def test_errors_are_those_worked_out_by_hand() -> None:
    found = losses([[10.0, 10.0], [20.0, 20.0]], [[7.3, 6.0], [20.0, 14.6]])  # d is 2.7, 4 and 0, 5.4
    seen = errors(found, EXACT)
    assert seen.rms == pytest.approx(math.sqrt((0.09 + 0.16) / 4) / RMS_D)
    assert seen.mean == pytest.approx((0.3 + 0.4) / 4 / RMS_D)
    assert seen.score == pytest.approx(max(0.3 / 2 / 10, 0.4 / 2 / 20))
    assert seen.flipped == 0
    assert str(seen) == "d off by 7.1e-02 (rms) and 4.9e-02 (mean), score by 1.5e-02"


def test_an_initial_loss_that_is_off_is_an_error_of_d_and_not_of_the_score() -> None:
    seen = errors(Losses(EXACT.initial + 0.1, EXACT.final), EXACT)
    assert seen.rms == pytest.approx(0.1 / RMS_D) and seen.mean == pytest.approx(0.1 / RMS_D) and seen.score == 0


def test_the_same_losses_have_no_error_whatever_their_type() -> None:
    result = adgan_fast.search(CASE.module, CASE.images(2), n_seed=2, steps=1)
    assert errors(result, (result.initial_losses, result.losses)) == testing.Errors(0.0, 0.0, 0.0, 0)
    assert improvement(result).dtype == torch.float64
    assert torch.equal(improvement(EXACT), torch.tensor([[3.0, 4.0], [0.0, 5.0]], dtype=torch.float64))


def test_signs_count_where_the_references_d_is_over_a_thousandth_of_the_initial_loss() -> None:
    exact = losses([[10.0, 10.0, 10.0]], [[9.989, 9.991, 10.0]])  # d is 0.011, 0.009, 0
    other = losses([[10.0, 10.0, 10.0]], [[10.011, 10.009, 10.1]])
    assert errors(other, exact).flipped == 1
    assert errors(losses([[10.0] * 3], [[10.0] * 3]), exact).flipped == 1  # none at all is no improvement


def test_nan_is_beyond_every_bound() -> None:
    found = Losses(EXACT.initial, EXACT.final.clone())
    found.final[0, 1] = NAN
    seen = errors(found, EXACT)
    assert math.isnan(seen.rms) and math.isnan(seen.mean) and math.isnan(seen.score) and seen.flipped == 1
    for bound in ("float32", "bf16", Bound(1e9, 1e9, 1e9, signs=False)):
        assert len(violations(found, EXACT, bound)) >= 3
    assert len(violations(found, EXACT, plain=found)) >= 3  # nor does a plain loop that is NaN excuse it


def test_where_d_is_zero_no_error_is_none_and_any_other_is_infinite() -> None:
    still = losses([[10.0, 20.0]], [[10.0, 20.0]])
    assert violations(still, still) == []
    seen = errors(losses([[10.0, 20.0]], [[10.0, 20.1]]), still)
    assert seen.rms == seen.mean == math.inf and seen.score == pytest.approx(0.1 / 2 / 15)
    moved = losses([[10.0, 20.0]], [[10.0, 20.0 + 1e-9]])
    assert violations(moved, still, plain=moved), "an infinite error of the plain loop excuses nothing"


def test_no_images_have_no_error() -> None:
    none = Losses(torch.zeros(0, 3), torch.zeros(0, 3))
    assert violations(none, none) == [] and errors(none, none).score == 0


def test_pairs_that_the_reference_leaves_out_count_for_nothing_but_the_number_of_starts() -> None:
    exact = losses([[10.0, NAN, NAN, NAN], [NAN] * 4], [[7.0, NAN, NAN, NAN], [NAN] * 4])
    found = losses([[10.0, 1.0, NAN, 5.0], [1.0] * 4], [[6.4, 9.0, NAN, 0.0], [NAN] * 4])
    seen = errors(found, exact)
    assert seen.rms == seen.mean == pytest.approx(0.6 / 3)
    assert seen.score == pytest.approx(0.6 / 4 / 10)  # of the score of all four starts
    nothing = losses([[NAN]], [[NAN]])
    assert errors(losses([[1.0]], [[2.0]]), nothing) == testing.Errors(0.0, 0.0, 0.0, 0)


def test_losses_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 1\) against \(2, 2\)"):
        errors(losses([[1.0]], [[1.0]]), EXACT)


# -- the rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("figure", "words"), [("rms", "rms"), ("mean", "mean"), ("score", "a score is off")])
def test_each_figure_has_a_bound_of_its_own(figure: str, words: str) -> None:
    found = shifted(1e-2)
    size = getattr(errors(found, EXACT), figure)
    wide = {"rms": 1.0, "mean": 1.0, "score": 1.0}
    assert violations(found, EXACT, Bound(**wide | {figure: size})) == []
    (wrong,) = violations(found, EXACT, Bound(**wide | {figure: 0.99 * size}))
    assert wrong.startswith(words) and f"{size:.1e}" in wrong and "is allowed" in wrong


def test_the_bounds_are_those_of_the_contract() -> None:
    assert (FLOAT32.rms, FLOAT32.mean, FLOAT32.score) == (1e-3, 2e-4, 2e-5)
    assert (REDUCED.rms, REDUCED.score) == (2e-2, 1e-3) and REDUCED.mean >= REDUCED.rms
    assert [testing.bound_of(name) for name in ("float32", "float64", "tf32", "bf16")] == [
        FLOAT32, FLOAT64, REDUCED, REDUCED,
    ]  # fmt: skip
    assert Bound(5e-4, 1e-4, 1e-5) == FLOAT32 * 0.5 and not (REDUCED * 2).signs


def test_the_plain_loop_is_asked_only_where_a_bound_is_missed() -> None:
    asked: list[Losses] = []

    def plain(off: float) -> Any:
        return lambda: asked.append(shifted(off)) or asked[-1]

    assert violations(shifted(1e-5), EXACT, plain=plain(0.0)) == [] and not asked
    assert violations(shifted(2.9e-2), EXACT, plain=plain(1e-2)) == [] and len(asked) == 1
    assert violations(shifted(2.9e-2), EXACT)
    beyond = violations(shifted(3.1e-2), EXACT, plain=plain(1e-2))
    assert len(beyond) == 3 and "4e-03 is allowed" in beyond[0]  # 3 · (1e-2 / 2) / √12.5
    assert violations(shifted(2.9e-2), EXACT, plain=shifted(1e-2)) == []  # losses, in place of a function
    assert violations(shifted(2.9e-2), EXACT, plain=plain(0.0))


def test_each_figure_is_excused_by_its_own_alone() -> None:
    """The plain loop is far off in rms by one pair; where all pairs are off its mean says less."""
    assert errors(shifted(1e-2, 4), EXACT).rms < 3 * errors(shifted(1e-2, 1), EXACT).rms
    (wrong,) = violations(shifted(1e-2, 4), EXACT, plain=shifted(1e-2, 1))
    assert wrong.startswith("mean")


def test_a_plain_loop_that_is_better_than_the_bound_narrows_nothing() -> None:
    assert violations(shifted(1e-3), EXACT, plain=EXACT) == violations(shifted(1e-3), EXACT)
    found = shifted(5e-4)  # within the bounds of rms and mean, beyond that of the score
    (wrong,) = violations(found, EXACT, plain=EXACT)
    assert wrong.startswith("a score") and "2e-05 is allowed" in wrong


def test_a_sign_has_no_excuse() -> None:
    exact = losses([[10.0] * 8], [[5.0] * 7 + [9.98]])
    flipped = losses([[10.0] * 8], [[5.0] * 7 + [10.02]])
    (wrong,) = violations(flipped, exact, plain=flipped)
    assert wrong == "d has another sign in 1 pairs"
    assert any("another sign" in line for line in violations(flipped, exact, "float64"))


def test_reduced_precision_has_neither_a_rule_of_signs_nor_the_plain_loops_excuse() -> None:
    exact = losses([[10.0] * 8], [[5.0] * 7 + [9.98]])
    flipped = losses([[10.0] * 8], [[5.0] * 7 + [10.02]])
    for precision in ("tf32", "bf16"):
        assert violations(flipped, exact, precision) == []
        assert violations(shifted(0.2), EXACT, precision, plain=shifted(0.2))
    assert violations(shifted(0.2), EXACT, "float64", plain=shifted(0.2))


# -- check_engine --------------------------------------------------------------------------------------------------


def single(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A loss that knows float32 alone."""
    assert reconstruction.dtype == image.dtype == torch.float32
    return (reconstruction - image).abs().flatten(1).sum(1)


@pytest.mark.parametrize("engine", ON_CPU)
@pytest.mark.parametrize(
    "settings",
    [{}, {"loss": huber}, {"loss": single}, {"starts": "independent"}, {"weights": "per_sample"}, {"steps": 0}],
    ids=["usual", "huber", "float32 alone", "independent", "per_sample", "no steps"],
)
def test_an_engine_passes(engine: str, settings: dict[str, Any]) -> None:
    found = check_engine(CASE.module, CASE.images(2), engine=engine, n_seed=2, **settings)
    assert found.passed and found.engine == engine and found.bound == FLOAT32, str(found)
    assert found.seconds > 0 and found.errors.rms < 1e-3
    if not settings:
        assert found.errors.rms > 0  # it was compared with what has another precision


@pytest.mark.parametrize("engine", ON_CPU)
def test_bytes_are_compared_as_the_engine_had_them(engine: str) -> None:
    images = ((CASE.images(2).numpy() + 1) * 127.5).astype(np.uint8)[:, 0]
    assert images.shape == (2, 8, 8)
    found = check_engine(CASE.module, images, engine=engine, n_seed=2)
    assert found.passed and found.errors.rms < 1e-4, str(found)


@pytest.mark.parametrize("engine", [name for name in ON_CPU if name != "native"])
def test_a_float64_generator_is_held_to_the_bound_of_float64(engine: str) -> None:
    found = check_engine(CASE.double(), CASE.images(2), engine=engine, n_seed=2)
    assert found.passed and found.bound == FLOAT64 and found.errors.rms < 1e-7, str(found)


def test_an_engine_in_reduced_precision_is_held_to_its_bound() -> None:
    found = check_engine(CASE.module, CASE.images(1), engine="reference", n_seed=2, precision="bf16")
    assert found.passed and found.bound == REDUCED
    longer = check_engine(CASE.module, CASE.images(1), engine="reference", n_seed=1, precision="bf16", steps=6)
    assert longer.passed and longer.bound == FLOAT32  # over so many steps an engine computes in float32


class Float32Inside(nn.Module):
    """Does not run in float64: it multiplies its weights with a tensor that it makes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 16)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        shift = self.layer(torch.ones(1, 5, dtype=torch.float32))
        return torch.tanh(self.layer(z) + shift).reshape(-1, 1, 4, 4)


def test_a_generator_that_knows_float32_alone_is_compared_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    gen = Float32Inside()
    with pytest.raises(RuntimeError):
        gen.double()(torch.zeros(1, 5, dtype=torch.float64))
    gen.float()
    with caplog.at_level("INFO", "adgan_fast"):
        found = check_engine(gen, torch.zeros(2, 1, 4, 4), engine="eager", n_seed=2)
    assert found.passed and "compared in torch.float32" in caplog.text, str(found)


def test_nothing_of_the_caller_is_changed() -> None:
    gen = CASE.double().float().train()
    before = {name: value.clone() for name, value in gen.state_dict().items()}
    check_engine(gen, CASE.images(1), engine="grouped", n_seed=1)
    assert gen.training and all(torch.equal(value, before[name]) for name, value in gen.state_dict().items())


@pytest.fixture
def faster_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """`grouped` moves its weights by a tenth too much."""
    right = ops.adam_step_

    def wrong(p: Any, m: Any, v: Any, g: Any, old: Any, lrs: list[float], *rest: Any) -> None:
        right(p, m, v, g, old, [lrs[0], *(1.1 * lr for lr in lrs[1:])], *rest)

    monkeypatch.setattr(ops, "adam_step_", wrong)


@pytest.mark.usefixtures("faster_weights")
@pytest.mark.parametrize("weights", ["per_seed", "per_sample"])
def test_a_broken_engine_fails_with_the_figures(weights: str) -> None:
    found = check_engine(CASE.module, CASE.images(2), engine="grouped", n_seed=4, weights=weights)
    assert not found.passed
    assert found.violations[0].startswith(("rms ", "mean ")) and "is allowed" in found.violations[0]
    assert str(found).startswith(f"grouped: FAIL ({found.violations[0]}") and f"{found.errors.rms:.1e}" in str(found)


def test_an_engine_that_cannot_run_says_why() -> None:
    with pytest.raises(ValueError, match=r"engine 'native' cannot run: .*float64|extension"):
        check_engine(CASE.double(), CASE.images(1), engine="native", n_seed=1)
    with pytest.raises(ValueError, match="no_such"):
        check_engine(CASE.module, CASE.images(1), engine="no_such", n_seed=1)
