"""``adgan-fast calibrate``, and ``score`` with the detector that it makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adgan_fast import Detector, jobs
from adgan_fast.training import load_generator
from adgan_fast.training.checkpoint import load_checkpoint, save_checkpoint
from tests.support.pictures import random_bytes

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ["--n-seed", "2", "--steps", "1", "-q"]


@pytest.fixture
def detector(here: Path, told) -> Path:
    np.save(here / "normal.npy", random_bytes(20, *np.load(here / "images.npy").shape[1:]))
    status, out, err = told(
        "calibrate", "g.safetensors", "normal.npy", "--out", "d", "--contamination", "0.2", *QUICK, "--json"
    )
    assert status == 0 and err == ""
    found = json.loads(out)
    assert (found["images"], found["unreadable"], found["contamination"]) == (20, 0, 0.2)
    assert found["threshold"] == Detector.load(here / "d").threshold_
    return here / "d"


def test_a_detector_is_that_of_the_package(detector: Path, here: Path) -> None:
    normal = np.load(here / "normal.npy")
    own = Detector(load_generator(here / "g.safetensors"), contamination=0.2, n_seed=2, steps=1).fit(normal)
    loaded = Detector.load(detector)
    assert np.array_equal(loaded.decision_scores_, own.decision_scores_) and loaded.threshold_ == own.threshold_


def test_a_detector_calibrated_anew_keeps_its_settings_but_for_those_given(detector: Path, here: Path, told) -> None:
    assert told("calibrate", "d", "normal.npy", "--out", "e", "-q")[0] == 0
    before, after = Detector.load(detector), Detector.load(here / "e")
    assert (after.config, after.contamination) == (before.config, 0.2)
    assert np.array_equal(after.decision_scores_, before.decision_scores_)
    assert told("calibrate", "d", "normal.npy", "--out", "e", "-q", "--n-seed", "3", "--contamination", "0.3")[0] == 0
    after = Detector.load(here / "e")
    assert (after.config, after.contamination) == (before.config.replace(n_seed=3), 0.3)


def test_score_with_it_adds_p_values_and_decisions(detector: Path, here: Path, told) -> None:
    status, out, err = told("score", "d", "images.npy", "--out", "s", "-q")
    assert status == 0 and err == ""
    rows, known, images = jobs.read("s"), Detector.load(detector), np.load("images.npy")
    flagged = (
        f"anomalous: {known.predict(images).sum()} of {len(images)} images; of normal ones at most 20 % are flagged"
    )
    assert flagged in out
    assert np.array_equal(rows["score"].to_numpy().astype(np.float64), known.decision_function(images))
    assert np.array_equal(rows["p_value"].to_numpy(), known.p_values(images))
    assert np.array_equal(rows["anomalous"].to_numpy(zero_copy_only=False), known.predict(images) == 1)
    assert json.loads((here / "s" / "job.json").read_text())["calibration"]["level"] == 0.2
    assert told("score", "d", "images.npy", "--out", "s", "-q")[:1] == (0,)  # goes on
    status, _, err = told("score", "d", "images.npy", "--out", "s", "-q", "--alpha", "0.1")
    assert status == 1 and "calibration.level is 0.2 there and 0.1 here" in err
    status, _, _ = told("score", "d", "images.npy", "--out", "s", "-q", "--alpha", "0.1", "--overwrite")
    assert status == 0
    wanted = known.decision_function(images) > known.threshold(0.1)
    assert np.array_equal(jobs.read("s")["anomalous"].to_numpy(zero_copy_only=False), wanted)


def test_adaptive_settles_at_the_threshold_of_the_level(detector: Path, here: Path, told) -> None:
    status, _, err = told("score", "d", "images.npy", "--out", "s", "-q", "--alpha", "0.1", "--adaptive", "0.9")
    assert status == 0 and "each image gets all 2 starts: the first look is after 8" in err
    assert set(jobs.read("s")["starts_used"].to_pylist()) == {2}
    said, known = json.loads((here / "s" / "job.json").read_text())["config"]["adaptive"], Detector.load(detector)
    assert said == known.until(0.9, 0.1).described() and said["threshold"] == known.threshold(0.1)


def test_an_image_that_cannot_be_read_has_no_decision(detector: Path, here: Path, told) -> None:
    (here / "images" / "cat" / "broken.png").write_bytes(b"no picture")
    assert told("score", "d", "images", "--out", "s", "-q")[0] == 3
    rows = {row["id"]: row for row in jobs.read("s").to_pylist()}
    assert rows["cat/broken.png"]["p_value"] is None and rows["cat/broken.png"]["anomalous"] is None
    assert all(row["p_value"] is not None for name, row in rows.items() if name != "cat/broken.png")
    status, out, err = told(
        "calibrate", "g.safetensors", "images", "--out", "e", "--contamination", "0.5", *QUICK, "--json"
    )
    assert status == 3 and "broken.png" in err and json.loads(out)["unreadable"] == 1


def test_on_a_cluster_the_workers_have_the_device_and_not_this_machine(
    detector: Path, told, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, meta = load_checkpoint(detector)
    save_checkpoint(detector, tensors, meta | {"device": "cuda:3", "engine": "triton"})
    given = []

    def here_instead(source, gen, out, config, **settings):
        given.append((next(gen.parameters()).device.type, config.device))
        return jobs.run(gen, source, out, config=config.replace(device="cpu"), **settings)

    monkeypatch.setattr("adgan_fast.jobs.ray.score_dataset", here_instead)
    for generator in ("d", "g.safetensors"):
        for device in ([], ["--device", "cuda"]):
            command = ["score", generator, "images.npy", "--out", "s", "-q", "--overwrite", "--runner", "ray"]
            status, _, err = told(*command, *device)
            assert status == 0
            assert ("calibrated by the engine 'triton', and 'native' has searched" in err) == (generator == "d")
    assert given == [("cpu", None), ("cpu", "cuda")] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate", "g.safetensors", "images.npy", "--out", "e", "--contamination", "0.01"], "99"),
        (["calibrate", "g.safetensors", "images.npy", "--out", "e", "--contamination", "0"], "contamination must be"),
        (["calibrate", "g.safetensors", "images.npy", "--out", "e", "--starts", "independent"], "independent"),
        (["score", "d", "images.npy", "--out", "t", "--n-seed", "3"], "its own settings: leave out --n-seed"),
        (["score", "d", "images.npy", "--out", "t", "--alpha", "0.01"], "99"),
        (["score", "g.safetensors", "images.npy", "--out", "t", "--alpha", "0.1"], "--alpha goes with a detector"),
        (["score", "g.safetensors", "images.npy", "--out", "t", "--adaptive", "0.9"], "--adaptive goes with a"),
        (["score", "d", "images.npy", "--out", "t", "--adaptive", "0.99"], "99"),
        (["score", "d", "images.npy", "--out", "t", "--adaptive", "2"], "confidence must be a number"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments: list[str], message: str, detector: Path, told) -> None:
    status, _, err = told(*arguments)
    assert status == 2 and message in err and len(err.strip().splitlines()) == 1


def test_a_training_is_not_replaced_by_a_detector(here: Path, told) -> None:
    assert told("train", "images.npy", "--out", "run", "--steps", "1", "--width", "2", "--latent", "4", "-q")[0] == 0
    status, _, err = told("calibrate", "g.safetensors", "images.npy", "--out", "run", "--contamination", "0.5", *QUICK)
    assert status == 1 and "holds a training" in err
