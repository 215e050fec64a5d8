"""Detectors on a trained GAN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import SearchConfig
from adgan_fast.baselines import ADGAN, AnoGAN, CriticScore, NotFittedError, PriorLikelihood, prior_scores
from adgan_fast.baselines.gan import FeatureLoss
from adgan_fast.models import DCGANCritic, DCGANGenerator
from adgan_fast.training import train
from tests.support.one_class import FIT, TEST, auc
from tests.support.wgan import SMALL, TRAINING

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = SearchConfig(n_seed=2, steps=2)


@pytest.fixture(scope="module")
def trained():
    torch.set_num_threads(1)
    return train(FIT, TRAINING)


@pytest.fixture
def fresh():
    """A generator and a critic in training mode, with running statistics of their own."""
    random = torch.Generator().manual_seed(0)
    generator = DCGANGenerator(8, 1, 6, 4, generator=random)
    critic = DCGANCritic(8, 1, 4, generator=random)
    for _ in range(3):
        critic(torch.randn(16, 1, 8, 8, generator=random))
        generator(torch.randn(16, 6, generator=random))
    return generator, critic


def test_adgan_finds_the_other_digits(trained):
    assert auc(ADGAN(trained.generator, config=SearchConfig(n_seed=4))) > 0.9


@pytest.mark.parametrize("how", [{"n_seed": 1, "steps": 60}, {"n_seed": 8, "steps": 5, "lr_z": 0.25}])
def test_anogan_finds_the_other_digits(trained, how):
    assert auc(AnoGAN(trained.generator, trained.critic, **how), every=4) > 0.85


def test_the_critic_s_score_is_high_for_what_it_takes_for_generated(trained):
    with torch.no_grad():
        made = trained.generator(torch.randn(110, 16, generator=torch.Generator().manual_seed(0)))
    detector = CriticScore(trained.critic)
    assert detector.decision_function(made).mean() > detector.decision_function(FIT).mean()


def test_adgan_is_the_score(fresh):
    generator, _ = fresh
    found = ADGAN(generator, config=FEW).decision_function(TEST[:3])
    np.testing.assert_array_equal(found, adgan_fast.score(generator, TEST[:3], config=FEW).astype(np.float64))


def test_adgan_begins_where_an_encoder_says(fresh):
    generator, _ = fresh

    def encoder(images):
        return images.flatten(1)[:, :12].reshape(-1, 2, 6)

    found = ADGAN(generator, config=FEW, starts=encoder).decision_function(TEST[:3])
    starts = encoder(torch.from_numpy(TEST[:3]))
    np.testing.assert_allclose(found, adgan_fast.score(generator, TEST[:3], config=FEW, starts=starts), rtol=1e-6)
    assert not np.allclose(found, ADGAN(generator, config=FEW).decision_function(TEST[:3]))


def test_the_prior_likelihood_is_that_of_the_final_latents(fresh):
    generator, _ = fresh
    result = adgan_fast.search(generator, TEST[:3], config=FEW)
    normal = torch.distributions.Normal(0, 1).log_prob(result.latents.double()).sum(2)  # (N, S)
    constant = 6 / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(prior_scores(result), -normal.mean(1) - constant, rtol=1e-9)
    np.testing.assert_allclose(prior_scores(result, "min"), -normal.amax(1) - constant, rtol=1e-9)
    for over in ("mean", "min"):
        detector = PriorLikelihood(generator, config=FEW, over=over)
        np.testing.assert_array_equal(detector.decision_function(TEST[:3]), prior_scores(result, over))


def test_a_prior_under_which_all_latents_are_alike_is_refused(fresh):
    result = adgan_fast.search(fresh[0], TEST[:2], config=FEW, prior="uniform")
    with pytest.raises(ValueError, match="needs the prior 'normal', this search has 'uniform'"):
        prior_scores(result)
    with pytest.raises(ValueError, match="over must be 'mean' or 'min', got 'max'"):
        prior_scores(adgan_fast.search(fresh[0], TEST[:2], config=FEW), "max")


def by_hand(generator, critic, images, weight, layers):
    """(1 − λ)|x − g(z)| + λ|f(x) − f(g(z))| at the first start, with the modules in eval mode."""
    generator, critic = generator.eval(), critic.eval()
    z = adgan_fast.core.starts.draw(0, None, 1, (6,), "normal").float().expand(len(images), 6)
    with torch.no_grad():
        x, made = torch.from_numpy(images), generator(z)
        f = [critic.layers[:layers](each) for each in (x, made)]
    return (1 - weight) * (x - made).abs().sum((1, 2, 3)) + weight * (f[0] - f[1]).abs().flatten(1).sum(1)


@pytest.mark.parametrize(("weight", "layer"), [(0.1, -1), (0.7, 2)])
def test_anogan_s_score_is_the_formula(fresh, weight, layer):
    generator, critic = fresh
    found = AnoGAN(generator, critic, steps=0, weight=weight, layer=layer).decision_function(TEST[:3])
    assert generator.training and critic.training
    layers = layer % len(critic.layers)
    np.testing.assert_allclose(found, by_hand(generator, critic, TEST[:3], weight, layers), rtol=1e-5)


def test_anogan_without_features_is_a_search_of_latents_by_absolute_differences(fresh):
    generator, critic = fresh
    found = AnoGAN(generator, critic, steps=5, n_seed=3, weight=0, lr_z=0.1).decision_function(TEST[:3])
    plain = adgan_fast.score(generator, TEST[:3], n_seed=3, steps=5, lr_z=0.1, loss="l1", weights="frozen")
    np.testing.assert_allclose(found, plain, rtol=1e-5)


@pytest.mark.parametrize("engine", ["reference", "eager", "grouped", "native"])
def test_every_engine_searches_by_the_critic_s_features(fresh, engine):
    if engine == "native" and adgan_fast.ops.load_extension():
        pytest.skip("the C++ extension is not built")
    settings = {"steps": 4, "n_seed": 2, "weight": 0.5}
    wanted = AnoGAN(*fresh, **settings).decision_function(TEST[:2])
    found = AnoGAN(*fresh, **settings, config=SearchConfig(engine=engine)).decision_function(TEST[:2])
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_networks_that_are_given_are_not_touched(fresh):
    before = [{name: value.clone() for name, value in each.state_dict().items()} for each in fresh]
    AnoGAN(*fresh, steps=2).fit(FIT).decision_function(TEST[:2])
    CriticScore(fresh[1]).fit(FIT).decision_function(TEST[:2])
    for module, kept in zip(fresh, before, strict=True):
        assert module.training and all(p.requires_grad and p.grad is None for p in module.parameters())
        assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(ADGAN, {"config": FEW}), (AnoGAN, {"steps": 3}), (CriticScore, {}), (PriorLikelihood, {"config": FEW})],
)
def test_fit_trains_what_is_not_given_and_goes_on_from_a_run(kind, settings, tmp_path):
    detector = kind(training=SMALL, out=tmp_path, **settings)
    with pytest.raises(NotFittedError, match=rf"{kind.__name__} has no .*: give them, or call fit first"):
        detector.decision_function(TEST[:2])
    scores = detector.fit(FIT).decision_function(TEST[:2])
    wanted = train(FIT, SMALL)
    networks = [getattr(wanted, name) for name in kind.NEEDS]
    np.testing.assert_array_equal(kind(*networks, **settings).decision_function(TEST[:2]), scores)
    again = kind(training=SMALL, out=tmp_path).fit(FIT)  # is there already
    resumed = getattr(again, f"{kind.NEEDS[0]}_").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in networks[0].state_dict().items())


def test_what_cannot_be_a_detector_is_refused(fresh):
    generator, critic = fresh
    with pytest.raises(ValueError, match="AnoGAN needs all of generator, critic or none, got generator alone"):
        AnoGAN(generator)
    with pytest.raises(ValueError, match=r"weight must be a number from 0 to 1, got 1\.5"):
        AnoGAN(generator, critic, weight=1.5)
    with pytest.raises(ValueError, match="Linear has none"):
        AnoGAN(generator, nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"critic.layers\[:0\]"):
        FeatureLoss(critic, layer=0)


def test_images_that_the_networks_do_not_take_are_refused(fresh):
    wrong = np.zeros((2, 1, 16, 16), np.float32)
    for detector in (ADGAN(fresh[0], config=FEW), AnoGAN(*fresh, steps=1), CriticScore(fresh[1])):
        with pytest.raises(ValueError, match=r"16, 16"):
            detector.decision_function(wrong)
        with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\), got \(2, 1, 16, 16\)"):
            detector.fit(FIT).decision_function(wrong)
