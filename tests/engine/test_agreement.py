"""Every engine finds what the float64 reference finds, by the contract's rule (adgan_fast/testing.py)."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import adgan_fast
from adgan_fast import SearchResult
from adgan_fast.engine import eager, grouped
from adgan_fast.testing import FLOAT32, FLOAT64, improvement, violations
from tests.support.captured import captured_once
from tests.support.engines import FAST, ON_CPU, WEIGHTS
from tests.support.families import FAMILIES, REFUSED
from tests.support.generators import Case, cases
from tests.support.losses import LOSSES
from tests.support.tally import Tally
from tests.support.uninitialised import filled_with_nan

pytestmark = pytest.mark.usefixtures("one_thread")

FLOAT32_ALONE = ("native",)  # tests/engine/native tries all settings in float32
NOT_IN_CPP = r"layer '.+ \(\w+\)': (\w+ is not in the C\+\+ engine|its weight is computed from parameters)"


def engines_of(dtype: torch.dtype) -> list[str]:
    return [engine for engine in FAST if dtype == torch.float32 or engine not in FLOAT32_ALONE]


def run(case: Case, engine: str, dtype: torch.dtype, n: int = 2, **settings) -> SearchResult:
    """The check before a first use is not wanted: this is one."""
    settings = {"verify": False, **settings}
    gen = case.double() if dtype == torch.float64 else case.module
    with pytest.MonkeyPatch.context() as patch:
        if settings.get("chunk"):  # taken as on a GPU: on a CPU an engine has its own
            for module in (eager, grouped):
                patch.setattr(module, "on_cpu", lambda job, *_: job.config.chunk)
        with captured_once(case.module):
            return adgan_fast.search(gen, case.images(n), engine=engine, latent_shape=case.latent_shape, **settings)


def assert_whole(found: SearchResult, case: Case, engine: str, n: int, n_seed: int, dtype: torch.dtype) -> None:
    assert found.engine == engine
    assert found.scores.shape == (n,)
    assert found.losses.shape == found.initial_losses.shape == (n, n_seed)
    assert found.latents.shape == (n, n_seed, *case.latent_shape)
    assert found.reconstructions.shape == (n, *case.image_shape)
    assert all(t.dtype == dtype for t in (found.scores, found.losses, found.latents, found.reconstructions))
    torch.testing.assert_close(found.scores, found.losses.mean(1))


def assert_agrees(case: Case, precise: bool, n: int = 2, **settings) -> bool:
    """Hold all engines to the reference; False where float32 says nothing about this generator.

    Adam's first step is lr · sign(gradient), so that an entry within rounding of zero may flip, in any float32 loop.
    So float32 is tried where the reference itself, in float32, keeps a quarter of the bound.
    """
    dtype = torch.float64 if precise else torch.float32
    bound = FLOAT64 if precise else FLOAT32
    reference = run(case, "reference", torch.float64, n, **settings)
    if not precise and violations(run(case, "reference", dtype, n, **settings), reference, FLOAT32 * 0.25):
        return False
    for engine in engines_of(dtype):
        try:
            found = run(case, engine, dtype, n, **settings)
        except ValueError as error:
            assert engine == "native" and re.search(NOT_IN_CPP, str(error))
            continue
        assert_whole(found, case, engine, n, found.losses.shape[1], dtype)
        wrong = violations(found, reference, bound)
        assert not wrong, f"{engine}, {dtype}: {'; '.join(wrong)}"
        if precise:
            torch.testing.assert_close(found.latents, reference.latents, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(found.reconstructions, reference.reconstructions, rtol=1e-6, atol=1e-7)
    return True


def assume_alive(case: Case, **settings) -> None:
    """Leave out a generator whose image hardly depends on the latent, as where all ReLUs are shut."""
    module, seed = case.double().eval(), settings.get("seed", 0)
    with torch.no_grad():
        made = module(adgan_fast.core.starts.draw(seed, None, 4, case.latent_shape, "normal")).flatten(1)
    assume(float((made[0] - made[1]).abs().max()) > 1e-4)  # the two that are tried before a search
    assume(float(made.std(0).max()) > 1e-3)


drawn_settings = st.fixed_dictionaries(
    {
        "weights": st.sampled_from(WEIGHTS),
        "loss": st.sampled_from(LOSSES),
        "n_seed": st.integers(1, 4),
        "steps": st.sampled_from([5, 5, 1, 2, 3]),
        "starts": st.sampled_from(["shared", "independent"]),
        "chunk": st.sampled_from([None, None, 1, 2, 3, 5]),
        "seed": st.integers(0, 5),
    }
)


def test_a_random_generator_in_float64():
    tally = Tally()

    @settings(max_examples=30)
    @given(cases(), drawn_settings, st.integers(1, 3))
    def check(case, settings, n):
        assume_alive(case, **settings)
        tally.checked += assert_agrees(case, precise=True, n=n, **settings)

    check()
    tally.assert_enough(30, 0)


def test_a_random_generator_in_float32():
    tally = Tally()

    @settings(max_examples=20)
    @given(cases(), drawn_settings)
    def check(case, settings):
        assume_alive(case, **settings)
        assume(math.prod(case.image_shape) >= 6)  # the error of one or two pixels' loss is relative to nearly nothing
        if assert_agrees(case, precise=False, **settings):
            tally.checked += 1
        else:
            tally.aside["the plain loop is off"] += 1

    check()
    tally.assert_enough(18, 0.1)


@pytest.mark.parametrize(("family", "case"), FAMILIES.items(), ids=list(FAMILIES))
def test_a_family_in_float64_with_all_weights(family, case):
    """The losses take turns, so that each meets each of `weights` in some family."""
    turn = list(FAMILIES).index(family)
    for i, weights in enumerate(WEIGHTS):
        loss = LOSSES[(turn + i) % len(LOSSES)]
        assert_agrees(case, precise=True, weights=weights, loss=loss, n_seed=2)


@pytest.mark.parametrize(("family", "case"), FAMILIES.items(), ids=list(FAMILIES))
def test_a_family_in_chunks_of_many_images(family, case):
    turn = list(FAMILIES).index(family)
    settings = {"weights": WEIGHTS[turn % 3], "chunk": (4, 1000, 2)[turn // 3 % 3]}
    assert_agrees(case, precise=True, n=3, n_seed=2, **settings)


@pytest.mark.parametrize(("family", "case"), FAMILIES.items(), ids=list(FAMILIES))
def test_a_family_in_float32(family, case):
    weights = WEIGHTS[list(FAMILIES).index(family) % 3]
    assert assert_agrees(case, precise=False, weights=weights, n_seed=6), "choose other weights for this family"


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_family_that_cannot_become_a_program_goes_to_an_engine_that_runs_modules(case, weights):
    want = run(case, "reference", torch.float64, weights=weights, n_seed=2)
    found = run(case, "auto", torch.float64, weights=weights, n_seed=2)
    assert found.engine == "eager"
    assert not violations(found, want, FLOAT64)
    for engine in ("grouped", "native"):
        with pytest.raises(ValueError, match=r"layer 'convs\.0 \(ScaledConv\)': a weight of .* depends on the latent"):
            adgan_fast.search(case.module, case.images(1), engine=engine)


@pytest.mark.parametrize(("weights", "loss"), list(itertools.product(WEIGHTS, LOSSES)))
def test_all_weights_with_all_losses(weights, loss):
    assert assert_agrees(FAMILIES["DCGAN of 8"], precise=False, weights=weights, loss=loss, n_seed=4)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_seed": 1}, {"steps": 0}, {"steps": 1}, {"steps": 12}, {"lr_z": 0.0}, {"lr_weights": 0.0},
        {"lr_weights": 0.01}, {"betas": (0.0, 0.0)}, {"betas": (0.9, 0.99)}, {"eps": 1e-3}, {"prior": "uniform"},
        {"starts": "independent"}, {"seed": 2**63}, {"chunk": 1}, {"chunk": 1000},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_reaches_every_engine(settings):
    case, weights = FAMILIES["VAE decoder"], "per_sample" if "betas" in settings else "per_seed"
    settings = {"n_seed": 3, **settings}
    reference = run(case, "reference", torch.float64, 3, weights=weights, **settings)
    for engine in engines_of(torch.float64):
        found = run(case, engine, torch.float64, 3, weights=weights, **settings)
        torch.testing.assert_close(found.initial_losses, reference.initial_losses, rtol=1e-12, atol=0)
        torch.testing.assert_close(improvement(found), improvement(reference), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.latents, reference.latents, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("engine", FLOAT32_ALONE)
def test_an_engine_that_computes_in_float32_alone_says_so(engine):
    case = FAMILIES["DCGAN of 8"]
    with pytest.raises(ValueError, match=r"in float32, not in torch.float64|extension"):
        adgan_fast.search(case.double(), case.images(1), engine=engine)


@pytest.mark.parametrize("engine", ON_CPU)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_images_have_empty_results(engine, weights):
    found = run(FAMILIES["DCGAN of 8"], engine, torch.float32, 0, weights=weights, n_seed=3)
    assert found.scores.shape == (0,)
    assert found.losses.shape == found.initial_losses.shape == (0, 3)
    assert found.latents.shape == (0, 3, 5)
    assert found.reconstructions.shape == (0, 1, 8, 8)


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_nothing_is_read_before_it_is_written(engine, weights):
    case, dtype = FAMILIES["groups"], torch.float32 if engine in FLOAT32_ALONE else torch.float64
    rtol = 1e-4 if engine in FLOAT32_ALONE else 1e-9
    clean = run(case, engine, dtype, weights=weights, n_seed=3)
    with filled_with_nan():
        for chunk in (None, 1, 4):
            found = run(case, engine, dtype, weights=weights, n_seed=3, chunk=chunk)
            torch.testing.assert_close(found.losses, clean.losses, rtol=rtol, atol=0)
            torch.testing.assert_close(found.reconstructions, clean.reconstructions, rtol=100 * rtol, atol=10 * rtol)


def test_a_broken_search_would_be_caught():
    """The bound's own test: a search that leaves the weights alone has nearly the right losses, and not the right d."""
    case = FAMILIES["DCGAN of 28"]
    reference = run(case, "reference", torch.float64, n_seed=4)
    for wrong in ({"weights": "frozen"}, {"lr_weights": 4.9e-5}, {"betas": (0.5, 0.99)}, {"steps": 4}):
        found = run(case, "reference", torch.float64, n_seed=4, **wrong)
        assert violations(found, reference, FLOAT32), wrong
