"""The native engine agrees with the reference in float32, in every setting."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import adgan_fast
from adgan_fast import SearchConfig
from adgan_fast.testing import FLOAT32, REDUCED, errors, violations
from tests.support.engines import NEEDS_EXTENSION, WEIGHTS
from tests.support.families import FAMILIES, dcgan
from tests.support.generators import Case, cases
from tests.support.native import LOSSES, features, reference, reference_of_family, run, taken
from tests.support.results import differences
from tests.support.tally import Tally

pytestmark = NEEDS_EXTENSION


@pytest.mark.usefixtures("one_thread", "isa")
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_agrees_with_the_reference_on_every_family(name, weights):
    case = taken(name)
    for loss in LOSSES if weights == "per_seed" else ("l2",):
        found = run(case, case.images(2), weights=weights, loss=loss)
        assert not violations(found, reference_of_family(name, weights, loss), FLOAT32)


def assert_agrees(case: Case, tally: Tally, **settings) -> None:
    """Hold a search to the reference, where float32 says something about this generator."""
    assume(math.prod(case.image_shape) >= 6)  # the error of one or two pixels' loss is relative to nearly nothing
    images = case.images(2)
    try:
        expected = reference(case, images, **settings)
    except ValueError as error:
        assert "ignores its latent" in str(error) or "no gradient reaches its latent" in str(error)
        tally.aside["every ReLU is shut"] += 1
        return
    # Where float32 itself has an entry of a first gradient flip its sign, nothing can be said.
    if violations(run(case, images, **{**settings, "engine": "reference"}), expected, FLOAT32 * 0.25):
        tally.aside["the plain loop is off"] += 1
        return
    assert not violations(run(case, images, **settings), expected, FLOAT32)
    tally.checked += 1


@pytest.mark.usefixtures("one_thread")
def test_agrees_with_the_reference_for_many_steps():
    """Beyond the steps that rank-1 layers keep; tests/engine/test_agreement.py has the usual ones."""
    tally = Tally()

    @settings(max_examples=25)
    @given(cases(), st.sampled_from(WEIGHTS), st.sampled_from(LOSSES), st.integers(6, 11))
    def check(case, weights, loss, steps):
        assert_agrees(case, tally, weights=weights, loss=loss, steps=steps, lr_weights=1e-3)

    check()
    tally.assert_enough(15, 0.25)


@pytest.mark.parametrize("name", FAMILIES)
def test_sixteen_bit_state_is_within_its_bound(name):
    case = taken(name)
    images = case.images(2)
    found, expected = run(case, images, precision="bf16"), reference(case, images)
    assert not violations(found, expected, "bf16")
    assert not errors(found, expected).flipped


def test_sixteen_bit_state_is_what_bf16_means():
    """A generator with a first layer, and convolutions whose moments are rounded; nothing else differs."""
    case = dcgan(32, 1, 24, 16)
    images = case.images(2)
    exact, compact = run(case, images), run(case, images, precision="bf16")
    assert torch.equal(exact.initial_losses, compact.initial_losses)
    assert not torch.equal(exact.losses, compact.losses)
    expected = reference(case, images)
    assert not violations(compact, expected, REDUCED * 0.1)
    assert not errors(compact, expected).flipped


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("image_size, channels, width", [(32, 1, 16), (32, 3, 24), (64, 3, 8), (28, 1, 20)])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_agrees_at_widths_that_fill_registers_and_leave_a_rest(image_size, channels, width, weights):
    case = dcgan(image_size, channels, 24, width)
    images = case.images(2)
    expected = reference(case, images, weights=weights, engine="grouped")
    assert not violations(run(case, images, weights=weights), expected, FLOAT32)


SETTINGS = (
    {"lr_z": 0.0}, {"lr_weights": 0.0}, {"lr_z": 0.0, "lr_weights": 0.0}, {"lr_z": 1.5}, {"lr_weights": 0.01},
    {"betas": (0.0, 0.0)}, {"betas": (0.9, 0.99)}, {"betas": (0.0, 0.999)}, {"betas": (0.95, 0.5)},
    {"eps": 1e-3}, {"eps": 1.0}, {"eps": 1e-30}, {"prior": "uniform"}, {"seed": 2**63}, {"starts": "independent"},
    *({"steps": steps, "lr_weights": 1e-3} for steps in range(11)),  # first layers keep the gradients of up to 8
)  # fmt: skip


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_agrees_with_the_reference_in_every_setting(weights, settings):
    for name in ("DCGAN of 16", "scalings and constants"):
        case, settings = FAMILIES[name], {"steps": 5, "weights": weights, **settings}
        found, expected = run(case, case.images(2), **settings), reference(case, case.images(2), **settings)
        assert not violations(found, expected, FLOAT32)
        torch.testing.assert_close(found.latents, expected.latents.float(), rtol=1e-3, atol=2e-3)


def test_agrees_with_the_reference_in_random_settings():
    tally = Tally()

    @settings(max_examples=40)
    @given(
        cases(),
        st.fixed_dictionaries(
            {
                "weights": st.sampled_from(WEIGHTS),
                "loss": st.sampled_from([*LOSSES, features]),
                "steps": st.integers(0, 9),
                "n_seed": st.integers(1, 5),
                "rates": st.sampled_from([(0.25, 5e-5), (0.25, 0.0), (0.0, 0.01), (0.05, 1e-3), (1.0, 5e-5)]),
                "betas": st.sampled_from([(0.5, 0.999), (0.0, 0.0), (0.9, 0.99), (0.9, 0.5)]),
                "eps": st.sampled_from([1e-8, 1e-3, 1.0]),
                "prior": st.sampled_from(["normal", "uniform"]),
                "starts": st.sampled_from(["shared", "independent"]),
                "seed": st.integers(0, 2**64 - 1),
            }
        ),
    )
    def check(case, settings):
        settings["lr_z"], settings["lr_weights"] = settings.pop("rates")
        assert_agrees(case, tally, **settings)

    check()
    tally.assert_enough(23, 0.25)


def test_latents_and_reconstructions_are_those_of_the_best_start():
    case = FAMILIES["DCGAN of 16"]
    found, expected = run(case, case.images(3)), reference(case, case.images(3))
    torch.testing.assert_close(found.latents, expected.latents.float(), rtol=0, atol=2e-3)
    torch.testing.assert_close(found.reconstructions, expected.reconstructions.float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_starts_of_each_images_own(weights):
    case = FAMILIES["DCGAN of 8"]
    settings = {"starts": "independent", "weights": weights}
    assert not violations(run(case, case.images(3), **settings), reference(case, case.images(3), **settings), FLOAT32)


@pytest.mark.usefixtures("isa")
def test_a_zero_gradient_is_no_update():
    """Learning rates of 0 for the weights and a generator that ignores most of its latent: nothing is NaN."""
    module = nn.Sequential(nn.Linear(6, 18), nn.ReLU(), nn.Unflatten(1, (2, 3, 3)), nn.ConvTranspose2d(2, 1, 3))
    with torch.no_grad():
        module[0].weight[:, 3:] = 0
        module[0].weight[9:] = 0
        module[0].bias[9:] = -1
    case = Case(module, (6,), (1, 5, 5))
    starts = torch.randn(3, 6, generator=torch.Generator().manual_seed(5))
    found = run(case, case.images(2), steps=5, starts=starts)
    assert bool(torch.isfinite(found.losses).all())
    first, second = found.latents[:, :, 3:], starts[:, 3:].expand(2, 3, 3)
    assert not torch.equal(first, second)  # weights of zero get gradients, and so does the latent behind them later
    frozen = run(case, case.images(2), steps=5, weights="frozen", starts=starts)
    assert torch.equal(frozen.latents[:, :, 3:], second)
    assert SearchConfig().eps > 0


def test_a_search_of_more_than_five_steps_is_in_float32_whatever_is_permitted(caplog):
    """16-bit moments carry on what they round off; over twenty steps it leaves the bound where a norm amplifies it."""
    case = FAMILIES["DCGAN of 16"]
    module, images, settings = case.module, case.images(1), {"n_seed": 3, "loss": "laplacian", "engine": "native"}
    caplog.set_level(logging.INFO, "adgan_fast")
    for steps, reduced in ((5, True), (6, False), (20, False)):
        caplog.clear()
        exact = adgan_fast.search(module, images, steps=steps, **settings)
        found = adgan_fast.search(module, images, steps=steps, precision="bf16", **settings)
        assert bool(differences(exact, found)) is reduced
        assert ("precision float32 instead of bf16" in caplog.text) is not reduced
