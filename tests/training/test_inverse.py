"""The regression encoder: it learns latents, leaves the generator alone, and its starts begin nearer to the image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast.core import starts
from adgan_fast.data import load_digits
from adgan_fast.models import DCGANEncoder, DCGANGenerator
from adgan_fast.training import CheckpointError, InverseConfig, VAEConfig, encoder_starts, train
from tests.support.objectives import SHORT, seeded

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def generator() -> nn.Module:
    """The decoder of a short VAE."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = VAEConfig(latent=4, width=8, batch_size=32, steps=300)
    made = train(load_digits().of_class(0).images, config).generator
    torch.set_num_threads(threads)
    return made


def test_the_encoder_learns_the_latents_of_what_the_generator_makes(generator: nn.Module) -> None:
    config = InverseConfig(latent=4, width=8, batch_size=64, steps=300)
    trained, untrained = (train(generator, dataclasses.replace(config, steps=steps)) for steps in (300, 0))
    z = torch.randn(200, 4, generator=seeded(3))
    with torch.no_grad():
        errors = [float((each.encoder(generator(z)) - z).square().sum(1).mean()) for each in (trained, untrained)]
    assert errors[0] < 2.0 < 3.5 < errors[1]  # 4, the latent, is what a constant reaches
    assert trained.history["latent_error"][0] > 3


def test_its_starts_begin_nearer_to_the_images_than_the_priors(generator: nn.Module) -> None:
    encoder = train(generator, InverseConfig(latent=4, width=8, batch_size=64, steps=300)).encoder
    images = load_digits().of_class(0).images[:20]
    own = adgan_fast.search(generator, images, starts=encoder_starts(encoder, images, 4, jitter=0.2), steps=1)
    prior = adgan_fast.search(generator, images, n_seed=4, steps=1)
    assert own.initial_losses.shape == (20, 4)
    assert own.initial_losses.mean() < 0.9 * prior.initial_losses.mean()


def test_the_generator_is_left_as_it_was() -> None:
    generator = DCGANGenerator(8, 1, 4, 2, generator=seeded(0)).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    train(generator, SHORT["inverse"])
    assert generator.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_a_run_does_not_go_on_for_another_generator(tmp_path: Path) -> None:
    train(DCGANGenerator(8, 1, 4, 2, generator=seeded(0)), SHORT["inverse"], out=tmp_path)
    with pytest.raises(CheckpointError, match="other weights"):
        train(DCGANGenerator(8, 1, 4, 2, generator=seeded(1)), SHORT["inverse"], out=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((4, 1, 8, 8), np.uint8), TypeError, "give a torch.nn.Module, not a ndarray"),
        (DCGANGenerator(8, 1, 5, 2), ValueError, r"latent must be the generator's.*\(5,\), got latent=4"),
        (nn.Linear(4, 8), ValueError, r"square images \(B, C, H, H\), it made \(2, 8\)"),
        (nn.Sequential(nn.Linear(4, 81), nn.Unflatten(1, (1, 9, 9))), ValueError, "8, 16, 28, 32, 64, got 9"),
    ],
)
def test_what_cannot_be_inverted_is_described(given: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        train(given, SHORT["inverse"])  # type: ignore[arg-type]


def test_any_module_that_makes_images_can_be_inverted() -> None:
    net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    assert train(net, SHORT["inverse"]).step == 5


ENCODER = DCGANEncoder(8, 1, 3, 2, generator=seeded(0))
PICTURES = np.random.default_rng(1).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)


def test_the_first_start_is_the_code_and_the_others_lie_around_it() -> None:
    made = encoder_starts(ENCODER, PICTURES[:5], 400, jitter=0.5)
    assert made.shape == (5, 400, 3)
    assert made.dtype == torch.float32
    with torch.no_grad():
        codes = ENCODER.eval()(torch.from_numpy(PICTURES[:5]).float() / 127.5 - 1)
    torch.testing.assert_close(made[:, 0], codes)
    around = made[:, 1:] - codes[:, None]
    assert around.std().item() == pytest.approx(0.5, rel=0.1)
    torch.testing.assert_close(around[0], around[4], rtol=0, atol=1e-5)
    assert torch.equal(encoder_starts(ENCODER, PICTURES[:5]), made[:, :1])


def test_the_others_may_be_those_of_the_prior() -> None:
    made = encoder_starts(ENCODER, PICTURES[:2], 4, others="prior", seed=6)
    prior = starts.draw(6, None, 3, (3,), "normal").float()
    assert torch.equal(made[0, 1:], prior)
    assert torch.equal(made[1, 1:], prior)


def test_a_row_depends_on_its_image_alone_and_the_encoder_keeps_its_mode() -> None:
    encoder = DCGANEncoder(8, 1, 6, 2, generator=seeded(0)).train()
    every = encoder_starts(encoder, PICTURES, 2, latent=3)
    assert every.shape == (300, 2, 3)
    assert encoder.training
    torch.testing.assert_close(encoder_starts(encoder, PICTURES[290:291], 2, latent=3), every[290:291])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_seed": 0}, "n_seed must be"),
        ({"others": "copies"}, "others must be one of 'jitter', 'prior'"),
        ({"latent": 0}, "latent must be"),
        ({"jitter": -1.0}, "jitter must be"),
    ],
)
def test_a_bad_argument_of_the_starts_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder_starts(ENCODER, PICTURES[:2], **settings)  # type: ignore[arg-type]
