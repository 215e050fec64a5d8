"""Adaptive: when an image is settled; and a search by it, which takes the first starts of the whole one."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import Adaptive, Calibration, Detector, Scorer, SearchConfig, jobs, testing
from adgan_fast.adaptive import student
from adgan_fast.baselines import prior_scores
from adgan_fast.core.block import Block
from adgan_fast.engine.eager import Eager
from adgan_fast.engine.grouped import Grouped
from adgan_fast.jobs.drift import drift, untestable
from adgan_fast.jobs.finished import Finished
from adgan_fast.report.html import write_report
from adgan_fast.windows import Windows
from tests.support.engines import on_cpu
from tests.support.runs import Listed
from tests.support.small import small

pytestmark = pytest.mark.usefixtures("one_thread")

GENERATOR = small(nn.Tanh())
SETTINGS = {"n_seed": 12, "steps": 1, "verify": False}
OF_PAIRS = ("losses", "initial_losses", "latents")


def drawn(n: int, n_seed: int = 64, seed: int = 0) -> np.ndarray:
    """Losses with a long tail, of images that differ."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(size=(n, 1)) / 3 + rng.normal(size=(n, n_seed)) / 2)


def shown(n: int, seed: int = 0) -> torch.Tensor:
    """Images of the generator's shape."""
    return torch.rand(n, 2, 2, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def whole():
    """Of ten images, one of them not finite: the images, the search of all starts, and a threshold in their midst."""
    torch.set_num_threads(1)
    images = shown(10)
    images[4, 0, 0, 0] = torch.nan
    with pytest.warns(RuntimeWarning, match="NaN"):
        found = adgan_fast.search(GENERATOR, images, engine="native", **SETTINGS)
    return images, found, float(found.scores.nanmedian())


def until(threshold: float, **settings) -> Adaptive:
    return Adaptive(**{"threshold": threshold, "confidence": 0.6, "rounds": (2, 3, 6), **settings})


# -- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "p", "quantile"), [(1, 0.75, 1.0), (2, 0.95, 2.91999), (7, 0.995, 3.49948), (31, 0.999, 3.37490)]
)
def test_quantiles_of_student_are_those_of_tables(freedom, p, quantile):
    assert student(p, freedom) == pytest.approx(quantile, rel=2e-6)


def test_an_interval_is_as_wide_as_sampling_without_replacement_asks_for():
    losses = drawn(1)
    first = losses[:, :16]
    half = student(0.95, 15) * first.std(ddof=1) / 4 * np.sqrt(1 - 16 / 64)
    for beyond, settled in ((1.001, True), (0.999, False)):
        for side in (-1, 1):
            threshold = float(first.mean() + side * beyond * half)
            rule = Adaptive(threshold=threshold, confidence=0.95, rounds=(16,)).rule(64)
            assert bool(rule.settled(first)[0]) is settled


@pytest.mark.parametrize("side", [-1, 1])
def test_the_confidence_is_kept_by_images_at_the_threshold(side):
    """Each a hair beside a threshold of its own, on average over calibrations; conformal margins are no wider."""
    wrong = []
    for seed in range(40):
        losses, others = np.split(drawn(120, seed=seed), [60])
        rule = Adaptive(threshold=0, losses=losses, confidence=0.9).rule(64)
        for image in others:
            threshold = float(image.mean()) * (1 + side * 1e-9)
            own = dataclasses.replace(rule, adaptive=Adaptive(threshold=threshold))
            count = own.starts_used(image[None])[0]
            wrong.append((image[:count].mean() > threshold) != (side < 0))
    assert 0.06 < np.mean(wrong) < 0.12  # 6 / 61


def test_a_rank_is_settled_within_its_tolerance():
    losses, others = np.split(drawn(300), [100])
    calibration = Calibration(losses.mean(1))
    adaptive = Adaptive(calibration=calibration, losses=losses, confidence=0.9, tolerance=0.2)
    used = adaptive.rule(64).starts_used(others)
    score = np.array([row[:count].mean() for row, count in zip(others, used, strict=True)])
    off = np.abs(calibration.p_values(score) - calibration.p_values(others.mean(1)))
    assert used.mean() < 55 and np.mean(off > 0.2) <= 0.1
    of_one_side = Adaptive(threshold=0, losses=losses, confidence=0.95).rule(64)
    assert (adaptive.rule(64).low, adaptive.rule(64).high) == (of_one_side.low, of_one_side.high)
    wider = dataclasses.replace(adaptive, tolerance=1.0)
    assert set(wider.rule(64).starts_used(others)) == {8}


def test_the_score_is_on_the_side_that_was_settled():
    """Even where the first starts are worse than others, so that scores lie below every mean so far."""
    losses = drawn(460)
    losses[:, :32] *= 3
    losses, others = np.split(losses, [60])
    threshold = float(np.quantile(others.mean(1), 0.3))
    adaptive = Adaptive(threshold=threshold, losses=losses, confidence=0.9)
    used = adaptive.rule(64).starts_used(others)
    score = np.array([row[:count].mean() for row, count in zip(others, used, strict=True)])
    assert adaptive.rule(64).high == (0.0,) * 3 and np.mean(used < 64) > 0.3
    assert np.mean((score > threshold) != (others.mean(1) > threshold)) <= 0.1


def test_a_loss_that_is_lost_settles_an_image():
    losses = drawn(3)[:, :8]
    losses[0, 3], losses[1, 0] = np.nan, np.inf
    assert Adaptive(threshold=float(losses[2].mean())).rule(64).settled(losses).tolist() == [True, True, False]


def test_looks_are_rounds_below_n_seed_after_whole_tiles():
    assert Adaptive(threshold=0).rule(32).looks == (8, 16)
    assert Adaptive(threshold=0).rule(64, together=10).looks == (10, 20, 40)
    assert Adaptive(threshold=0).rule(12, together=12).looks == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either a threshold or a calibration"),
        ({"threshold": 1, "calibration": Calibration([1.0])}, "either"),
        ({"threshold": float("nan")}, "threshold must be a finite number, got nan"),
        ({"calibration": [1.0, 2.0]}, "calibration must be a Calibration, got list"),
        ({"threshold": 1, "confidence": 1}, "confidence must be a number between 0 and 1, got 1"),
        ({"threshold": 1, "tolerance": -1}, "tolerance must be a number from 0 to 1"),
        ({"threshold": 1, "rounds": ()}, "rounds must be numbers of starts"),
        ({"threshold": 1, "rounds": (1, 2)}, "rounds must be a whole number of at least 2, got 1"),
        ({"threshold": 1, "rounds": (8, 8)}, "rounds must rise"),
        ({"threshold": 1, "losses": np.ones(5)}, r"losses must be finite numbers \(n, n_seed\)"),
        ({"threshold": 1, "losses": np.ones((98, 64))}, "98 calibration images are too few.* needs 99"),
    ],
)
def test_what_is_wrong_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Adaptive(**settings)


def test_it_is_the_same_by_what_it_decides():
    losses = drawn(20)
    one, other = (Adaptive(threshold=1, losses=losses.copy(), confidence=0.9) for _ in range(2))
    assert one == other == pickle.loads(pickle.dumps(one)) and hash(one) == hash(other)
    assert one != dataclasses.replace(one, losses=losses + 1) and one != dataclasses.replace(one, threshold=2)
    assert SearchConfig(adaptive=one) == SearchConfig(adaptive=other) != SearchConfig()


# -- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["per_seed", "frozen"])
@on_cpu
def test_the_starts_used_have_the_bits_of_the_whole_search(engine, weights, whole, monkeypatch):
    for kind in (Grouped, Eager):  # small generators have all starts in one tile
        monkeypatch.setattr(kind, "default_chunk", lambda self, job: min(5, job.n_seed))
    images, _, threshold = whole
    settings = {**SETTINGS, "engine": engine, "weights": weights, "starts": "independent"}
    put, shapes = Block.put, []
    monkeypatch.setattr(Block, "put", lambda self, tile, *found: shapes.append(tile.shape) or put(self, tile, *found))
    with pytest.warns(RuntimeWarning, match="NaN"):
        want = adgan_fast.search(GENERATOR, images, **settings)
        of_whole = {*shapes}
        found = adgan_fast.search(GENERATOR, images, adaptive=until(threshold, confidence=0.95), **settings)
    used = found.starts_used.tolist()
    assert used[4] == 0 and torch.equal(found.status, want.status) and found.scores[4].isnan()
    allowed = {5, 10, 12} if engine in ("grouped", "eager") else {2, 3, 6, 12}
    assert {*used} - {0} <= allowed and len({*used}) > 2
    assert want.starts_used is None
    if engine in ("grouped", "eager"):  # where a pair's bits may depend on its tile
        assert {*shapes} == of_whole == {(1, 5), (1, 2)}
    for row in {*range(10)} - {4}:
        count = used[row]
        for name in OF_PAIRS:
            ours, theirs = getattr(found, name)[row], getattr(want, name)[row]
            assert torch.equal(ours[:count], theirs[:count]) and bool(ours[count:].isnan().all()), name
        assert found.scores[row] == want.losses[row : row + 1, :count].mean(1)[0]
        if want.losses[row].argmin() < count:
            assert torch.equal(found.reconstructions[row], want.reconstructions[row])


def test_it_is_the_same_in_any_batch_and_order_on_any_threads(whole, threads):
    images, _, threshold = whole
    images = images[[0, 1, 2, 3, 5, 6, 7, 8, 9]]
    scorer = Scorer(GENERATOR, adaptive=until(threshold), **SETTINGS)
    want = scorer.search(images)
    assert len({*want.starts_used.tolist()}) > 1
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(2)
    turned = scorer.search(images[order])
    for name in ("scores", "starts_used", "reconstructions"):
        assert torch.equal(getattr(turned, name), getattr(want, name)[order])
        parts = [getattr(scorer.search(images[a:b]), name) for a, b in pairwise((0, 1, 4, 9))]
        assert torch.equal(torch.cat(parts), getattr(want, name))
    assert torch.equal(scorer(images), want.scores)


def test_reconstructions_are_of_the_best_of_the_starts_used(whole):
    images, _, threshold = whole
    found = Scorer(GENERATOR, adaptive=until(threshold), **SETTINGS).search(images[:4])
    for row, count in enumerate(found.starts_used.tolist()):
        few = adgan_fast.search(GENERATOR, images[row : row + 1], **{**SETTINGS, "n_seed": count})
        assert torch.equal(found.reconstructions[row], few.reconstructions[0])


def test_spans_and_blocks_change_nothing(whole, monkeypatch):
    images, _, threshold = whole
    scorer = Scorer(GENERATOR, adaptive=until(threshold), starts="independent", **SETTINGS)
    want = scorer.search(images[5:])
    monkeypatch.setattr("adgan_fast.core.plan.BLOCK_IMAGES", 2)
    monkeypatch.setattr("adgan_fast.rounds.SPAN", 3)
    found = scorer.search(images[5:])
    assert all(torch.equal(getattr(found, name), getattr(want, name)) for name in ("scores", "starts_used"))


def test_the_bar_is_full_at_the_end(whole, capsys):
    images, _, threshold = whole
    Scorer(GENERATOR, adaptive=until(threshold), progress=True, **SETTINGS)(images[5:])
    assert "60/60" in capsys.readouterr().err


def test_what_cannot_go_with_it_is_refused(whole):
    images, _, threshold = whole
    with pytest.raises(ValueError, match="move one copy of the weights together"):
        SearchConfig(adaptive=until(threshold), weights="per_sample")
    with pytest.raises(ValueError, match=r"adaptive must be an adgan_fast.Adaptive, got 0.99"):
        SearchConfig(adaptive=0.99)
    with pytest.raises(ValueError, match="maps are over all starts"):
        adgan_fast.search(GENERATOR, images, maps=True, adaptive=until(threshold), **SETTINGS)
    found = adgan_fast.search(GENERATOR, images[:1], adaptive=until(threshold), **SETTINGS)
    with pytest.raises(ValueError, match="prior_scores needs the latents of all starts"):
        prior_scores(found)
    with pytest.raises(ValueError, match="losses are of 8 starts an image, this search has 12"):
        Scorer(GENERATOR, adaptive=until(threshold, losses=drawn(20, 8)), **SETTINGS)(images)


def test_a_search_that_never_looks_says_so(whole, caplog):
    images, _, threshold = whole
    with caplog.at_level(logging.WARNING, "adgan_fast"):
        Scorer(GENERATOR, adaptive=until(threshold), engine="grouped", **SETTINGS)(images[:1])
    assert "each image gets all 12 starts: engine 'grouped' computes 12 of them together" in caplog.text


def test_an_engine_is_checked_on_all_starts(whole):
    images, given = whole[0], {"engine": "native", **SETTINGS}
    of_all, found = (testing.check_engine(GENERATOR, images[:2], adaptive=a, **given) for a in (None, until(1e9)))
    assert found.errors == of_all.errors


# -- detectors and jobs -----------------------------------------------------------------------------------------------


def test_a_detector_decides_as_by_all_starts_and_keeps_how(tmp_path):
    normal, others = shown(30, seed=1).numpy(), shown(40, seed=2).numpy()
    usual = Detector(GENERATOR, contamination=0.2, config=SearchConfig(**SETTINGS)).fit(normal)
    quick = Detector(GENERATOR, contamination=0.2, adaptive=0.9, config=SearchConfig(**SETTINGS)).fit(normal)
    assert np.array_equal(quick.decision_scores_, usual.decision_scores_) and quick.threshold_ == usual.threshold_
    assert usual.until(0.9) == quick.until(0.9) and usual.until(0.9, 0.1).threshold == usual.threshold(0.1)
    assert not np.array_equal(quick.decision_function(others), usual.decision_function(others))
    assert np.mean(quick.predict(others) != usual.predict(others)) <= 0.1
    assert quick.drift(others) == usual.drift(others)  # by all starts
    quick.save(tmp_path / "d")
    again = Detector.load(tmp_path / "d")
    assert again.adaptive == 0.9 and again.until(0.9) == quick.until(0.9)
    assert np.array_equal(again.decision_function(others), quick.decision_function(others))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adaptive": 1.0}, "adaptive must be a confidence between 0 and 1"),
        ({"adaptive": 0.9, "weights": "per_sample"}, "move one copy of the weights"),
        ({"config": SearchConfig(adaptive=Adaptive(threshold=1))}, "give it the confidence alone"),
        ({"adaptive": 0.9, "windows": Windows(16)}, "not one by windows"),
        ({"adaptive": 0.99}, "30 calibration images are too few.* needs 99"),
    ],
)
def test_a_detector_says_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        Detector(GENERATOR, **settings).fit(shown(30))


def test_a_job_has_the_starts_used_and_is_another_than_one_of_all(tmp_path, whole):
    images, _, threshold = whole
    source, config = Listed([*images[:6].numpy()]), SearchConfig(adaptive=until(threshold), **SETTINGS)
    jobs.run(GENERATOR, source, tmp_path, config=config, shard=4, keep=["reconstructions"])
    rows = jobs.read(tmp_path)
    with pytest.warns(RuntimeWarning, match="NaN"):
        want = adgan_fast.search(GENERATOR, images[:6], config=config)
    used = want.starts_used.tolist()
    assert rows["starts_used"].to_pylist() == [count or None for count in used]
    for row, count in enumerate(used):
        if count:
            losses = want.losses[row, :count].double()
            assert rows["score"][row].as_py() == float(want.scores[row])
            assert rows["score_min"][row].as_py() == float(losses.min())
            assert rows["score_std"][row].as_py() == pytest.approx(float(losses.std(correction=0)))
            assert rows["initial_loss"][row].as_py() == pytest.approx(float(want.initial_losses[row, :count].mean()))
    with pytest.raises(jobs.OtherJob, match=r"config.adaptive.threshold"):
        jobs.run(GENERATOR, source, tmp_path, config=config.replace(adaptive=None), shard=4)


def test_drift_is_not_tested_by_scores_of_few_starts(tmp_path, whole):
    images, _, threshold = whole
    decision = jobs.Decision(Calibration(np.linspace(0, 2 * threshold, 30)), 0.1)
    for adaptive, why in ((None, ""), (until(threshold), "scored with adaptive=")):
        out, config = tmp_path / str(adaptive is None), SearchConfig(adaptive=adaptive, **SETTINGS)
        jobs.run(GENERATOR, Listed([*images[:4].numpy()]), out, config=config, decision=decision)
        found = Finished(out)
        assert untestable(found).startswith(why) and bool(untestable(found)) == bool(why)
        assert untestable(found, ["x"]).startswith(why or "no image with such a label")
        page = write_report(out, tmp_path / "page.html").path.read_text()
        assert ("Drift is not tested: scored with adaptive=" in page) == bool(why) != ("with 4 images against" in page)
        said = f"<dd>confidence 0.6, rounds after 2, 3, 6 starts, threshold {threshold:.6g}</dd>"
        assert (said in page) == bool(why)
        rows = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["rows"]
        assert [row[12] for row in rows] == found.texts("starts_used")
        assert ("They are rough" in page) == bool(why) != ("they lie evenly" in page)
    with pytest.raises(ValueError, match="scored with adaptive="):
        drift(found)
