"""The Triton engine finds what the float64 reference finds."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch

from adgan_fast.engine.triton import lift as triton_lift
from adgan_fast.engine.triton import search as triton_search
from adgan_fast.testing import FLOAT32, REDUCED, improvement, violations
from tests.support.families import FAMILIES
from tests.support.losses import LOSSES
from tests.support.triton import TINY, assert_agrees, reference, search

pytestmark = pytest.mark.usefixtures("one_thread")


# -- agreement -----------------------------------------------------------------------------------------------------

SMALL = [name for name in FAMILIES if name not in ("DCGAN of 28", "DCGAN of 32", "LSGAN")]


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.usefixtures("all_maps")
def test_a_family_agrees_with_the_reference(device: torch.device, family: str) -> None:
    """The losses take turns."""
    assert_agrees(FAMILIES[family], device, loss=LOSSES[SMALL.index(family) % 4])


@pytest.mark.usefixtures("all_maps")
def test_the_papers_five_steps_agree_with_the_reference(device: torch.device) -> None:
    assert_agrees(FAMILIES["DCGAN of 8"], device, steps=5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weights", ["per_sample", "frozen"])
def test_other_owners_of_weights_agree_with_the_reference(device: torch.device, weights: str, loss) -> None:
    assert_agrees(FAMILIES["DCGAN of 16"], device, n=3, n_seed=3, steps=5, weights=weights, loss=loss)


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.usefixtures("all_maps")
def test_any_number_of_steps_agrees_with_the_reference(device: torch.device, steps: int) -> None:
    found = search(TINY, device, steps=steps)
    want = reference(TINY, steps=steps)
    if steps:
        assert not violations(found, want, FLOAT32)
    else:
        assert torch.equal(found.losses, found.initial_losses)
        torch.testing.assert_close(found.losses.double(), want.losses, rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", ["DCGAN of 8", "upsample and convolve"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.usefixtures("all_maps")
def test_less_exact_arithmetic_stays_within_its_own_bound(device: torch.device, precision: str, family: str) -> None:
    assert_agrees(FAMILIES[family], device, REDUCED, precision=precision)


@pytest.mark.usefixtures("all_maps")
def test_a_large_share_of_the_weights_in_the_improvement_agrees_as_well(device: torch.device) -> None:
    """With the latent held, all of the improvement is the weights'."""
    settings = {"lr_z": 0.0, "lr_weights": 1e-2}
    assert_agrees(TINY, device, **settings)
    assert_agrees(TINY, device, REDUCED, precision="bf16", **settings)


@pytest.mark.parametrize("fault", ["no update", "one step late", "no gradient of the input"])
@pytest.mark.usefixtures("all_maps")
def test_a_broken_search_is_caught(device: torch.device, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    private = triton_lift.PrivateLayer

    class Broken(private):  # type: ignore[misc, valid-type]
        def __init__(self, *args) -> None:
            super().__init__(*args)
            kernels, keep, input_grad = self.private, self.private.keep, self.private.input_grad
            if fault == "no update":
                kernels.keep = lambda step, x, gy: keep(step, x, torch.zeros_like(gy))
            elif fault == "one step late":
                kernels.keep = lambda step, x, gy: keep(step, x, gy * (step > 1))
            else:
                kernels.input_grad = lambda gy, step: input_grad(gy, step) * 0.9

    monkeypatch.setattr(triton_search, "PrivateLayer", Broken)
    found = search(TINY, device, lr_weights=1e-3)
    assert violations(found, reference(TINY, lr_weights=1e-3), FLOAT32)


def test_the_improvement_is_what_is_tested() -> None:
    """The bound's own test: nearly the right losses, of a search that left the weights alone, are not let pass."""
    want, frozen = reference(TINY), reference(TINY, weights="frozen")
    assert float((improvement(frozen) - improvement(want)).abs().max()) < 1e-2 * float(want.losses.mean())
    assert violations(frozen, want, FLOAT32)
