"""Curves and areas: those of scikit-learn, in bands that hold what they should."""

from __future__ import annotations

import numpy as np
import pytest

from adgan_fast import metrics

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'adgan-fast[demo]'")


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and which are anomalous."""
    random = np.random.default_rng(seed)
    anomalous = random.random(count) < 0.3
    return np.round(random.normal(size=count) + anomalous, 1), anomalous


@pytest.mark.parametrize("seed", range(5))
def test_curves_are_those_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    scores, anomalous = drawn(80, seed)
    curve = metrics.roc(scores, anomalous, resamples=0)
    false, true, _ = roc_curve(anomalous, scores, drop_intermediate=False)
    np.testing.assert_allclose([curve.x, curve.y], [false, true], atol=1e-12)
    assert curve.area.value == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)
    curve = metrics.precision_recall(scores, anomalous, resamples=0)
    precision, recall, _ = precision_recall_curve(anomalous, scores)
    np.testing.assert_allclose([curve.x, curve.y], [recall[-2::-1], precision[-2::-1]], atol=1e-12)
    assert curve.area.value == pytest.approx(average_precision_score(anomalous, scores), abs=1e-12)


@pytest.mark.parametrize("of", [metrics.roc, metrics.precision_recall])
def test_a_band_holds_the_curve_of_many_images_about_as_often_as_it_says(of) -> None:
    truth, inside = of(*drawn(50_000, 99), resamples=0), []
    for seed in range(20):
        curve = of(*drawn(200, seed), resamples=200)
        assert curve.low.shape == curve.high.shape == curve.at.shape
        assert (curve.low <= curve.high).all() and curve.area.low <= curve.area.value <= curve.area.high
        middle = slice(20, 80)
        expected = np.interp(curve.at[middle], truth.x, truth.y)
        inside.append(np.mean((curve.low[middle] <= expected) & (expected <= curve.high[middle])))
    assert 0.85 < np.mean(inside) <= 1


def test_what_no_curve_can_be_drawn_of_is_refused() -> None:
    for of in (metrics.auc, metrics.roc, metrics.precision_recall):
        with pytest.raises(ValueError, match="needs normal and anomalous"):
            of([1.0, 2.0], [True, True])
        with pytest.raises(metrics.NotFinite, match="1 of 2"):
            of([1.0, np.nan], [True, False])
