"""``adgan-fast report``, ``maps`` and ``compare``."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adgan_fast import jobs
from adgan_fast.jobs.finished import Finished
from adgan_fast.jobs.sources import Shaping, open_source
from adgan_fast.report import overlays
from tests.support import reported

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/, and jobs over them: a/, b/ of another generator, plain/ without reconstructions."""
    folder = tmp_path_factory.mktemp("scored")
    images = reported.pictures(folder / "images")
    reported.scored(images, folder / "a")
    reported.scored(images, folder / "b", seed=3, keep=())
    return folder


def test_report_writes_a_page_and_says_how_large_it_is(scored: Path, tmp_path: Path, told) -> None:
    page = tmp_path / "page.html"
    status, out, err = told("report", str(scored / "a"), "--out", str(page), "--normal", "good", "--sigma", "1")
    assert (status, out) == (0, "") and f"25 images, 25 of them in the gallery; 0.0 MB in {page}" in err
    assert "AUC" in page.read_text() and told("report", str(scored / "a"), "--out", str(page), "-q")[2] == ""


def test_mistakes_of_report_maps_and_compare_end_in_one_line(scored: Path, tmp_path: Path, told, monkeypatch) -> None:
    a, page = str(scored / "a"), str(tmp_path / "page.html")
    cases = [
        (2, "holds no job", "report", str(tmp_path), "--out", page),
        (2, "there is no folder", "report", a, "--out", str(tmp_path / "no" / "page.html")),
        (2, "no image has the label 'x'", "report", a, "--out", page, "--normal", "x"),
        (2, "sigma must be", "report", a, "--out", page, "--sigma", "-1"),
        (
            2,
            "score with keep=['reconstructions'] (--keep reconstructions)",
            "maps",
            str(scored / "b"),
            "--out",
            str(tmp_path / "maps"),
        ),
        (2, "scale must be a positive", "maps", a, "--out", str(tmp_path / "maps"), "--scale", "0"),
        (2, "holds no job", "compare", a, str(tmp_path)),
        (2, "flagged must be", "compare", a, a, "--flagged", "2"),
    ]
    for expected, message, *arguments in cases:
        status, out, err = told(*arguments)
        assert (status, out) == (expected, "") and message in err and err.count("\n") == 1, arguments
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "this needs jinja2, matplotlib, scipy: pip install 'adgan-fast[report]'" in told("report", a)[2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_maps_draws_an_overlay_for_each_image_of_any_channels(channels: int, tmp_path: Path, told) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, channels, 8, 8), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    generator = reported.generator(0, channels)
    source = open_source(tmp_path / "images.npz", Shaping(expected=(channels, 8, 8)))
    jobs.run(
        generator, source, tmp_path / "job", config=reported.SearchConfig(n_seed=2, steps=1), keep=["reconstructions"]
    )
    status, _, err = told("maps", str(tmp_path / "job"), "--out", str(tmp_path / "maps"), "--most", "3")
    rows = list(csv.DictReader((tmp_path / "maps/maps.csv").open()))
    scores, found = jobs.read(tmp_path / "job")["score"].to_numpy(), Finished(tmp_path / "job")
    assert status == 0 and [int(row["id"]) for row in rows] == sorted(np.argsort(-scores)[:3])
    given, made = torch.from_numpy(images).float() / 127.5 - 1, torch.from_numpy(found.reconstructions(range(5)))
    maps = (given - made).square().sum(1).double().numpy()
    scale = max(maps[int(row["id"])].max() for row in rows)
    assert f"3 pictures in {tmp_path / 'maps'}, {scale:.4g} at full colour" in err
    for row in rows:
        index = int(row["id"])
        with Image.open(tmp_path / "maps" / row["file"]) as picture:
            expected = overlays(given[index][None].numpy(), maps[index][None], scale=scale)[0]
            assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 1
        assert float(row["largest"]) == pytest.approx(maps[index].max(), rel=1e-6)


def test_names_of_maps_are_files_of_the_folder_whatever_ids_are() -> None:
    from adgan_fast.report.map_files import _safe

    assert _safe("cat/0.png") == "cat_0"
    for name in ("../../a.png", "/a/b.png", reported.EVIL_ID, "\0", "ä" * 300, "...", ""):
        safe = _safe(name)
        assert safe and safe.isascii() and len(safe) <= 80 and not {"/", "\\", "\0", "\n"} & set(safe)
        assert not safe.startswith(".")


def test_maps_fails_where_the_images_are_gone(tmp_path: Path, told) -> None:
    job = reported.evil(tmp_path / "job")
    status, _, err = told("maps", str(job), "--out", str(tmp_path / "maps"))
    assert status == 1 and "the images of the job cannot be read" in err and err.count("\n") == 1


def test_compare_prints_what_changed(scored: Path, told) -> None:
    status, out, err = told("compare", str(scored / "a"), str(scored / "b"), "--normal", "good", "--most", "2")
    assert (status, err) == (0, "")
    for said in (
        "24 images scored in both",
        "generator.sha256",
        "rank correlation (Spearman)",
        "AUC A",
        "changed most",
    ):
        assert said in out
    found = json.loads(told("compare", str(scored / "a"), str(scored / "b"), "--normal", "good", "--json")[1])
    assert found["images"] == 24 and sum(found["decisions"].values()) == 24 and len(found["moved"]) == 10
    assert found["differences"][0].keys() == {"name", "a", "b"} and found["auc"][0].keys() == {"value", "low", "high"}
    assert len(found["flips"]) == found["decisions"]["a"] + found["decisions"]["b"]
    assert "nothing differs in what decides the rows" in told("compare", str(scored / "a"), str(scored / "a"))[1]


def test_compare_prints_ids_on_one_line_whatever_they_are(tmp_path: Path, told) -> None:
    job = str(reported.evil(tmp_path / "job"))
    out = told("compare", job, job, "--most", "1")[1]
    (line,) = (line for line in out.splitlines() if "</script>" in line)
    assert "window.broken" in line
