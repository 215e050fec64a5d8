"""The detectors on scikit-learn: that they find the other digits, and how their settings are chosen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.model_selection import KFold

from adgan_fast.baselines import DBN, GMM, KDE, OCSVM, PCA, IForest, Pixels
from adgan_fast.baselines.classical import tuned_gamma
from tests.support.one_class import FIT, TEST, auc

DETECTORS = {
    "KDE": (lambda features: KDE(features), 0.95),
    "OCSVM": (lambda features: OCSVM(features), 0.93),
    "IForest": (lambda features: IForest(features), 0.88),
    "GMM": (lambda features: GMM(features, components=(2, 3, 4)), 0.85),
}


def squared(a, b):
    return np.square(a[:, None] - b[None]).sum(2)


def log_density(rows, at, bandwidth):
    """By the formula of a Gaussian kernel density estimate."""
    n, d = rows.shape
    return (
        logsumexp(-squared(at, rows) / (2 * bandwidth**2), axis=1)
        - np.log(n)
        - d / 2 * np.log(2 * np.pi * bandwidth**2)
    )


@pytest.mark.parametrize("features", [Pixels(), PCA(20)], ids=["pixels", "PCA"])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_finds_the_other_digits(name, features):
    make, least = DETECTORS[name]
    assert auc(make(features).fit(FIT)) > least


def test_a_deep_belief_network_finds_the_other_digits():
    assert auc(DBN(sizes=(64,)).fit(FIT)) > 0.75


@pytest.mark.parametrize("name", [*DETECTORS, "DBN"])
def test_a_score_does_not_depend_on_the_images_beside_it_and_a_seed_repeats(name):
    make = DETECTORS[name][0] if name in DETECTORS else lambda features: DBN(sizes=(8,), n_iter=2)
    detector, again = make(PCA(8)).fit(FIT), make(PCA(8)).fit(FIT)
    scores = detector.decision_function(TEST)
    np.testing.assert_allclose(detector.decision_function(TEST[5:9]), scores[5:9], rtol=1e-9)
    np.testing.assert_array_equal(again.decision_function(TEST), scores)


def test_images_of_whole_numbers_are_scaled_as_everywhere():
    whole = np.round((FIT + 1) * 127.5).astype(np.uint8)
    a, b = KDE(bandwidths=(1.0,)).fit(whole), KDE(bandwidths=(1.0,)).fit(whole.astype(np.float32) / 127.5 - 1)
    np.testing.assert_allclose(a.decision_function(TEST), b.decision_function(TEST), rtol=1e-5)


def test_the_density_is_the_formula_far_from_the_data_too():
    rows = np.random.default_rng(0).normal(0, 4, (300, 40))
    at = np.random.default_rng(1).normal(0, 5, (50, 40))
    detector = KDE(bandwidths=(1.0,))
    detector._learn(rows)
    np.testing.assert_allclose(detector._judge(at), -log_density(rows, at, 1.0), rtol=1e-10)


def test_the_bandwidth_is_the_one_of_highest_cross_validated_likelihood():
    rows = np.random.default_rng(0).normal(0, 3, (200, 3))
    detector = KDE(bandwidths=(0.25, 0.5, 1.0, 2.0, 4.0))
    detector._learn(rows)
    likelihoods = [
        np.sum([log_density(rows[a], rows[b], h).sum() for a, b in KFold(10, shuffle=True, random_state=0).split(rows)])
        for h in detector.bandwidths
    ]
    assert detector.bandwidth_ == detector.bandwidths[int(np.argmax(likelihoods))] == 2.0


def test_the_paper_s_bandwidths_and_numbers_of_components():
    np.testing.assert_allclose(KDE().bandwidths, [2 ** (i / 2) for i in range(9)])
    assert GMM().components == tuple(range(2, 21)) and OCSVM().nu == 0.1 and KDE().folds == 10


def test_the_bandwidth_may_be_chosen_on_fewer_images():
    detector = KDE(PCA(5), subsample=40, folds=5).fit(FIT)
    assert detector.bandwidth_ in detector.bandwidths
    assert detector._model.tree_.data.shape[0] == len(FIT)  # the density has all


def test_the_number_of_components_is_that_of_the_lowest_criterion():
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(centre, 0.5, (80, 2)) for centre in ((0, 0), (6, 0), (0, 6), (6, 6))])
    detector = GMM(components=(2, 3, 4, 5, 6))
    detector._learn(rows)
    assert detector.n_components_ == 4 == min(detector.bic_, key=detector.bic_.get)
    assert list(detector.bic_) == [2, 3, 4, 5, 6]
    for patience, tried in ((1, [2, 3, 4, 5]), (None, [2, 3, 4, 5, 6, 7, 8])):
        detector = GMM(components=(2, 3, 4, 5, 6, 7, 8), patience=patience)
        detector._learn(rows)
        assert list(detector.bic_) == tried and detector.n_components_ == 4


def test_more_components_than_images_are_left_out():
    detector = GMM(PCA(2), components=(2, 50)).fit(FIT[:10])
    assert list(detector.bic_) == [2]
    with pytest.raises(ValueError, match="50 components need as many images, got 10"):
        GMM(PCA(2), components=(50,)).fit(FIT[:10])


def test_the_kernel_s_scale_is_where_its_entries_are_most_dispersed():
    rows = Pixels()(torch.from_numpy(FIT))
    gamma = tuned_gamma(rows)

    def dispersion(scale):
        entries = np.exp(-scale * squared(rows, rows))[np.triu_indices(len(rows), 1)]
        return entries.var() / entries.mean()

    assert dispersion(gamma) > max(dispersion(gamma * 1.2), dispersion(gamma / 1.2))
    assert dispersion(gamma) > max(dispersion(gamma * 20), dispersion(gamma / 20))


def test_the_kernel_s_scale_follows_that_of_the_data():
    rows = np.random.default_rng(0).normal(size=(100, 6))
    assert tuned_gamma(3 * rows) == pytest.approx(tuned_gamma(rows) / 9, rel=1e-6)
    with pytest.raises(ValueError, match="no two of 3 rows of features differ"):
        tuned_gamma(np.ones((3, 2)))


def test_a_scale_that_is_given_is_taken():
    assert OCSVM(gamma=0.125).fit(FIT).gamma_ == 0.125
