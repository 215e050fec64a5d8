"""The paper's experiments: what their figures are made of, and that a run goes on where it was cut short."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from adgan_fast.data import load_digits
from adgan_fast.training import TrainingDiverged
from bench.paper import table1 as table1_module
from bench.paper.__main__ import app
from bench.paper.auc import auc, mean_curve
from bench.paper.entries import DETECTORS, ENTRIES
from bench.paper.rows import OtherSettings, Row, Store, as_markdown, save_rows
from bench.paper.scenes import open_scenes
from bench.paper.sets import drawn_items, open_set, trial
from bench.paper.settings import Settings
from tests.support.lsun import database, encoded, picture

QUICK = ["--items", "60", "--holdout", "20", "--width", "4", "--latent", "8", "--gan-steps", "3", "--n-seed", "2"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits in MNIST's format, every third one in the test part."""
    folder = tmp_path_factory.mktemp("sets") / "small"
    folder.mkdir()
    given = load_digits()
    assert given.labels is not None
    pixels = given.images if given.images.dtype == np.uint8 else np.rint((given.images + 1) * 127.5).astype(np.uint8)
    test = np.arange(len(given)) % 3 == 0
    for prefix, part in (("train", ~test), ("t10k", test)):
        some = pixels[part][:, 0]
        head = b"\0\0\x08\x03" + struct.pack(">3i", *some.shape)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + some.tobytes())
        head = b"\0\0\x08\x01" + struct.pack(">i", len(some))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + given.labels[part].astype(np.uint8).tobytes())
    return folder


# -- figures ---------------------------------------------------------------------------------------------------------


def test_the_area_is_scikit_learns_ties_and_all() -> None:
    random = np.random.default_rng(0)
    for levels in (3, 10_000):
        anomalous = random.random(300) < 0.3
        scores = random.integers(0, levels, 300) + levels // 3 * anomalous
        found = auc(scores, anomalous, resamples=0)
        assert found.value == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)


def test_the_interval_holds_the_true_area_as_often_as_it_says() -> None:
    """Normal scores one apart: the true area is Phi(1/sqrt 2) = 0.7602."""
    random = np.random.default_rng(1)
    anomalous = np.arange(120) >= 60
    inside = 0
    for trial_number in range(200):
        area = auc(random.normal(size=120) + anomalous, anomalous, resamples=200, seed=trial_number)
        inside += area.low <= 0.76025 <= area.high
    assert 0.89 <= inside / 200 <= 0.99


def test_an_area_of_one_kind_or_of_scores_that_are_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="normal and anomalous"):
        auc([1.0, 2.0], [True, True])
    with pytest.raises(ValueError, match="1 of 2 scores"):
        auc([1.0, np.nan], [True, False])


def test_a_mean_curve_lies_between_its_curves() -> None:
    one = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    best = (np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    grid, mean = mean_curve([one, best], points=11)
    np.testing.assert_allclose(mean[1:], (grid[1:] + 1) / 2)


# -- trials ------------------------------------------------------------------------------------------------------------


def test_no_image_is_both_trained_on_and_chosen_on(digits: Path) -> None:
    images = open_set(digits)
    assert images.name == "small" and images.classes == list(range(10))
    at = trial(images, 3, items=60, holdout=20, seed=0)
    assert images.train.labels is not None
    assert len(at.train) + 20 == np.sum(images.train.labels == 3)
    assert at.holdout.anomalous.sum() == 20 and len(at.holdout.images) == 40
    trained = {image.tobytes() for image in at.train}
    assert not trained & {image.tobytes() for image in at.holdout.images}
    assert len(at.test.images) == 60 and 0 < at.test.anomalous.sum() < 60


def test_every_class_has_the_same_test_items_and_more_go_on_from_fewer(digits: Path) -> None:
    images = open_set(digits)
    a, b = (trial(images, label, items=60, holdout=20, seed=0) for label in (3, 8))
    np.testing.assert_array_equal(a.test.images, b.test.images)
    np.testing.assert_array_equal(drawn_items(images, 200, 0)[:60], drawn_items(images, 60, 0))
    assert (drawn_items(images, 60, 0) != drawn_items(images, 60, 1)).any()
    assert len(drawn_items(images, 10**6, 0)) == len(images.test)


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_row_of_other_settings_is_never_taken(tmp_path: Path) -> None:
    store = Store(tmp_path, "set")
    row = Row("set", "3", "kde", 0.9, 0.8, 0.95, 5, 1.0, 2.0, {"items": 5, "seed": 0, "bandwidth": 2.0})
    assert store.row("3", "kde", {"items": 5}) is None
    store.put(row, np.arange(5.0))
    assert store.row("3", "kde", {"items": 5, "seed": 0}) == row
    with pytest.raises(OtherSettings, match="items 5 there, 6 here"):
        store.row("3", "kde", {"items": 6, "seed": 0})
    ((again, scores),) = store.rows()
    assert again == row and scores.tolist() == [0, 1, 2, 3, 4]


def test_tables_of_rows(tmp_path: Path) -> None:
    rows = [
        Row("set", name, detector, value, value - 0.1, value + 0.1, 5, 1.0, 2.0, {"seed": 0})
        for name, detector, value in (("0", "a", 0.75), ("1", "a", 0.5), ("0", "b", 0.875))
    ]
    lines = save_rows(tmp_path / "rows.csv", rows).read_text().splitlines()
    assert lines[0] == "dataset,normal_class,detector,auc,auc_low,auc_high,n_test,fit_seconds,score_seconds,config"
    assert next(csv.DictReader(lines))["auc"] == "0.75000"
    table = as_markdown(rows, ["a", "b"], ["0", "1"])
    assert "| a | 0.750 | **0.500** | 0.625 |" in table and "| b | **0.875** |  |  |" in table


# -- runs --------------------------------------------------------------------------------------------------------------


def run(*arguments: object) -> None:
    app([str(each) for each in arguments], standalone_mode=False)


def test_table1_of_one_class_and_again_nothing_is_run(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        "table1",
        "--data",
        digits,
        "--out",
        tmp_path,
        "--classes",
        "3",
        "--detectors",
        "iforest-pca,adgan",
        *QUICK,
    ]
    run(*command, "--quiet")
    with open(tmp_path / "table1-small.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["detector"] for row in rows] == ["iforest-pca", "adgan", "critic", "prior"]
    for row in rows:
        assert row["normal_class"] == "3" and row["n_test"] == "60" and float(row["score_seconds"]) > 0
        assert float(row["auc_low"]) <= float(row["auc"]) <= float(row["auc_high"])
    assert float(rows[0]["auc"]) > 0.9
    assert json.loads(rows[0]["config"])["components"] in (20, 40, 60)
    assert json.loads(rows[1]["config"])["width"] == 4
    assert (tmp_path / "table1-small.png").stat().st_size > 0 and "| adgan |" in (
        tmp_path / "table1-small.md"
    ).read_text()

    def never(*_: object) -> None:
        raise AssertionError("ran again")

    monkeypatch.setitem(ENTRIES, "adgan", ENTRIES["adgan"]._replace(fit=never))
    run(*command, "--quiet")
    with pytest.raises(OtherSettings, match="width 4 there, 5 here"):
        run(*command, "--quiet", "--width", "5")
    run("roc", "--data", digits, "--out", tmp_path)
    assert (tmp_path / "roc-small.png").stat().st_size > 0


def test_scores_go_on_at_the_block_that_is_missing(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table1_module, "BLOCK", 20)
    command = ["table1", "--data", digits, "--classes", "3", "--detectors", "adgan", *QUICK, "--quiet"]
    run(*command, "--out", tmp_path / "whole")
    asked = []
    real = ENTRIES["adgan"]

    def until(most: int):
        def fit(at, context):
            fitted = real.fit(at, context)

            def scores(images):
                asked.append(len(images))
                if len(asked) > most:
                    raise KeyboardInterrupt
                return fitted.scores(images)

            return fitted._replace(scores=scores)

        return real._replace(fit=fit)

    monkeypatch.setitem(ENTRIES, "adgan", until(2))
    assert app([*map(str, command), "--out", str(tmp_path / "cut")], standalone_mode=False) == 130
    assert len(list((tmp_path / "cut").rglob("*.parts/*.npz"))) == 2
    asked.clear()
    monkeypatch.setitem(ENTRIES, "adgan", until(9))
    run(*command, "--out", tmp_path / "cut")
    assert asked == [20]
    for name in ("adgan", "critic", "prior"):
        whole, cut = (np.load(tmp_path / each / "small" / "3" / f"{name}.npy") for each in ("whole", "cut"))
        np.testing.assert_array_equal(whole, cut)
    assert not list((tmp_path / "cut" / "small" / "3").glob("*.parts"))


def test_alexnet_without_weights_is_refused_by_name_and_the_rest_runs(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detectors = "iforest-alexnet,iforest"
    run("table1", "--data", digits, "--out", tmp_path, "--classes", "3", "--detectors", detectors, *QUICK, "--quiet")
    assert "iforest-alexnet" in (error := capsys.readouterr().err) and "--alexnet" in error
    assert list((tmp_path / "small" / "3").glob("*.json")) == [tmp_path / "small" / "3" / "iforest.json"]


def test_every_detector_runs(digits: Path, tmp_path: Path) -> None:
    """All that need no foreign weights, each with a training of a few steps."""
    slow = {"gmm", "gmm-pca", "anogan"}  # the last differs from anogan-64x5 in numbers alone
    lacking = {name for name in DETECTORS if name.endswith("-alexnet")} | slow
    entries = [name for name in ENTRIES if name not in lacking]
    few = [*QUICK]
    few[few.index("--items") + 1] = "30"
    run(
        "table1", "--data", digits, "--out", tmp_path, "--classes", "3", "--detectors", ",".join(entries), *few,
        "--autoencoder-steps", "3", "--code", "4", "--quiet",
    )  # fmt: skip
    with open(tmp_path / "table1-small.csv", newline="") as file:
        found = [row["detector"] for row in csv.DictReader(file)]
    assert found == [name for name in DETECTORS if name not in lacking]


def test_ablation_and_search2d(digits: Path, tmp_path: Path) -> None:
    few = [*QUICK, "--autoencoder-steps", "3"]
    few[few.index("--n-seed") + 1] = "8"
    few[few.index("--items") + 1] = "20"

    def ablation(*more: str) -> list[dict[str, str]]:
        run("ablation", "--data", digits, "--out", tmp_path, "--classes", "3", *few, "--quiet", *more)
        with open(tmp_path / "ablation-small.csv", newline="") as file:
            return list(csv.DictReader(file))

    rows = ablation()
    assert ablation("--vary", "weights,lr_z") == [  # from what is kept
        row for setting in ("weights", "lr_z") for row in rows if row["setting"] == setting
    ]
    of_setting = {(row["setting"], row["value"]): row for row in rows}
    usual = {
        of_setting[key]["auc"] for key in (("n_seed", "8"), ("steps", "5"), ("weights", "per_seed"), ("lr_z", "0.25"))
    }
    assert len(usual) == 1, "one and the same search"
    assert all(float(row["seconds_per_image"]) >= 0 for row in rows)
    run("search2d", "--data", digits, "--out", tmp_path, "--width", "4", "--gan-steps", "2", "--n-seed", "3", "--quiet")
    assert (tmp_path / "search2d-small.png").stat().st_size > 0


def test_lengths_look_at_the_holdout_as_the_training_goes_on_and_go_on_themselves(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [argument for argument in QUICK if argument not in ("--items", "60")]
    own = ["--classes", "3", "--every", "2", "--side", "16", "--lr", "1e-3", "--n-critic", "1", "--quiet"]
    out = tmp_path / "out"
    run("lengths", "--data", digits, "--out", out, *short, *own, "--gan-steps", "4")
    rows = list(csv.DictReader((out / "lengths-small.csv").open()))
    assert [(row["normal_class"], row["step"]) for row in rows] == [("3", "2"), ("3", "4")]
    training = json.loads(rows[0]["config"])["training"]
    assert (training["lr"], training["n_critic"], training["width"]) == (1e-3, 1, 4)
    assert rows[0]["training"] == "clip 0.001 x 1, width 4, side 16"
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("lengths/*/*.json")}
    run("lengths", "--data", digits, "--out", out, *short, *own, "--gan-steps", "6")
    rows = list(csv.DictReader((out / "lengths-small.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4", "6"] and (out / "lengths-small.png").is_file()
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


def test_images_are_padded_with_black_alike_on_all_sides(digits: Path) -> None:
    plain, large = open_set(digits), open_set(digits, side=16)
    assert large.test.images.shape[2:] == (16, 16)
    assert np.array_equal(large.test.images[:, :, 4:12, 4:12], plain.test.images)
    assert large.test.images.sum() == plain.test.images.sum()
    for side in (6, 15):
        with pytest.raises(ValueError, match=f"8 by 8 pixels cannot be padded alike on all sides to {side}"):
            open_set(digits, side=side)


def test_networks_can_be_trained_apart_from_scoring(digits: Path, tmp_path: Path) -> None:
    command = [
        "table1",
        "--data",
        digits,
        "--out",
        tmp_path,
        *QUICK,
        "--classes",
        "3",
        "--detectors",
        "adgan",
        "--quiet",
    ]
    run(*command, "--fit-only")
    trained = tmp_path / "small" / "3" / "models" / "wgan-clip" / "checkpoint.json"
    before = trained.read_bytes()
    assert not list(tmp_path.rglob("adgan.json"))
    run(*command)
    assert trained.read_bytes() == before and list(tmp_path.rglob("adgan.json"))


def test_scenes_of_lsun(tmp_path: Path) -> None:
    for name, count in (("bedroom_train", 6), ("bedroom_val", 5), ("bridge_val", 4)):
        database(tmp_path / f"{name}_lmdb", {f"{i}": encoded(picture(20, 30, i)) for i in range(count)})
    with pytest.raises(ValueError, match="there are bedroom, bridge"):
        open_scenes(tmp_path, "kitchen", 8, None)
    arguments = ["--width", "4", "--latent", "8", "--gan-steps", "2", "--n-seed", "2", "--size", "8", "--quiet"]
    run("scenes", "--data", tmp_path, "--out", tmp_path / "out", *arguments)
    with open(tmp_path / "out" / "scenes-lsun-bedroom.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["scene"], row["images"]) for row in rows] == [("bedroom", "5"), ("bridge", "4"), ("all others", "4")]
    assert rows[1]["auc_against_it"] == rows[2]["auc_against_it"] != ""
    assert (tmp_path / "out" / "scenes-lsun-bedroom.png").stat().st_size > 0


def test_settings_say_what_decides_a_figure() -> None:
    assert Settings(width=32).described(("width",)) == {"items": 5000, "holdout": 200, "seed": 0, "width": 32}


def test_scenes_and_ablation_keep_what_they_found_for_its_settings_alone(tmp_path: Path) -> None:
    a, b = Settings(autoencoder_steps=3), Settings(autoencoder_steps=4)
    assert a.key(("autoencoder_steps",)) != b.key(("autoencoder_steps",)) and a.key(("width",)) == b.key(("width",))
    for name in ("bedroom_train", "bedroom_val", "bridge_val"):
        database(tmp_path / f"{name}_lmdb", {f"{i}": encoded(picture(8, 8, i)) for i in range(4)})
    arguments = ["--width", "4", "--latent", "8", "--gan-steps", "2", "--size", "8", "--quiet", "--n-seed"]
    for n_seed in (2, 3):
        run("scenes", "--data", tmp_path, "--out", tmp_path / "out", *arguments, n_seed)
    kept = [np.load(path) for path in sorted((tmp_path / "out").rglob("bridge.npy"))]
    assert len(kept) == 2 and (kept[0] != kept[1]).any()


def test_rows_of_other_settings_are_no_table_together(tmp_path: Path) -> None:
    store = Store(tmp_path, "set")
    for name, steps in (("0", 100), ("1", 200)):
        config = {"items": 5, "holdout": 2, "seed": 0, "gan_steps": steps}
        store.put(Row("set", name, "adgan", 0.9, 0.8, 0.95, 5, 1.0, 2.0, config), np.arange(5.0))
    with pytest.raises(OtherSettings, match="gan_steps 200, beside 100 of 0"):
        list(store.rows())


def test_rows_of_other_images_are_never_taken(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    for file in digits.iterdir():
        data = file.read_bytes()
        other = data[:16] + bytes(255 - byte for byte in data[16:]) if "train-images" in file.name else data
        (tmp_path / "small" / file.name).write_bytes(other)
    arguments = ["--out", tmp_path / "out", "--classes", "3", "--detectors", "iforest", *QUICK, "--quiet"]
    run("table1", "--data", digits, *arguments)
    with pytest.raises(OtherSettings, match="images '"):
        run("table1", "--data", tmp_path / "small", *arguments)


def test_a_detector_that_diverges_is_told_and_the_rest_runs(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverges(at, context):
        raise TrainingDiverged(7, "generator_loss is nan", None)

    monkeypatch.setitem(ENTRIES, "dcae", ENTRIES["dcae"]._replace(fit=diverges))
    arguments = ["--data", str(digits), "--out", str(tmp_path), "--classes", "3", "--detectors", "dcae,iforest", *QUICK]
    assert app(["table1", *arguments, "--quiet"], standalone_mode=False) == 1
    assert "failed: dcae on 3: training diverged at step 7" in capsys.readouterr().err
    assert (tmp_path / "small" / "3" / "iforest.json").is_file()
