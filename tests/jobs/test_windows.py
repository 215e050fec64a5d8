"""Jobs by windows: images of any size, one row each, what a detector says of them, and memory that does not grow."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from adgan_fast import Adaptive, Detector, Scorer, SearchConfig, jobs, windows
from adgan_fast.calibration import Calibration
from adgan_fast.jobs import prepare
from adgan_fast.jobs.finished import Finished
from adgan_fast.jobs.manifest import manifest_of
from adgan_fast.jobs.sources import Held, open_source
from adgan_fast.jobs.windowed import WindowBatch
from adgan_fast.window_calibration import image_scores, split
from adgan_fast.windows import Windows, WindowScorer
from tests.support import reported
from tests.support.pictures import random_bytes, write_picture
from tests.support.runs import Listed

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SearchConfig(n_seed=2, steps=1)
SIDES = [(8, 8), (20, 31), (24, 9), (7, 30), (13, 13)]
HOW = Windows(8, 4)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes; the fourth is too small for a window."""
    folder = tmp_path_factory.mktemp("sizes")
    for index, sides in enumerate(SIDES):
        write_picture(folder / f"{index}.png", random_bytes(1, 1, *sides)[0, 0])
    return folder


@pytest.fixture(scope="module")
def job(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("job")
    found = jobs.run(
        reported.generator(), open_source(images), out, config=CONFIG, windows=HOW, keep=["windows"], shard=2
    )
    assert found.counts == {"ok": 4, "unreadable": 1} and found.parts == 3
    return out


def test_a_row_is_what_the_library_says_of_the_image(job: Path) -> None:
    found, scorer = Finished(job), WindowScorer(Scorer(reported.generator(), config=CONFIG), 8, 4)
    rows = [0, 1, 2, 4]
    assert found.windows == HOW and np.isnan(found.numbers("score")[3])
    assert found.texts("error")[3] == "it has 7 by 30 pixels, a window 8 by 8"
    for row, kept in zip(rows, found.windows_of(rows), strict=True):
        of = scorer(found.images([row])[0])
        assert np.array_equal(kept["score"], of.scores.astype(np.float32))
        assert np.array_equal(np.stack([kept["row"], kept["column"]], 1), of.corners)
        assert found.numbers("n_windows")[row] == len(of.scores)
        assert found.numbers("score")[row] == np.float32(windows.image_scores([of])[0])
        assert found.numbers("score_min")[row] == of.scores.min()
    assert len(next(found.windows_of([3]))) == 0


def test_it_goes_on_and_never_mixes_windows(job: Path, images: Path, tmp_path: Path) -> None:
    run = {"config": CONFIG, "windows": HOW, "keep": ["windows"], "shard": 2}
    whole = jobs.read(job)
    part = job / "part-00001.parquet"
    part.unlink()
    again = jobs.run(reported.generator(), open_source(images), job, **run)
    assert again.resumed == 2 and again.images == 2 and jobs.read(job).equals(whole)
    for other in (Windows(8, 2), Windows(8, 4, standardize=True), Windows(8, 4, quantile=0.5), None):
        with pytest.raises((jobs.OtherJob, ValueError), match=r"windows|is for a job by windows"):
            jobs.run(reported.generator(), open_source(images), job, **(run | {"windows": other}))


def test_a_part_is_as_large_as_the_time_of_an_image_that_is_searched_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_bytes(1, 1, 20, 31)[0]
    source = Listed([image[:, :7], np.full((1, 9, 9), np.nan, np.float32), image, image])
    monkeypatch.setattr(prepare, "seconds_of", lambda score, given: prepare.PART_SECONDS / 2 if given is image else 0.0)
    scorer = Scorer(reported.generator(), config=CONFIG)
    found = prepare.prepared(scorer, source, manifest_of(source), (), None, HOW)
    assert found.description["shard"] == 2


def test_an_image_is_searched_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    image = random_bytes(1, 1, 40, 50)[0]
    known = Calibration(np.arange(20, 60, 0.5))
    score = WindowBatch(Scorer(reported.generator(), config=CONFIG), (1, 40, 50), 1, ("windows",), HOW, known)
    whole = score.rows([image])
    monkeypatch.setattr(windows, "BLOCK", 7)
    seen, real = [], Scorer.part

    def part(self: Scorer, given: np.ndarray, wanted: list[str], *more: object) -> object:
        seen.append((len(given), set(wanted)))
        return real(self, given, wanted, *more)

    monkeypatch.setattr(Scorer, "part", part)
    found = score.rows([image])
    assert max(count for count, _ in seen) == 7 and sum(count for count, _ in seen) == 9 * 12
    assert all(names == {"scores", "initial_losses"} for _, names in seen)  # no latents, no reconstructions
    assert np.array_equal(found["score"], whole["score"])
    assert np.array_equal(found["windows"][0], whole["windows"][0])
    elsewhere = pickle.loads(pickle.dumps(score.on("cpu")))
    assert np.array_equal(elsewhere.rows([image])["score"], whole["score"])


def test_images_that_are_not_finite_or_of_other_channels_cost_their_own_row() -> None:
    score = WindowBatch(Scorer(reported.generator(), config=CONFIG), (1, 9, 9), 4, (), Windows(8, standardize=True))
    good = np.random.default_rng(0).uniform(-1, 1, (1, 9, 12)).astype(np.float32)
    lost = good.copy()
    lost[0, 3, 3] = np.nan
    found = score.rows([good, lost, np.concatenate([good] * 3), 3 * good, jobs.Unreadable("gone")])
    assert found["status"].tolist() == ["ok", "not_finite", *["unreadable"] * 3]
    assert "3 channels" in found["error"][2] and "[-1, 1]" in found["error"][3] and found["error"][4] == "gone"
    assert np.isnan(found["score"]).tolist() == [False, True, True, True, True]
    score.scorer.config = CONFIG.replace(strict=True)
    with pytest.raises(ValueError, match="NaN"):
        score.rows([lost])


def test_what_has_no_meaning_by_windows_is_refused(images: Path, tmp_path: Path) -> None:
    for wrong, message in (
        ({"keep": ["reconstructions"]}, "of whole images"),
        ({"starts": "independent"}, "place"),
        ({"adaptive": Adaptive(threshold=1.0)}, "not one by windows"),
        ({"starts": torch.zeros(1, 2, 6)}, "place"),  # for as many images as the first one has windows
    ):
        keep, config = wrong.get("keep", []), CONFIG.replace(**{k: v for k, v in wrong.items() if k != "keep"})
        with pytest.raises(ValueError, match=message):
            jobs.run(reported.generator(), open_source(images), tmp_path, config=config, windows=HOW, keep=keep)
    decision = jobs.Decision(Calibration(np.arange(20.0)), 0.1, Calibration(np.arange(20.0)))
    with pytest.raises(ValueError, match="of images by windows, and these are searched whole"):
        source = Held(random_bytes(2, 1, 8, 8), "held")
        jobs.run(reported.generator(), source, tmp_path / "whole", config=CONFIG, decision=decision)
    with pytest.raises(ValueError, match=r"holds no windows: .*--keep windows"):
        plain = tmp_path / "plain"
        jobs.run(reported.generator(), open_source(images), plain, config=CONFIG, windows=HOW)
        next(Finished(plain).windows_of([0]))


def test_a_detector_by_windows_says_the_same_as_its_job(images: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    normal = [random.integers(0, 256, (1, 8 + n % 5, 12), np.uint8) for n in range(20)]
    made = Detector(reported.generator(), windows=HOW, config=CONFIG, contamination=0.2).fit(iter(normal))
    assert len(made.decision_scores_) == 10 and made.windows_ is not None
    assert len(made.windows_) == sum(
        len(windows.corners(*normal[n].shape[1:], 8, 4)) for n in set(range(20)) - set(made.held_out_)
    )
    made.save(tmp_path / "detector")
    again = Detector.load(tmp_path / "detector")
    assert again.windows == HOW and again.threshold_ == made.threshold_
    decision = jobs.Decision(again.calibration_, 0.2, again.windows_)
    jobs.run(again.generator_, open_source(images), tmp_path / "job", config=CONFIG, windows=HOW, decision=decision)
    found = Finished(tmp_path / "job")
    given = [image for image in found.images([0, 1, 2, 4]) if image is not None]
    assert np.array_equal(made.decision_function(given), found.numbers("score")[[0, 1, 2, 4]])
    assert np.array_equal(again.p_values(given), found.numbers("p_value")[[0, 1, 2, 4]])
    assert np.array_equal(again.predict(given) == 1, np.array(found.texts("anomalous"), object)[[0, 1, 2, 4]])
    with pytest.raises(ValueError, match=r"of 6 images half give their windows, and half calibrate: 3 calibration"):
        Detector(reported.generator(), windows=HOW, config=CONFIG, contamination=0.2).fit(normal[:6])


@pytest.mark.parametrize(("calibrated", "count"), [(25, 25), (25, 400), (100, 25), (100, 9)])
def test_false_alarms_keep_their_level_in_images_cut_larger_or_smaller(calibrated: int, count: int) -> None:
    """Calibrated on images of one number of windows, of which neighbours are alike, as those that overlap are."""
    random, level, rates = np.random.default_rng(count), 0.1, []

    def images(n: int, windows_: int) -> list[np.ndarray]:
        noise = random.normal(size=(n, windows_ + 3))
        return list(sum(noise[:, shift : shift + windows_] for shift in range(4)) / 2)

    for seed in range(25):
        known, held_out = split(normal := images(60, calibrated), level, seed)
        calibration = Calibration(image_scores([normal[n] for n in held_out], HOW, known))
        found = image_scores(images(100, count), HOW, known)
        rates.append(float((found > calibration.threshold(level)).mean()))
    assert np.mean(rates) <= level + 3 * np.std(rates) / np.sqrt(len(rates))
