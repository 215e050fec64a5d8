"""The VAE: its bound by hand, a scale that learns, and samples that come nearer to the data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from adgan_fast.data import load_digits
from adgan_fast.training import VAEConfig, train
from adgan_fast.training.vae import VAE, kl
from tests.support.objectives import discrepancy, seeded

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = VAEConfig(latent=8, width=8, batch_size=32, steps=250)


def test_the_divergence_is_that_of_two_gaussians() -> None:
    mean, log_variance = torch.randn(2, 5, 3, generator=seeded(0))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl(mean, log_variance), expected)
    assert kl(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


def test_the_loss_is_the_bound_of_one_draw(images: np.ndarray) -> None:
    run = VAE(images, VAEConfig(latent=4, width=2, batch_size=20, scale=0.4))
    encoder, generator = (run.models[name] for name in ("encoder", "generator"))
    real = torch.from_numpy(images).float() / 127.5 - 1
    z = np.random.Generator(np.random.Philox(3)).standard_normal((20, 4), dtype=np.float32)
    with torch.no_grad():
        order = VAE(images, run.config).batch(np.random.default_rng(0))
        assert torch.equal(order.flatten(1).sum(1).sort().values, real.flatten(1).sum(1).sort().values)
        mean, log_variance = encoder(order).chunk(2, 1)
        made = generator(mean + (log_variance / 2).exp() * torch.from_numpy(z))
        expected = -Normal(made, 0.4).log_prob(order).flatten(1).sum(1).mean() + kl(mean, log_variance).mean()
    losses = run.update(np.random.Generator(np.random.Philox(3)))
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((losses["reconstruction"] + losses["kl"]).item(), rel=1e-6)


def test_a_learned_scale_goes_where_the_error_is_and_a_fixed_one_stays() -> None:
    zeros = load_digits().of_class(0).images
    result = train(zeros, dataclasses.replace(CONFIG, steps=500))
    images = torch.from_numpy(zeros)
    with torch.no_grad():
        mean, log_variance = result.encoder(images).chunk(2, 1)
        z = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=seeded(0))
        error = (result.generator(z) - images).square().mean().sqrt().item()
        scale = result.likelihood.variance.sqrt().item()
    assert scale == pytest.approx(error, rel=0.35)
    assert scale < 0.35  # it began at 0.5
    fixed = train(zeros, dataclasses.replace(CONFIG, steps=20, scale=0.3))
    assert fixed.likelihood.variance.sqrt().item() == pytest.approx(0.3, rel=1e-6)


def test_training_raises_the_bound_and_brings_the_samples_nearer_to_the_data() -> None:
    zeros = load_digits().of_class(0).images
    untrained, trained = (train(zeros, dataclasses.replace(CONFIG, steps=steps)) for steps in (0, 250))
    assert trained.history["loss"][:5].mean() > 40 > 20 > trained.history["loss"][-5:].mean()
    # MMD² over two seeds: 1.02 untrained, about 0.2 trained. Halves of the data lie 0.008 apart.
    assert discrepancy(trained.generator, 8, zeros) < 0.3 < 0.95 < discrepancy(untrained.generator, 8, zeros)
