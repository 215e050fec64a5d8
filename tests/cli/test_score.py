"""``adgan-fast score`` and ``export``."""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import adgan_fast
from adgan_fast import jobs
from adgan_fast.cli import check, given
from adgan_fast.cli import images as shown
from adgan_fast.jobs.errors import JobInterrupted
from adgan_fast.training import load_generator
from tests.support.pictures import random_bytes, write_picture
from tests.support.sources import encoded

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ["--n-seed", "2", "--steps", "1", "-q"]


def scores_of(folder: Path) -> np.ndarray:
    return jobs.read(folder)["score"].to_numpy()


def expected(images: np.ndarray, **settings: Any) -> np.ndarray:
    return adgan_fast.score(load_generator("g.safetensors"), images, n_seed=2, steps=1, **settings)


def test_the_scores_are_those_of_the_package(here: Path, told) -> None:
    status, out, err = told("score", "g.safetensors", "images", "--out", "s", *QUICK)
    assert status == 0 and err == "" and "7 images in s: 7 ok" in out and "engine 'native'" in out
    assert np.array_equal(scores_of(here / "s"), expected(np.load("images.npy")))
    assert "adgan-fast export s scores.csv" in out


def test_labels_and_ids_and_json(here: Path, told) -> None:
    status, out, _ = told("score", "g.safetensors", "images", "--out", "s", *QUICK, "--labels", "--json")
    found = json.loads(out)
    assert status == 0 and found["counts"] == {"ok": 7} and found["images"] == 7 and found["out"] == "s"
    rows = jobs.read("s").to_pydict()
    assert rows["label"] == ["cat"] * 4 + ["dog"] * 3 and rows["id"][0] == "cat/0.png" and rows["id"][6] == "dog/6.png"


def test_the_same_command_goes_on_and_another_is_refused(here: Path, told) -> None:
    command = ["score", "g.safetensors", "images", "--out", "s", *QUICK, "--shard", "3"]
    assert told(*command)[0] == 0
    before = scores_of(here / "s")
    (here / "s" / "part-00001.parquet").unlink()
    status, out, _ = told(*command, "--json")
    found = json.loads(out)
    assert status == 0 and found["resumed_parts"] == 2 and found["images"] == 3
    assert np.array_equal(scores_of(here / "s"), before)
    assert "nothing was left to do" in told(*command)[1]
    status, out, err = told(*command, "--seed", "1")
    assert status == 1 and "is of another job: config.seed is 0 there and 1 here" in err and "--overwrite" in err
    assert told(*command, "--seed", "1", "--overwrite")[0] == 0
    assert not np.array_equal(scores_of(here / "s"), before)


def test_images_that_cannot_be_read_are_named_counted_and_told_by_the_status(here: Path, told) -> None:
    for index in range(8):
        (here / "images" / f"bad{index}.png").write_bytes(b"no picture")
    status, out, err = told("score", "g.safetensors", "images", "--out", "s", *QUICK)
    assert status == 3 and "15 images in s: 7 ok, 8 unreadable" in out
    assert err.count("could not be read: 'bad") == 5 and "and 3 more could not be read" in err
    assert "its head is damaged" in err


def test_a_job_goes_on_however_many_of_its_first_images_cannot_be_read(here: Path, told, monkeypatch) -> None:
    for index in range(300):
        (here / "images" / f"a{index:03d}.png").write_bytes(b"no picture")
    command = ["score", "g.safetensors", "images", "--out", "s", *QUICK]
    status, out, err = told(*command)
    assert status == 3 and "307 images in s: 7 ok, 300 unreadable" in out and "and 295 more could not" in err
    status, out, again = told(*command)  # all is finished
    assert status == 3 and "nothing was left to do" in out and again == err
    monkeypatch.setattr(shown, "MISFITS", 2)
    for index in range(2):
        write_picture(here / "images" / f"b{index}.png", random_bytes(9, 9))
    status, _, err = told(*command, "--overwrite")
    assert status == 2 and "no image can be used; the first, 'b0.png': an image of shape (1, 9, 9)" in err


def test_paths_in_a_table_lead_out_of_its_folder_where_that_is_said(here: Path, told) -> None:
    (here / "tables").mkdir()
    parquet.write_table(pa.table({"path": ["../images/cat/0.png"]}), here / "tables" / "a.parquet")
    command = ["score", "g.safetensors", "tables/a.parquet", "--out", "s", *QUICK]
    status, _, err = told(*command)
    assert status == 3 and "leads out of" in err and "--within DIR" in err
    status, _, err = told(*command, "--within", "images")
    assert status == 1 and "source.within is 'not there' there" in err
    assert told(*command, "--within", "images", "--overwrite")[0] == 0
    assert scores_of(here / "s")[0] == expected(np.load("images.npy"))[0]


def test_where_no_image_can_be_read_there_are_rows(here: Path, told) -> None:
    (here / "bad").mkdir()
    for index in range(2):
        (here / "bad" / f"{index}.png").write_bytes(b"no picture")
    (here / "own_unsaid.py").write_text(  # nothing but an image says the shape of its latent
        "from torch import nn\nclass Own(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.inner = nn.Linear(4, 64)\n    def forward(self, z):\n"
        "        return self.inner(z.flatten(1)).view(-1, 1, 8, 8)\n"
    )
    for generator in ("g.safetensors", "own_unsaid:Own"):
        status, out, err = told("score", generator, "bad", "--out", generator[:3], *QUICK)
        assert status == 3 and "2 unreadable" in out and "nothing was searched" in out and err.count("'0.png'") == 1
        assert jobs.read(generator[:3])["status"].to_pylist() == ["unreadable"] * 2
    for command in (["train", "bad", "--out", "r"], ["calibrate", "g.safetensors", "bad", "--out", "r"]):
        status, _, err = told(*command, "-q")
        assert status == 2 and "bad: holds no image that can be read" in err and not (here / "r").exists()


def test_an_argument_is_2_and_what_goes_wrong_on_the_way_is_1_whatever_is_there_already(
    here: Path, told, monkeypatch
) -> None:
    images = np.load("images.npy").astype(np.float32) / 255
    images[5] = np.nan
    np.save("nan.npy", images)
    command = ["score", "g.safetensors", "nan.npy", "--out", "s", *QUICK, "--shard", "2"]
    status, _, err = told(*command, "--strict")
    assert status == 1 and "NaN" in err and len(list(here.glob("s/part-*"))) == 2
    for wrong in (["--keep", "all"], ["--latent-shape", "7"], ["--engine", "warp"]):
        assert told(*command, *wrong)[0] == 2
    assert told(*command)[0] == 0
    for error, status, words in (
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "CUDA out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "can't allocate memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ):
        monkeypatch.setattr(jobs, "run", raising(error))
        found, out, err = told(*command)
        assert (found, out) == (status, "") and words in err and err.count("\n") == 1


def raising(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def test_settings_reach_the_search(here: Path, told) -> None:
    (here / "own_loss.py").write_text("def mine(a, b):\n    return (a - b).abs().flatten(1).sum(1)\n")
    images = np.load("images.npy")
    starts = torch.arange(18.0).reshape(3, 6) / 9 - 1
    np.save("starts.npy", starts.numpy())
    for options, settings in (
        (["--weights", "frozen", "--lr-z", "0.1"], {"weights": "frozen", "lr_z": 0.1}),
        (["--loss", "own_loss:mine"], {"loss": "l1"}),
        (["--starts", "starts.npy"], {"starts": starts}),
        (["--starts", "independent", "--shard", "2"], {"starts": "independent"}),
        (["--prior", "uniform", "--seed", "7", "--betas", "0.2,0.9"], dict(prior="uniform", seed=7, betas=(0.2, 0.9))),
    ):  # fmt: skip
        assert told("score", "g.safetensors", "images", "--out", "s", *QUICK, "--overwrite", *options)[0] == 0
        np.testing.assert_allclose(scores_of(here / "s"), expected(images, **settings), rtol=1e-5)


def test_reconstructions_are_kept_where_asked(here: Path, told, monkeypatch) -> None:
    assert told("score", "g.safetensors", "images", "--out", "s", *QUICK, "--keep", "reconstructions")[0] == 0
    kept = jobs.read("s")["reconstructions"].combine_chunks().to_numpy_ndarray()
    want = adgan_fast.search(load_generator("g.safetensors"), np.load("images.npy"), n_seed=2, steps=1).reconstructions
    assert np.array_equal(kept, want.numpy())
    read, columns = parquet.ParquetFile.read_row_group, []
    monkeypatch.setattr(
        parquet.ParquetFile, "read_row_group", lambda *given: (columns.extend(given[2]), read(*given))[1]
    )
    assert told("export", "s", "s.csv")[0] == 0 and "reconstructions" not in (here / "s.csv").read_text()
    assert "score" in columns and "reconstructions" not in columns


def test_generators_of_every_kind(here: Path, told) -> None:
    module = load_generator("g.safetensors")
    torch.export.save(torch.export.export(module, (torch.zeros(2, 6),)), here / "g.pt2")
    (here / "own_generator.py").write_text(
        "import torch\nfrom adgan_fast.training import load_generator\n\nclass Mine(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.inner = load_generator('g.safetensors')\n"
        "    def forward(self, z):\n        return self.inner(z)\n"
    )
    want = expected(np.load("images.npy"))
    for name in ("g.pt2", "own_generator:Mine"):
        status, _, err = told("score", name, "images", "--out", "s", *QUICK, "--overwrite")
        assert status == 0, err
        np.testing.assert_allclose(scores_of(here / "s"), want, rtol=1e-5)


def test_pictures_of_another_shape_need_an_option_which_the_error_names(here: Path, told) -> None:
    for index in range(3):
        write_picture(here / "large" / f"{index}.png", random_bytes(20, 30, 3, seed=index))
    status, out, err = told("score", "g.safetensors", "large", "--out", "s", *QUICK)
    assert status == 2 and out == "" and "(3, 20, 30)" in err and "(1, 8, 8)" in err
    assert "--resize fit, crop or pad and --gray would convert it" in err and not (here / "s").exists()
    seen = []
    for resize in ("fit", "crop", "pad"):
        options = ["--resize", resize, "--gray", "--overwrite"]
        assert told("score", "g.safetensors", "large", "--out", "s", *QUICK, *options)[0] == 0
        seen.append(scores_of(here / "s").tolist())
    assert seen[0] != seen[1] != seen[2] != seen[0]


def test_one_picture_of_another_shape_among_many_is_unreadable(here: Path, told) -> None:
    write_picture(here / "images" / "cat" / "large.png", random_bytes(20, 30))
    status, out, err = told("score", "g.safetensors", "images", "--out", "s", *QUICK)
    assert status == 3 and "7 ok, 1 unreadable" in out and "(1, 20, 30)" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["g.safetensors", "nowhere"], "nowhere: no such file or folder"),
        (["g.safetensors", "images/*.jpg"], "images/*.jpg: holds no image"),
        (["nowhere.safetensors", "images"], "no generator here"),
        (["cut.safetensors", "images"], "damaged, or not a safetensors file"),
        (["pickle.safetensors", "images"], "not a safetensors file"),
        (["cut.pt2", "images"], "cut.pt2"),
        (["g.safetensors", "far.npy"], "floats have to lie in [-1, 1], these span"),
        (["g.safetensors", "whole.npy"], "got an array of int64"),
        (["g.safetensors", "images", "--size", "9"], "--size 9 is (9, 9), but the generator makes images of (8, 8)"),
        (["g.safetensors", "images", "--size", "big"], "--size must be a side like 28"),
        (["g.safetensors", "images", "--color"], "--color makes images of 3 channels, the generator makes 1"),
        (["g.safetensors", "images", "--resize", "squash"], "resize must be one of 'fit', 'crop', 'pad'"),
        (["g.safetensors", "images", "--keep", "all"], "keep must be one of 'reconstructions'"),
        (["g.safetensors", "images", "--column", "x"], "a column is of parquet and .npz files alone"),
        (["g.safetensors", "images", "--n-seed", "0"], "n_seed must be"),
        (["g.safetensors", "images", "--latent-shape", "7"], "be the one that it takes"),
        (["g.safetensors", "images", "--loss", "l3"], "loss must be one of"),
        (["g.safetensors", "images", "--engine", "warp"], "engine must be one of"),
        (["g.safetensors", "images.npy", "--labels"], "no labels in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments: list[str], words: str, here: Path, told) -> None:
    whole = (here / "g.safetensors").read_bytes()
    (here / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (here / "pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    (here / "cut.pt2").write_bytes(b"PK\3\4 cut short")
    np.save("far.npy", np.full((2, 8, 8), 200.0))
    np.save("whole.npy", np.zeros((2, 8, 8), np.int64))
    status, out, err = told("score", *arguments, "--out", "s", "-q")
    assert status == 2 and out == "" and words in err and not (here / "s").exists()
    assert err.splitlines()[-1].startswith("adgan-fast: error: ") and "Traceback" not in err


def test_a_folder_that_cannot_be_written_is_a_failure(here: Path, told) -> None:
    (here / "s" / "job.lock").mkdir(parents=True)
    status, out, err = told("score", "g.safetensors", "images", "--out", "s", *QUICK)
    assert status == 1 and out == "" and "s cannot be written" in err


def test_a_file_in_the_place_of_a_folder_is_a_mistake_and_one_of_job_json_is_damage(here: Path, told) -> None:
    (here / "f").write_text("a file")
    for out in ("f", "f/s"):
        for command in (["score", "g.safetensors", "images"], ["calibrate", "g.safetensors", "images"],
                        ["train", "images"], ["maps", "s"]):  # fmt: skip
            status, _, err = told(*command, "--out", out, "-q")
            assert status == 2 and f"--out {out} is to be a folder, but f is a file" in err
    (here / "s" / "job.json").mkdir(parents=True)
    status, _, err = told("score", "g.safetensors", "images", "--out", "s", *QUICK)
    assert status == 1 and "job.json is damaged: it is a folder. Remove" in err


def test_an_input_that_turns_out_damaged_is_a_failure_and_finished_parts_are_kept(here: Path, told) -> None:
    data = [encoded(image) for image in random_bytes(400, 8, 8)]
    parquet.write_table(pa.table({"image": data}), "a.parquet", row_group_size=100, compression="none")
    whole = bytearray((here / "a.parquet").read_bytes())
    last = parquet.ParquetFile("a.parquet").metadata.row_group(3).column(0)
    start = last.dictionary_page_offset or last.data_page_offset
    whole[start : start + 40] = bytes(40)
    (here / "a.parquet").write_bytes(whole)
    status, out, err = told("score", "g.safetensors", "a.parquet", "--out", "s", *QUICK, "--shard", "8")
    assert status == 1 and out == "" and "a.parquet: damaged" in err and "Traceback" not in err
    assert list(here.glob("s/part-*.parquet"))


def test_an_interrupt_says_how_to_go_on(here: Path, told, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise JobInterrupted("SIGINT ended the job: run it again to go on", signal.SIGINT)

    monkeypatch.setattr(jobs, "run", interrupted)
    status, out, err = told("score", "g.safetensors", "images", "--out", "s", *QUICK)
    assert (status, out) == (130, "") and err == "adgan-fast: error: SIGINT ended the job: run it again to go on\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
@pytest.mark.usefixtures("sigint_heard")
def test_a_real_interrupt_keeps_the_parts_and_the_same_command_goes_on(here: Path, told) -> None:
    np.save("many.npy", random_bytes(60, 8, 8))
    arguments = [
        "score",
        "g.safetensors",
        "many.npy",
        "--out",
        "s",
        "--shard",
        "1",
        "--engine",
        "reference",
        "--n-seed",
        "24",  # long enough not to end before the signal
    ]
    command = [sys.executable, "-m", "adgan_fast", *arguments]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(list(here.glob("s/part-*.parquet"))) < 3:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    kept = len(list(here.glob("s/part-*.parquet")))
    assert child.returncode == 130 and "run it again to go on" in err and "Traceback" not in err and 3 <= kept < 60
    status, out, _ = told(*arguments[:-4], "--n-seed", "24", "--engine", "reference", "--json")
    assert status == 0 and json.loads(out)["resumed_parts"] == kept


def test_progress_is_a_line_where_there_is_no_terminal(here: Path, told) -> None:
    _, out, err = told("score", "g.safetensors", "images", "--out", "s", "--n-seed", "2", "--steps", "1")
    assert "7 of 7 images" in err and "engine 'native'" in err and "\r" not in err and "images/s" in out


def test_check_takes_the_first_images_that_can_be_read(here: Path) -> None:
    (here / "images" / "a.png").write_bytes(b"no picture")
    assert np.array_equal(given.images("images", 2).numpy(), np.load("images.npy")[:2])
    for path in here.glob("images/*/*.png"):
        path.unlink()
    with pytest.raises(given.Mistake, match="images holds no image that can be read, the first: not a picture"):
        given.images("images", 2)


# -- export ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(here: Path, told) -> Path:
    (here / "images" / 'line\nbreak,".png').write_bytes(b"no picture")
    assert told("score", "g.safetensors", "images", "--out", "s", *QUICK, "--labels", "--shard", "3")[0] == 3
    return here / "s"


def test_every_format_holds_the_same_rows(here: Path, told, job: Path) -> None:
    for name in ("s.csv", "s.json", "s.parquet"):
        assert told("export", "s", name) == (0, "", f"8 rows in {name}\n")
    rows = jobs.read("s").to_pylist()
    assert parquet.read_table("s.parquet").to_pylist() == rows
    told_json = json.loads((here / "s.json").read_text())
    with open("s.csv", newline="", encoding="utf-8") as file:
        told_csv = list(csv.DictReader(file))
    assert len(rows) == len(told_json) == len(told_csv) == 8
    for row, of_json, of_csv in zip(rows, told_json, told_csv, strict=True):
        assert row["id"] == of_json["id"] == of_csv["id"] and row["status"] == of_json["status"] == of_csv["status"]
        if row["status"] == "ok":
            assert row["score"] == np.float32(of_json["score"]) == np.float32(of_csv["score"])
        else:
            assert of_json["score"] is None and of_csv["score"] == "" and "damaged" in of_csv["error"]


def test_check_reads_what_a_table_names_where_that_is_said(here: Path, told, monkeypatch) -> None:
    (here / "tables").mkdir()
    parquet.write_table(pa.table({"a": ["../images/cat/0.png"]}), here / "tables" / "a.parquet")
    command = ["check", "g.safetensors", "--engine", "native", "--images", "tables/a.parquet", "--column", "a"]
    status, _, err = told(*command)
    assert status == 2 and "--within DIR" in err
    monkeypatch.setattr(check, "_row", raising(given.Mistake("all were read")))
    assert "all were read" in told(*command, "--within", "images")[2]


def test_texts_that_a_spreadsheet_would_run_are_told_and_quoted_where_asked(here: Path, told, job: Path) -> None:
    (here / "images" / "=HYPERLINK(1).png").write_bytes(b"no picture")
    (here / "images" / "-dog").mkdir()
    write_picture(here / "images" / "-dog" / "x.png", random_bytes(8, 8))
    (here / "images" / "of two\r=1+1.png").write_bytes(b"no picture")
    assert told("score", "g.safetensors", "images", "--out", "s", *QUICK, "--labels", "--overwrite")[0] == 3
    status, _, err = told("export", "s", "s.csv", "-q")
    assert status == 0 and "3 texts begin like a formula" in err and "--spreadsheet" in err
    assert (
        "\n=HYPERLINK(1).png," in (here / "s.csv").read_text() and "\n-dog/x.png,-dog," in (here / "s.csv").read_text()
    )
    assert told("export", "s", "s.csv", "-q", "--spreadsheet") == (0, "", "")
    text = (here / "s.csv").read_text()
    with open(here / "s.csv", newline="") as file:
        assert "of two\r=1+1.png" in [row["id"] for row in csv.DictReader(file)]  # quoted, so one row
    assert "\n'=HYPERLINK(1).png," in text and "\n'-dog/x.png,'-dog," in text and "\ncat/0.png,cat," in text
    status, _, err = told("export", "s", "s.json", "--spreadsheet")
    assert status == 2 and "--spreadsheet is for a .csv" in err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nowhere", "s.csv"], 2, "nowhere holds no job"),
        (["s", "s.xls"], 2, "its suffix has to be one of .csv, .parquet, .json"),
        (["s", "no/s.csv"], 2, "there is no folder no"),
        (["s", "s.csv"], 1, "part-00001.parquet is not there: the job is not finished"),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    arguments: list[str], status: int, words: str, here: Path, told, job: Path
) -> None:
    (here / "s.csv").write_text("older")
    if status == 1:
        (job / "part-00001.parquet").unlink()
    found, out, err = told("export", *arguments)
    assert found == status and out == "" and words in err and err.count("\n") == 1
    assert (here / "s.csv").read_text() == "older" and not list(here.glob(".*.tmp"))


def test_the_runner_of_a_cluster(here: Path, told, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def here_instead(source, gen, out, config, *, address=None, workers=None, **settings):
        given.append((address, workers))
        return jobs.run(gen, source, out, config=config, **settings)

    monkeypatch.setattr("adgan_fast.jobs.ray.score_dataset", here_instead)
    command = ["score", "g.safetensors", "images", "--out", "s", *QUICK, "--runner", "ray"]
    assert told(*command, "--address", "auto", "--workers", "3")[0] == told(*command)[0] == 0
    assert given == [("auto", 3), (None, None)] and len(scores_of(here / "s")) == 7
    for wrong, said in (
        (["--runner", "dask"], "local or ray"),
        (["--workers", "2"], "--workers goes with --runner ray"),
        (["--runner", "ray", "--devices", "cpu,cpu"], "--workers"),
    ):
        status, _, err = told("score", "g.safetensors", "images", "--out", "t", *QUICK, *wrong)
        assert status == 2 and said in err
