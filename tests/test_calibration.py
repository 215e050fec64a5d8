"""Calibration: p-values, thresholds and drift, from the scores of normal images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adgan_fast.calibration import Calibration, images_needed

LEVELS = st.floats(1e-3, 0.999)
SCORES = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=60)  # with ties


def normal(n, key=0, shift=0.0):
    return np.random.default_rng(key).gamma(3.0, size=n) + shift


def test_a_p_value_counts_the_calibration_scores_that_are_at_least_as_high():
    calibration = Calibration(np.array([3.0, 1.0, 2.0, 2.0]))
    found = calibration.p_values([0.0, 2.0, 2.5, 3.0, 9.0, np.inf, np.nan])
    np.testing.assert_array_equal(found, [1.0, 0.8, 0.4, 0.4, 0.2, 0.2, np.nan])


@given(SCORES, SCORES, LEVELS)
def test_beyond_the_threshold_are_the_scores_whose_p_value_is_at_most_alpha(known, scores, alpha):
    calibration = Calibration(np.array(known))
    if 1 / (len(known) + 1) > alpha:
        with pytest.raises(ValueError, match="too few"):
            calibration.threshold(alpha)
    else:
        flagged = np.array(scores) > calibration.threshold(alpha)
        np.testing.assert_array_equal(flagged, calibration.p_values(scores) <= alpha)


@pytest.mark.parametrize("n", [19, 99, 999])
def test_thresholds_and_p_values_agree_at_levels_that_are_fractions_of_n(n):
    calibration = Calibration(np.arange(float(n)))
    scores = np.arange(-1.0, n + 1)
    for k in range(1, n + 1):
        flagged = scores > calibration.threshold(k / (n + 1))
        assert np.array_equal(flagged, calibration.p_values(scores) <= k / (n + 1)) and flagged.sum() == k


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
@pytest.mark.parametrize("tied", [False, True])
def test_the_rate_of_false_alarms_is_at_most_alpha(alpha, tied):
    """Of 400 normal scores each, over 500 calibrations of 199."""
    random = np.random.default_rng(1)
    rates = []
    for _ in range(500):
        known, new = random.gamma(3.0, size=199), random.gamma(3.0, size=400)
        if tied:
            known, new = known.round(1), new.round(1)
        rates.append(float(np.mean(new > Calibration(known).threshold(alpha))))
    error = np.std(rates) / np.sqrt(len(rates))
    assert np.mean(rates) <= alpha + 3 * error
    if not tied:  # and not far below: the level is used up to one rank, 1 / 200
        assert np.mean(rates) >= alpha - 1 / 200 - 3 * error


def test_a_quantile_instead_has_more_false_alarms():
    """What the test above would see."""
    random = np.random.default_rng(1)
    alarms = [np.mean(random.gamma(3.0, size=400) > np.quantile(random.gamma(3.0, size=30), 0.95)) for _ in range(500)]
    assert np.mean(alarms) > 0.05 + 3 * np.std(alarms) / np.sqrt(500)


def test_the_rates_of_single_calibrations_lie_between_the_two_that_are_told():
    random = np.random.default_rng(2)
    new = random.gamma(3.0, size=20_000)
    inside = []
    for _ in range(300):
        calibration = Calibration(random.gamma(3.0, size=199))
        low, high = calibration.false_alarms(0.05, 0.9)
        inside.append(low < np.mean(new > calibration.threshold(0.05)) < high)
    assert 0.84 < np.mean(inside) < 0.95
    with pytest.raises(ValueError, match="confidence must be a number between 0 and 1, got 1"):
        calibration.false_alarms(0.05, 1)


@pytest.mark.parametrize(("alpha", "n"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999), (0.3, 3), (0.9, 1)])
def test_how_many_images_a_level_needs(alpha, n):
    assert images_needed(alpha) == n
    Calibration(np.arange(float(n))).threshold(alpha)
    if n > 1:
        with pytest.raises(ValueError, match=f"{n - 1} calibration images are too few .* needs {n} at least"):
            Calibration(np.arange(n - 1.0)).threshold(alpha)


@given(LEVELS)
def test_the_images_needed_are_enough_and_one_less_is_not(alpha):
    n = images_needed(alpha)
    assert 1 / (n + 1) <= alpha and (n == 1 or 1 / n > alpha)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.5, float("nan"), "auto", True, None])
def test_a_level_that_is_none_is_refused(alpha):
    for ask in (Calibration(normal(200)).threshold, images_needed):
        with pytest.raises(ValueError, match="alpha must be a number between 0 and 1"):
            ask(alpha)


@pytest.mark.parametrize(("scores", "said"), [([], "got none"), ([1, np.nan, np.inf], "2 of 3 are NaN or Inf")])
def test_scores_that_are_missing_or_not_finite_are_refused(scores, said):
    with pytest.raises(ValueError, match=f"calibration must be one or more finite scores, {said}"):
        Calibration(scores)
    with pytest.raises(ValueError, match=f"scores of today must be one or more finite scores, {said}"):
        Calibration([1.0]).drift(scores)


def test_a_calibration_keeps_nothing_of_the_caller_s_array():
    given_scores = np.array([2.0, 1.0])
    calibration = Calibration(given_scores)
    given_scores[:] = 9
    np.testing.assert_array_equal(calibration.scores, [1.0, 2.0])
    with pytest.raises(ValueError, match="read-only"):
        calibration.scores[0] = 5


def test_drift_is_seen_where_there_is_one():
    calibration = Calibration(normal(300))
    moved = calibration.drift(normal(100, 1, shift=1.0))
    assert moved.p_value == 1e-3 and moved.above > 0.6 and moved.n == 100
    wider = calibration.drift(3 + 3 * (normal(100, 2) - 3))
    assert wider.p_value < 0.01


def test_drift_is_rarely_seen_where_there_is_none():
    """Over 200 days without any, with scores that are tied: a share of at most 5 % has a p-value of at most 5 %."""
    random = np.random.default_rng(3)
    found = [
        Calibration(random.gamma(3.0, size=60).round(1)).drift(random.gamma(3.0, size=30).round(1)).p_value
        for _ in range(200)
    ]
    share = np.mean(np.array(found) <= 0.05)
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert share > 0  # it can be


def test_the_distance_is_kolmogorov_s_and_above_is_mann_whitney_s():
    from scipy.stats import ks_2samp, mannwhitneyu

    known, today = normal(80).round(1), normal(50, 1, 0.3).round(1)
    drift = Calibration(known).drift(today)
    theirs = ks_2samp(known, today, method="exact")
    assert drift.distance == pytest.approx(theirs.statistic)
    assert drift.above == pytest.approx(mannwhitneyu(today, known).statistic / (80 * 50))
    continuous = Calibration(normal(80)).drift(normal(50, 1, 0.3))
    exact = ks_2samp(normal(80), normal(50, 1, 0.3), method="exact").pvalue
    assert continuous.p_value == pytest.approx(exact, abs=3 * np.sqrt(exact * (1 - exact) / 999) + 1e-3)


def test_drift_is_the_same_every_time_and_in_any_order():
    calibration, today = Calibration(normal(50)), normal(40, 1)
    assert calibration.drift(today) == calibration.drift(today[::-1])


def test_a_saved_calibration_has_the_same_bits(tmp_path):
    calibration = Calibration(normal(50), {"generator": "a", "n_seed": 64})
    loaded = Calibration.load(calibration.save(tmp_path / "calibration.json"))
    np.testing.assert_array_equal(loaded.scores, calibration.scores)
    assert loaded.about == calibration.about and loaded.threshold(0.05) == calibration.threshold(0.05)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda head: "{", "not JSON"),
        (lambda head: "[]", "not a calibration"),
        (lambda head: json.dumps(head | {"format": "other"}), "not a calibration"),
        (lambda head: json.dumps(head | {"version": 2}), "format version 2"),
        (lambda head: json.dumps(head | {"scores": "1"}), "missing or malformed"),
        (lambda head: json.dumps(head | {"scores": [1, True]}), "missing or malformed"),
        (lambda head: json.dumps(head | {"about": None}), "missing or malformed"),
        (lambda head: json.dumps(head | {"scores": []}), "got none"),
        (lambda head: json.dumps(head | {"scores": [float("nan")]}), "NaN or Inf"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, change, said):
    path = Calibration(normal(3)).save(tmp_path / "calibration.json")
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(ValueError, match=rf"calibration\.json: .*{said}"):
        Calibration.load(path)
