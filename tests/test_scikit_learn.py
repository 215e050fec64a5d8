"""The detector as an estimator of scikit-learn: its own checks, pipelines, cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'adgan-fast[baselines]'")
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from adgan_fast import Detector, SearchConfig
from adgan_fast.models import DCGANGenerator
from adgan_fast.scikit_learn import ADGANDetector
from tests.support.one_class import ANOMALOUS, FIT, TEST
from tests.support.wgan import SMALL

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = SearchConfig(n_seed=2, steps=2)
ROWS = FIT[:40].reshape(40, -1)


class Row(nn.Module):
    """Images of one row of n pixels."""

    latent_shape = (3,)

    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, n, generator=torch.Generator().manual_seed(0)) / 10)

    def forward(self, z):
        return torch.tanh(z @ self.weight)[:, None, None, :]


class AnySize(ADGANDetector):
    """For checks, which bring two features or ten: a generator belongs to images of one size."""

    def _generator(self):
        return Row(self.n_features_in_)

    def _image_shape(self, n_features):
        return (1, 1, n_features)


ONE_FEWER = (
    "the checks want contamination · n of the images fitted flagged; a conformal threshold flags one fewer, since it "
    "counts the image to come as well"
)
DO_NOT_APPLY = {"check_outliers_fit_predict": ONE_FEWER, "check_outliers_train": ONE_FEWER}
CHECKED = AnySize(value_range=(-1e4, 1e4), config=SearchConfig(n_seed=1, steps=1, engine="reference", verify=False))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [pytest.param(*each, id=f"{each[1].func.__name__}-{number}")
     for number, each in enumerate(estimator_checks_generator(CHECKED))],
)  # fmt: skip
def test_it_passes_the_checks_of_scikit_learn(estimator, check):
    name = check.func.__name__
    if name in DO_NOT_APPLY:
        with pytest.raises(AssertionError, match="number of predicted outliers is not equal"):
            check(estimator)  # the last thing that these two ask
    else:
        check(estimator)


def test_of_the_images_fitted_one_fewer_is_flagged_than_the_checks_want():
    estimator = AnySize(value_range=(-9, 9), config=FEW, contamination=0.1)
    labels = estimator.fit_predict(np.random.default_rng(0).normal(size=(100, 2)))
    assert (labels == -1).sum() == 9  # (9 + 1) / 101 <= 0.1


@pytest.fixture(scope="module")
def generator():
    return DCGANGenerator(8, 1, 4, 2, generator=torch.Generator().manual_seed(0)).eval()


def test_it_is_the_detector_with_the_other_sign(generator):
    ours, theirs = Detector(generator, config=FEW).fit(FIT[:40]), ADGANDetector(generator, config=FEW).fit(ROWS)
    new = TEST[:20]
    scores = theirs.score_samples(new.reshape(20, -1))
    np.testing.assert_array_equal(scores, -ours.decision_function(new))
    assert theirs.offset_ == -ours.threshold_
    np.testing.assert_array_equal(theirs.decision_function(new.reshape(20, -1)), scores - theirs.offset_)
    np.testing.assert_array_equal(theirs.predict(new.reshape(20, -1)), 1 - 2 * ours.predict(new))


def test_it_trains_and_holds_out_as_the_detector_does():
    theirs = ADGANDetector(training=SMALL, config=FEW, held_out=0.5, random_state=3).fit(ROWS)
    ours = Detector(training=SMALL, config=FEW).fit(FIT[:40], held_out=0.5, seed=3)
    np.testing.assert_array_equal(theirs.detector_.decision_scores_, ours.decision_scores_)
    np.testing.assert_array_equal(theirs.detector_.held_out_, ours.held_out_)


def test_pixels_are_scaled_from_their_range(generator):
    wide = ADGANDetector(generator, config=FEW, value_range=(0, 16)).fit((ROWS + 1) * 8)
    plain = ADGANDetector(generator, config=FEW).fit(ROWS)
    np.testing.assert_array_equal(wide.detector_.decision_scores_, plain.detector_.decision_scores_)
    with pytest.raises(ValueError, match=r"X must lie in value_range, \[0, 16\], it spans \[0, 17\]"):
        wide.predict(np.where(np.arange(64) > 3, 17.0, 0.0)[None])


def test_rows_have_the_order_of_pixels_in_an_image():
    colour = DCGANGenerator(8, 3, 4, 2, generator=torch.Generator().manual_seed(0)).eval()
    images = np.random.default_rng(0).uniform(-1, 1, (12, 3, 8, 8)).astype(np.float32)
    theirs = ADGANDetector(colour, config=FEW, image_shape=(3, 8, 8)).fit(images.reshape(12, -1))
    np.testing.assert_array_equal(
        theirs.detector_.decision_scores_, Detector(colour, config=FEW).fit(images).decision_scores_
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_shape": (1, 8, 9)}, r"64 features, not those of image_shape=\(1, 8, 9\)"),
        ({"image_shape": (8, 8)}, "give the"),
        ({"value_range": (1, 0)}, "value_range must be two numbers, the lower first"),
        ({"value_range": 255}, "value_range must be two numbers"),
        ({"random_state": None}, "random_state must be a whole number"),
        ({"contamination": "auto"}, "contamination must be"),
        ({"adaptive": 2}, "adaptive must be a confidence between 0 and 1"),
        ({"held_out": 0.5}, "held_out= is for a training"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_fit(generator, settings, said):
    with pytest.raises(ValueError, match=said):
        ADGANDetector(generator, config=FEW, **settings).fit(ROWS)


def test_a_row_that_is_no_square_image_needs_its_shape(generator):
    with pytest.raises(ValueError, match="63 features, no square number"):
        ADGANDetector(generator, config=FEW).fit(ROWS[:, :63])


def test_before_fit_it_says_so(generator):
    with pytest.raises(NotFittedError):
        ADGANDetector(generator).predict(ROWS)


def test_nan_is_refused(generator):
    fitted = ADGANDetector(generator, config=FEW).fit(ROWS)
    with pytest.raises(ValueError, match="contains NaN"):
        fitted.predict(np.full((1, 64), np.nan))


def test_it_stands_at_the_end_of_a_pipeline(generator):
    dark = FunctionTransformer(lambda rows: rows * 2 - 1)
    pipeline = make_pipeline(dark, ADGANDetector(generator, config=FEW)).fit((ROWS + 1) / 2)
    alone = ADGANDetector(generator, config=FEW).fit(ROWS)
    np.testing.assert_array_equal(pipeline.predict((ROWS + 1) / 2), alone.predict(ROWS))


def test_cross_validation_ranks_by_its_decision_function(generator):
    images = np.concatenate([TEST[~ANOMALOUS][:20], TEST[ANOMALOUS][:20]]).reshape(40, -1)
    truth = np.repeat([1, -1], 20)
    found = cross_val_score(
        ADGANDetector(generator, config=FEW), images, truth, scoring="roc_auc", cv=StratifiedKFold(2)
    )
    assert found.shape == (2,) and np.isfinite(found).all()
    first = clone(ADGANDetector(generator, config=FEW))
    assert isinstance(first.generator, DCGANGenerator) and first.generator is not generator
