"""A setting chosen on a holdout."""

from __future__ import annotations

import numpy as np
import pytest

from adgan_fast.baselines import KDE, PCA, Holdout, NotFittedError, Selected, Shared
from tests.support.one_class import FIT, HOLDOUT, TEST, auc


def turned(detector: KDE, sign: int) -> KDE:
    """A detector whose scores are multiplied by the sign."""
    judge = detector._judge
    detector._judge = lambda rows: sign * judge(rows)
    return detector


def test_the_holdout_decides():
    make = lambda sign: turned(KDE(bandwidths=(1.0,)), sign)  # noqa: E731
    selected = Selected(make, (-1, 1)).fit(FIT, holdout=HOLDOUT)
    assert selected.chosen_ == 1 and auc(selected) > 0.95
    assert selected.aucs_[1] == pytest.approx(1 - selected.aucs_[-1]) and selected.aucs_[1] > 0.95
    other = Selected(make, (-1, 1)).fit(FIT, holdout=Holdout(HOLDOUT.images, ~HOLDOUT.anomalous))
    assert other.chosen_ == -1


def test_it_scores_as_the_detector_that_it_chose():
    shared = Shared(PCA(30))
    selected = Selected(lambda n: KDE(shared.first(n)), range(2, 31, 14)).fit(FIT, holdout=HOLDOUT)
    assert list(selected.aucs_) == [2, 16, 30]
    assert selected.aucs_[selected.chosen_] == max(selected.aucs_.values())
    alone = KDE(PCA(selected.chosen_)).fit(FIT)
    np.testing.assert_allclose(selected.decision_function(TEST), alone.decision_function(TEST), rtol=1e-6)


def test_the_first_of_equals_is_taken():
    assert Selected(lambda n: KDE(PCA(5), bandwidths=(1.0,)), (7, 3)).fit(FIT, holdout=HOLDOUT).chosen_ == 7


def test_what_cannot_choose_is_refused():
    with pytest.raises(ValueError, match=r"fit\(images, holdout=Holdout"):
        Selected(KDE, (1,)).fit(FIT)
    with pytest.raises(ValueError, match="at least one value"):
        Selected(KDE, ())
    with pytest.raises(NotFittedError):
        Selected(KDE, (1,)).decision_function(TEST)


@pytest.mark.parametrize(
    ("anomalous", "said"),
    [
        ([True], r"must be 3 booleans, one for each image, got bool \(1,\)"),
        ([0, 1, 1], "must be 3 booleans"),
        ([True, True, True], "needs normal and anomalous images, got 3 of 3 anomalous"),
        ([False, False, False], "got 0 of 3"),
    ],
)
def test_a_holdout_needs_a_label_an_image_and_both_kinds(anomalous, said):
    with pytest.raises(ValueError, match=said):
        Holdout(TEST[:3], anomalous)
