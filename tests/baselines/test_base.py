"""What all detectors have in common: the images they take, and what they refuse."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from adgan_fast.baselines import GMM, KDE, OCSVM, PCA, Baseline, IForest, NotFittedError
from tests.support.one_class import FIT, TEST


class Brightness(Baseline):
    """A detector whose scores are easily known: the mean of the pixels."""

    def _fit(self, images):
        self.seen = images

    def _scores(self, images):
        return images.float().mean((1, 2, 3)).numpy()


class Lost(Brightness):
    def _scores(self, images):
        return np.where(np.arange(len(images)) == 1, np.inf, 0.0)


def test_scores_are_float64_one_an_image():
    scores = Brightness().fit(FIT).decision_function(TEST)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, TEST.mean((1, 2, 3)), rtol=1e-5)
    assert Brightness().fit(FIT).decision_function(TEST[:0]).shape == (0,)


def test_fit_returns_the_detector_and_gray_images_need_no_channel():
    detector = Brightness()
    assert detector.fit(torch.from_numpy(FIT[:, 0])) is detector
    assert detector.image_shape_ == (1, 8, 8) and detector.seen.shape == FIT.shape
    np.testing.assert_array_equal(detector.decision_function(TEST[:, 0]), detector.decision_function(TEST))


def test_before_fit_there_are_no_scores():
    with pytest.raises(NotFittedError, match="Brightness has seen no images: call fit first"):
        Brightness().decision_function(TEST)


def test_another_shape_than_was_fitted_is_refused_with_both():
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\), got \(3, 3, 8, 8\)"):
        Brightness().fit(FIT).decision_function(np.zeros((3, 3, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("images", "error", "said"),
    [
        (FIT[:0], ValueError, r"at least one image to fit, got shape \(0, 1, 8, 8\)"),
        (FIT * 2, ValueError, r"must lie in \[-1, 1\]"),
        (np.where(np.arange(8) == 2, np.nan, FIT), ValueError, "110 of 110 images hold NaN or Inf"),
        (FIT[0, 0], ValueError, "must have shape"),
        (FIT.tolist(), TypeError, "a tensor or an ndarray, got list"),
        (FIT.astype(np.int32), TypeError, "int32"),
    ],
)
def test_what_cannot_be_fitted_is_named(images, error, said):
    with pytest.raises(error, match=said):
        Brightness().fit(images)


def test_an_image_with_nan_scores_nan_with_a_warning_and_harms_no_other():
    spoilt = TEST[:4].copy()
    spoilt[1, 0, 3, 3] = np.nan
    detector = KDE(PCA(5), bandwidths=(1.0,)).fit(FIT)
    with pytest.warns(RuntimeWarning, match="1 of 4 images hold NaN or Inf"):
        scores = detector.decision_function(spoilt)
    assert np.isnan(scores[1]) and np.isnan(spoilt[1, 0, 3, 3])
    np.testing.assert_allclose(scores[[0, 2, 3]], detector.decision_function(TEST[[0, 2, 3]]), rtol=1e-12)


def test_a_sound_image_without_a_finite_score_is_an_error():
    with pytest.raises(ValueError, match="Lost: the scores of 1 of 5 images are not finite"):
        Lost().fit(FIT).decision_function(TEST[:5])


@pytest.mark.parametrize("make", [KDE, OCSVM, IForest, GMM])
def test_the_package_without_scikit_learn_says_what_to_install(make, monkeypatch):
    for module in ("neighbors", "metrics", "ensemble", "mixture", "svm"):
        monkeypatch.setitem(sys.modules, f"sklearn.{module}", None)
    with pytest.raises(ImportError, match=r"pip install 'adgan-fast\[baselines\]'"):
        make().fit(FIT)
