"""Real images: MNIST's, where the data set lies beside the repository."""

from __future__ import annotations

import pytest
import torch

import adgan_fast
from adgan_fast.data import load_mnist
from adgan_fast.testing import violations
from tests.support.engines import ON_CPU
from tests.support.families import FAMILIES
from tests.support.paths import SHARED

pytestmark = pytest.mark.usefixtures("one_thread")

MNIST = SHARED / "mnist"
CASE = FAMILIES["DCGAN of 28"]


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """Four of MNIST's test images, (4, 1, 28, 28) uint8."""
    if not MNIST.is_dir():
        pytest.skip(f"MNIST is not at {MNIST}")
    images = torch.as_tensor(load_mnist(MNIST, "test").images[:4])
    assert images.dtype == torch.uint8
    return images.reshape(-1, 1, 28, 28)


@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
@pytest.mark.parametrize("loss", ["l2", "laplacian"])
def test_digits_score_as_the_reference_scores_them(weights, loss, digits):
    settings = {"n_seed": 4, "weights": weights, "loss": loss}
    reference = adgan_fast.search(CASE.double(), digits, engine="reference", **settings)
    for engine in ON_CPU:
        wrong = violations(adgan_fast.search(CASE.module, digits, engine=engine, **settings), reference)
        assert not wrong, f"{engine}: {'; '.join(wrong)}"


def test_bytes_and_scaled_floats_score_alike(digits):
    settings = {"n_seed": 2, "steps": 2}
    as_bytes = adgan_fast.score(CASE.module, digits, **settings)
    as_floats = adgan_fast.score(CASE.module, digits.float() / 127.5 - 1, **settings)
    assert torch.equal(as_bytes, as_floats)
    squeezed = adgan_fast.score(CASE.module, digits[:, 0].numpy(), **settings)
    assert torch.equal(torch.from_numpy(squeezed), as_bytes)
