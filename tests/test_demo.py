"""The demo, with little training and few starts."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from sklearn.metrics import roc_auc_score

from adgan_fast import demo, jobs, score
from adgan_fast.cli import main
from adgan_fast.data import load_digits
from adgan_fast.training import load_generator

pytest.importorskip("matplotlib", reason="the demo's extra is not installed: pip install 'adgan-fast[demo]'")
pytest.importorskip("sklearn", reason="the demo's extra is not installed: pip install 'adgan-fast[demo]'")


FILES = {"scores.csv", "scores.parquet", "roc.png", "gallery.png", "generator.safetensors"}
QUICK = ["--steps", "3", "--n-seed", "2"]


SPLIT = demo.split


@pytest.fixture(scope="module", autouse=True)
def fewer_images() -> Iterator[None]:
    """Every tenth image of each part, which is enough for the road to be walked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "split", lambda labels: {name: part[::10] for name, part in SPLIT(labels).items()})
        yield


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    assert main(["demo", *QUICK, "--output", str(folder)]) == 0
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "scores.csv", newline="") as file:
        return list(csv.DictReader(file))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_generator(folder / "generator.safetensors").state_dict()


def test_the_demo_writes_its_files_and_nothing_else(output: Path) -> None:
    assert {file.name for file in output.iterdir()} == FILES
    for name in ("roc.png", "gallery.png"):
        with Image.open(output / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300


def test_csv_and_parquet_hold_the_same_scores_of_the_held_out_images(output: Path) -> None:
    rows, table = rows_of(output), parquet.read_table(output / "scores.parquet")
    digits = load_digits()
    held_out = demo.split(digits.labels)["test"]
    assert [int(row["index"]) for row in rows] == held_out.tolist() == table["index"].to_pylist()
    assert [int(row["label"]) for row in rows] == digits.labels[held_out].tolist() == table["label"].to_pylist()
    assert [row["anomalous"] == "1" for row in rows] == table["anomalous"].to_pylist()
    assert table["anomalous"].to_pylist() == [label != 8 for label in table["label"].to_pylist()]
    assert np.array_equal(np.array([np.float32(row["score"]) for row in rows]), table["score"].to_numpy())


def test_the_scores_are_those_of_the_public_api_for_the_saved_generator(output: Path) -> None:
    table = parquet.read_table(output / "scores.parquet")
    some = table["index"].to_numpy()[:40:8]
    generator = load_generator(output / "generator.safetensors")
    assert np.array_equal(score(generator, load_digits().images[some], n_seed=2), table["score"].to_numpy()[:40:8])


def test_a_second_run_gives_the_same_numbers_on_top_of_the_first(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(FILES - {"generator.safetensors"})  # whose header lists its entries in an order of its own
    before, weights = [(output / name).read_bytes() for name in files], weights_of(output)
    assert main(["demo", *QUICK, "--output", str(output)]) == 0
    assert [(output / name).read_bytes() for name in files] == before
    assert all(torch.equal(value, weights[name]) for name, value in weights_of(output).items())
    said = capsys.readouterr().out
    auc = roc_auc_score(*zip(*((row["anomalous"] == "1", float(row["score"])) for row in rows_of(output)), strict=True))
    assert f"AUC {auc:.4f}" in said
    assert re.search(r"images/s, engine '\w+'", said)
    assert str(output) in said


def test_a_seed_and_a_digit_and_an_engine_can_be_chosen(output: Path, tmp_path: Path, capsys) -> None:
    options = ["--output", str(tmp_path), "--digit", "1", "--seed", "5", "--engine", "grouped"]
    assert main(["demo", *QUICK, *options, "--held-out", "validation"]) == 0
    rows = rows_of(tmp_path)
    assert [row["anomalous"] for row in rows] == [str(int(row["label"] != "1")) for row in rows]
    assert "engine 'grouped'" in capsys.readouterr().out
    assert not torch.equal(weights_of(output)["layers.0.weight"], weights_of(tmp_path)["layers.0.weight"])


def test_the_parts_of_the_data_share_no_image_and_hold_every_digit_alike() -> None:
    labels = load_digits().labels
    parts = SPLIT(labels)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(labels)))
    for name, part in parts.items():
        shares = np.bincount(labels[part], minlength=10) / np.bincount(labels)
        assert np.abs(shares - demo.SHARES[name]).max() < 0.01
    assert all(np.array_equal(part, again) for part, again in zip(parts.values(), SPLIT(labels).values()))  # noqa: B905


@pytest.mark.parametrize("options", [["--steps", "-1"], ["--n-seed", "0"], ["--digit", "10"], ["--engine", "warp"]])
def test_a_bad_option_is_refused_at_once(options: list[str], tmp_path: Path, capsys) -> None:
    assert main(["demo", *options, "--output", str(tmp_path / "out")]) == 2
    assert options[0].strip("-").replace("-", "_") in capsys.readouterr().err.replace("-", "_")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused_at_once(tmp_path: Path, capsys) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["demo", "--output", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else real(name))
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert "needs matplotlib: pip install 'adgan-fast[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize("where", [(demo, "train"), (jobs, "run")], ids=["train", "score"])
def test_an_interrupt_ends_the_demo_without_a_traceback(
    where: tuple[object, str], tmp_path: Path, monkeypatch, capsys
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    monkeypatch.setattr(*where, interrupted)
    assert main(["demo", *QUICK, "--output", str(tmp_path)]) == 130
    assert "interrupted: the demo begins anew each time" in capsys.readouterr().err
    assert torch.get_num_threads() == threads
    assert not (tmp_path / "scores.csv").exists()


def run_demo(output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The demo as a program of its own, in this environment."""
    command = [sys.executable, "-m", "adgan_fast", "demo", *QUICK, "--n-seed", "1", "--out", str(output)]
    env = os.environ | environment
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in output.iterdir()} == FILES
    return done


def test_the_demo_runs_with_any_backend_named_and_any_folder_on_an_ascii_terminal(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run_demo(tmp_path / "Prüfung", MPLBACKEND="nonsense", **ascii_only)
    # As Python reads the name: a letter, or two bytes that are no ASCII.
    assert re.search(r"Writing to .*/Pr(\\xfc|\\udcc3\\udcbc)fung", done.stdout)
    assert "MPLBACKEND='nonsense' is no backend of matplotlib" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="a name that is not UTF-8 needs a file system that takes it")
def test_the_demo_writes_to_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    run_demo(folder, PYTHONCOERCECLOCALE="0", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="")
    assert weights_of(folder)


def test_the_callers_streams_are_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["demo", *QUICK, "--output", str(tmp_path / "Prüfung")]) == 0
    assert out.errors == "strict"
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # of a notebook, say: takes everything
    assert main(["demo", *QUICK, "--output", str(tmp_path / "Prüfung")]) == 0


BACKEND = """
import os, adgan_fast.report, matplotlib
print(os.environ["MPLBACKEND"], matplotlib.rcParams["backend"])
"""


def test_a_backend_named_in_the_environment_holds_for_the_rest_of_the_program() -> None:
    command, environment = [sys.executable, "-c", BACKEND], os.environ | {"MPLBACKEND": "svg"}
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == "svg svg\n"
