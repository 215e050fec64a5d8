"""``--windows`` from the training to the page, and ``adgan-fast drift``."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adgan_fast import Calibration, jobs, windows
from adgan_fast.calibration import Drift
from adgan_fast.cli import main
from adgan_fast.jobs import Unreadable
from adgan_fast.jobs.drift import JobDrift
from adgan_fast.jobs.finished import Finished
from adgan_fast.jobs.sources import Files
from adgan_fast.training import load_generator
from adgan_fast.windows import Windows
from tests.support.pictures import random_bytes, write_picture

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ["--n-seed", "2", "--steps", "1", "-q"]
HOW = Windows(8, 4, standardize=True)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """normal/ and new/, of many sizes (one too small), run/ trained on windows of the former, d/ its detector, s/."""
    here = tmp_path_factory.mktemp("scans")
    for index in range(20):
        write_picture(here / "normal" / f"{index:02d}.png", random_bytes(21, 1, 12, 20)[index, 0, :, : 10 + index % 6])
    for index, (label, sides) in enumerate([("good", (12, 9)), ("good", (20, 30)), ("bad", (8, 40)), ("bad", (7, 9))]):
        write_picture(here / "new" / label / f"{index}.png", random_bytes(9, 1, *sides)[index, 0])
    train = ["--steps", "2", "--width", "2", "--latent", "4", "--batch-size", "4", "-q"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests, which train it again
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert (
            main(["train", "normal", "--out", "run", "--windows", "8,4", "--standardize", "--crops", "50", *train]) == 0
        )
        assert main(["calibrate", "run", "normal", "--out", "d", "--contamination", "0.2", *QUICK]) == 0
        assert main(["score", "d", "new", "--out", "s", "--labels", "--keep", "windows", "-q"]) == 3
    torch.set_num_threads(threads)
    return here


def test_a_training_takes_windows_of_every_image_and_keeps_how(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adgan_fast import training

    monkeypatch.chdir(scans)
    for name in ("run", "run/generator.safetensors", "d"):
        assert load_generator(name).windows == HOW
    images = [np.asarray(Image.open(path))[None] for path in sorted(Path("normal").iterdir())]
    crops = windows.standardized(windows.random_windows(images, 8, 50)).windows
    config = training.WGANConfig(steps=2, width=2, latent=4, batch_size=4)
    want = training.train(crops, config).generator.state_dict()
    found = load_generator("run").state_dict()
    assert all(np.array_equal(found[name], value) for name, value in want.items())
    with pytest.raises(training.CheckpointError, match=r"started with other windows: .*'size': 8.* there, None here"):
        training.train(crops, config, out="run", resume=True)


def test_scores_follow_the_training_and_mistakes_are_one_line(
    scans: Path, told: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(scans)
    out = str(tmp_path / "s")
    status, _, err = told("score", "run", "new", "--out", out, *QUICK)
    assert status == 3 and "it has 7 by 9 pixels, a window 8 by 8" in err
    assert Finished(out).windows == HOW
    status, _, _ = told(
        "score", "run", "new", "--out", out, *QUICK, "--overwrite", "--windows", "8,2", "--quantile", "0.9"
    )
    assert status == 3 and Finished(out).windows == Windows(8, 2, True, 0.9)
    cases = [
        (["score", "run", "new", "--windows", "16"], "was trained by windows of 8, standardized"),
        (["score", "run", "new", "--no-standardize"], "was trained by windows of 8, standardized"),
        (["score", "run", "new", "--windows", "8,9"], "stride must be at most size"),
        (["score", "run", "new", "--windows", "8x4"], "SIZE or SIZE,STRIDE"),
        (["score", "run", "new", "--quantile", "1"], "the largest score grows"),
        (["score", "d", "new", "--windows", "8"], "a detector keeps how it takes images"),
        (["score", "run", "new", "--color"], "--gray would convert it"),
        (["score", "run", "new", "--keep", "reconstructions"], "keep ['windows']"),
        (["calibrate", "run", "new", "--contamination", "0.2"], "needs 4 at least"),
        (["train", "normal", "--crops", "5"], "--crops goes with --windows"),
        (["train", "normal", "--windows", "40,4"], "no image is as large as a window"),
        (["train", "normal", "--windows", "9"], "H one of"),
        (["train", "g", "--windows", "8", "--objective", "inverse"], "takes a generator"),
    ]  # fmt: skip
    for arguments, message in cases:
        status, _, err = told(*arguments, "--out", str(tmp_path / "x"), "-q")
        assert status == 2 and message in err, (arguments, err)


def test_maps_are_of_the_images_own_sizes(
    scans: Path, told: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    status, _, err = told("maps", str(scans / "s"), "--out", str(tmp_path))
    assert status == 0, err
    rows = list(csv.DictReader((tmp_path / "maps.csv").open()))
    found = Finished(scans / "s")
    for row, kept in zip(rows, found.windows_of([0, 2, 3]), strict=True):
        with Image.open(tmp_path / row["file"]) as drawn, Image.open(scans / "new" / row["id"]) as image:
            assert drawn.size == image.size
        map_ = windows.overlap_average(
            kept["score"], np.stack([kept["row"], kept["column"]], 1), image.size[::-1], HOW.size
        )
        usual = np.median([np.median(each["score"]) for each in found.windows_of([0, 2, 3])])
        assert float(row["largest"]) == pytest.approx(max(0.0, map_.max() - usual), rel=1e-5)
    assert [row["id"] for row in rows] == ["bad/2.png", "good/0.png", "good/1.png"]
    assert told("maps", str(scans / "s"), "--out", str(tmp_path / "two"), "--most", "2")[0] == 0
    few = list(csv.DictReader((tmp_path / "two" / "maps.csv").open()))
    assert few == [row for row in rows if row in few]  # what is usual is the job's, not of those drawn


def test_drift_is_told_and_ends_with_a_status_of_its_own(
    scans: Path, told: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    job = str(scans / "s")
    status, out, err = told("drift", job, "--normal", "good")
    assert (
        (status, err) == (0, "")
        and "of 2 normal images (" in out
        and "20 % at most" in out
        and "Too few to say: no drift is seen, but with 2 images against the 10 of the calibration" in out
    )
    status, out, _ = told("drift", job, "--alpha", "0.9999", "--json")
    found = json.loads(out)
    assert (
        status == 4 and found["drift"] and not found["too_few"] and (found["images"], found["calibration"]) == (3, 10)
    )
    status, out, _ = told("drift", job, "--alpha", "0.9999")
    assert status == 4 and out.splitlines()[1].startswith("If these images are normal, there is drift: ")
    enough = JobDrift(Drift(0.4, 0.1, 0.5, 17), 17, 1, 0.1, 30, known=True)
    assert enough.said(0.01) == "No drift is seen: 17 images score as the 30 of the calibration do (p = 0.4)."
    assert enough._replace(test=enough.test._replace(n=16)).too_few(0.01)
    changed = enough._replace(test=Drift(0.001, 0.9, 0.1, 16))  # few, and yet seen
    assert changed.said(0.01).startswith("Drift: these normal images do not") and "lower" in changed.said(0.01)
    for arguments, message in [
        (("--normal", "x"), "no image with such a label"),
        (("--alpha", "1"), "below 1"),
        (("--alpha", "0.0009"), "at least 0.001, the least p-value"),
    ]:
        status, _, err = told("drift", job, *arguments)
        assert status == 2 and message in err
    assert told("drift", str(tmp_path))[0] == 2
    calibration = scans / "s" / "calibration.json"
    kept = calibration.read_text()
    calibration.write_text(kept.replace('"scores": [', '"scores": [0.125, '))
    assert told("drift", job)[0] == 1 and "is not the calibration of the job" in told("drift", job)[2]
    calibration.unlink()
    assert "scored without a detector" in told("drift", job)[2]
    calibration.write_text(kept)


def test_the_page_shows_windows_calibration_and_drift(
    scans: Path, told: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    status, _, err = told("report", str(scans / "s"), "--out", str(page), "--normal", "good")
    assert status == 0, err
    text = " ".join(page.read_text().split())
    assert "of normal images it would be 20 % at most" in text and "Too few to say" in text
    assert "Each picture: image, overlay." in text and "2 scores of normal images" in text
    kept = json.loads((scans / "s" / "job.json").read_text())["calibration"]
    threshold = Calibration.load(scans / "s" / "calibration.json").threshold(kept["level"])
    assert f'"threshold": {threshold}' in text  # that of the detector, and not what parts these few
    for name, value in (("window size", 8), ("window stride", 4), ("windows standardized", "yes")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert "quantile of windows" not in text and '"used": "windows"' in text  # the calibration's windows rank
    counts = jobs.read(scans / "s")["n_windows"].to_pylist()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert [row[12] for row in data["rows"]] == counts and max(filter(None, counts)) > 1
    assert '"of": "windows"' in text and "Histogram of p-values" in text


def test_images_that_change_or_are_damaged_on_the_way_are_no_mistake_in_the_arguments(
    scans: Path, told: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(scans)
    read = Files.read

    def broken(self: Files, first: int, stop: int) -> Iterator[object]:
        yield from read(self, first, 5)
        raise error

    monkeypatch.setattr(Files, "read", broken)
    for error in (jobs.InputsChanged("a file has changed"), ValueError("a file is damaged")):
        for command in (["calibrate", "run", "--contamination", "0.2"], ["train", "--windows", "8"]):
            status, _, err = told(*command, "normal", "--out", str(tmp_path / "x"), "-q")
            assert status == 1 and err == f"adgan-fast: error: {error}\n", (command, err)
    passes = itertools.count()

    def vanished(self: Files, first: int, stop: int) -> Iterator[object]:
        gone = next(passes) == 2  # after the first image, and all once
        for number, image in enumerate(read(self, first, stop)):
            yield Unreadable("gone") if gone and number == 7 else image

    monkeypatch.setattr(Files, "read", vanished)
    status, _, err = told("train", "normal", "--out", str(tmp_path / "x"), "--windows", "8", "-q")
    assert status == 1 and "images have changed while they were read" in err
