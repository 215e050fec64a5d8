"""BiGAN: each network's loss by hand, samples that come nearer to the data, an encoder that inverts the generator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from adgan_fast.data import load_digits
from adgan_fast.training import BiGANConfig, train
from adgan_fast.training.bigan import BiGAN
from tests.support.objectives import discrepancy, seeded

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_critic_tells_pairs_of_the_encoder_from_pairs_of_the_generator(images: np.ndarray) -> None:
    config = BiGANConfig(latent=4, width=2, batch_size=20)
    run, twin = BiGAN(images, config), BiGAN(images, config)
    for each in (run, twin):  # outputs far from 0, where both signs have different losses
        with torch.no_grad():
            each.critic.of_both[-1].weight.mul_(100)
    z = np.random.Generator(np.random.Philox(3)).standard_normal((20, 4), dtype=np.float32)
    losses = run.update(np.random.Generator(np.random.Philox(3)))
    with torch.no_grad():
        real, latents = twin.batch(np.random.default_rng(0)), torch.from_numpy(z)
        of_data = twin.critic(real, twin.encoder(real))
        of_made = twin.critic(twin.generator(latents), latents)
        right = binary_cross_entropy_with_logits
        expected = right(of_data, torch.ones(20)) + right(of_made, torch.zeros(20))
        # The generator's loss is taken after the critic's step.
        moved = [run.critic(real, twin.encoder.train()(real)), run.critic(twin.generator(latents), latents)]
        wanted = right(moved[0], torch.zeros(20)) + right(moved[1], torch.ones(20))
    assert losses["critic_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["generator_loss"].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_training_brings_the_samples_nearer_to_the_data() -> None:
    zeros = load_digits().of_class(0).images
    config = BiGANConfig(latent=8, width=8, batch_size=32, steps=250, lr=1e-3)
    untrained, trained = (train(zeros, dataclasses.replace(config, steps=steps)) for steps in (0, 250))
    # MMD² over two seeds: 1.02 untrained, 0.09 and 0.15 trained. Halves of the data lie 0.008 apart.
    assert discrepancy(trained.generator, 8, zeros) < 0.3 < 0.95 < discrepancy(untrained.generator, 8, zeros)


def test_the_encoder_comes_to_invert_the_generator() -> None:
    """Of images that differ in brightness alone. Of digits it takes far more steps than a test has."""
    random = np.random.default_rng(1)
    brightness = random.uniform(-0.8, 0.8, (256, 1, 1, 1))
    data = np.clip(brightness + random.normal(0, 0.05, (256, 1, 8, 8)), -1, 1).astype(np.float32)
    result = train(data, BiGANConfig(latent=1, width=8, batch_size=32, steps=250, lr=1e-3, seed=1))
    z = torch.randn(200, 1, generator=seeded(0))
    with torch.no_grad():
        code, back = result.encoder(torch.from_numpy(data)), result.encoder(result.generator(z))
        error = (result.generator(code) - torch.from_numpy(data)).square().sum((1, 2, 3)).mean().item()
    # 0.98 to 0.999 and 1.3 to 2.3 by two seeds of three (the third: 0.6 to 0.7 and 7); the data's own spread is 13.
    assert abs(np.corrcoef(code[:, 0], brightness.ravel())[0, 1]) > 0.9
    assert np.corrcoef(z[:, 0], back[:, 0])[0, 1] > 0.9
    assert error < 4
