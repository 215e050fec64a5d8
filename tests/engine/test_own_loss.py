"""A loss that is a function: what it may do, and what it must not."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint

from tests.support.engines import ON_CPU, WEIGHTS
from tests.support.made import IMAGES, made, search

pytestmark = pytest.mark.usefixtures("one_thread")


def writes_into_the_image(reconstruction, image):
    image.mul_(0.5)
    return (reconstruction - image).square().flatten(1).sum(1)


def writes_into_the_reconstruction(reconstruction, image):
    reconstruction.mul_(0.5)
    return (reconstruction - image).square().flatten(1).sum(1)


def half_of_the_image(reconstruction, image):
    return (reconstruction - 0.5 * image).square().flatten(1).sum(1)


def half_of_the_reconstruction(reconstruction, image):
    return (0.5 * reconstruction - image).square().flatten(1).sum(1)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("engine", ON_CPU)
@pytest.mark.parametrize(
    ("loss", "plain"),
    [(writes_into_the_image, half_of_the_image), (writes_into_the_reconstruction, half_of_the_reconstruction)],
)
def test_a_loss_may_write_into_what_it_is_given(loss, plain, engine, weights):
    gen, images = made(lambda s, z: torch.tanh(s.l(z))), IMAGES.clone()
    found = search(gen, engine, images, loss=loss, weights=weights)
    wanted = search(gen, engine, images, loss=plain, weights=weights)
    assert torch.equal(images, IMAGES)
    torch.testing.assert_close(found.losses, wanted.losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.reconstructions, wanted.reconstructions, rtol=1e-5, atol=1e-5)


def test_a_loss_that_mixes_a_batch_or_is_random_is_refused():
    gen = made(lambda s, z: s.l(z))
    with pytest.raises(ValueError, match="mixes the images of a batch"):
        search(gen, loss=lambda r, x: (r - x).square().sum().expand(len(r)))
    with pytest.raises(ValueError, match="is random"):
        search(gen, loss=lambda r, x: (r - x + torch.rand_like(x)).square().flatten(1).sum(1))


@pytest.mark.parametrize("engine", ON_CPU)
def test_a_loss_that_scores_is_told_so_and_waits_for_nobody(engine):
    gen = made(lambda s, z: s.l(z))

    def scores(reconstruction, image):
        search(gen)
        return (reconstruction - image).square().flatten(1).sum(1)

    with pytest.raises(RuntimeError, match="cannot be called by a loss"):
        search(gen, engine, loss=scores)
    search(gen, engine)
