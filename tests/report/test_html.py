"""The page of a job: what it holds, what it needs, and that no name breaks it. In a browser: test_browser.py."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adgan_fast import jobs
from adgan_fast.jobs import parts
from adgan_fast.jobs.finished import Finished
from adgan_fast.report import overlays, pictures
from adgan_fast.report.charts import histogram
from adgan_fast.report.html import write_report
from adgan_fast.report.sheets import sheet, shown, thumbnails
from tests.support import reported

pytestmark = pytest.mark.usefixtures("one_thread")


class Page(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, str] = {}
        self.text, self._inside = "", ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = (dict(attrs).get("id") or tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside] = self.raw.get(self._inside, "") + data
        else:
            self.text += data

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.found if tag == name]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.raw["data"])

    def scores(self) -> dict[str, np.ndarray]:
        return {name: np.frombuffer(base64.b64decode(text), "<f4") for name, text in self.data["scores"]}

    def picture(self, panel: str, place: int) -> np.ndarray:
        """A cell of a sheet."""
        uri = self.raw[f"sheet-{panel}-{place // pictures.CELLS}"]
        (width, height), at = self.data["cell"], place % pictures.CELLS
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as found:
            x, y = width * (at % pictures.COLUMNS), height * (at // pictures.COLUMNS)
            return np.asarray(found)[y : y + height, x : x + width]


def page_of(job: Path, tmp_path: Path, **options: Any) -> Page:
    made = write_report(job, tmp_path / "report.html", **options)
    assert made.bytes == made.path.stat().st_size
    return Page(made.path)


def test_every_score_is_in_it_and_every_image_with_its_numbers(job: Path, tmp_path: Path) -> None:
    page, rows = page_of(job, tmp_path, normal=["good"]), jobs.read(job).to_pydict()
    scores = np.array(rows["score"], np.float32)
    labels = np.array(rows["label"])
    for name, label in (("normal", "good"), ("anomalous", "bad")):
        mine = np.sort(scores[(labels == label) & np.isfinite(scores)])
        assert np.array_equal(page.scores()[name], mine)
    shown_rows = page.data["rows"]
    assert [row[0] for row in shown_rows] == list(range(25))
    for row in shown_rows:
        at = row[0]
        assert row[1:5] == [rows["id"][at], rows["label"][at], rows["status"][at], rows["score"][at]]
        assert row[5:8] == [rows[name][at] for name in ("score_std", "score_min", "initial_loss")]
        assert (row[11] is None) == (rows["status"][at] != "ok")
    assert "25 images, 24 of them scored, 1 unreadable" in page.text


def test_the_pictures_are_those_of_their_rows(job: Path, images: Path, tmp_path: Path) -> None:
    page, rows = page_of(job, tmp_path), jobs.read(job)
    made = rows["reconstructions"].combine_chunks().to_numpy_ndarray()
    assert page.data["panels"] == ["image", "reconstruction", "overlay"]
    for row in page.data["rows"]:
        if row[3] == "ok":
            with Image.open(images / row[1]) as image:
                assert np.array_equal(page.picture("image", row[11]), np.asarray(image))
            assert np.array_equal(page.picture("reconstruction", row[11]), shown(made[row[0]][None])[0, 0])
    found = Finished(job)
    rows = [row[0] for row in page.data["rows"] if row[3] == "ok"]
    given, made = np.stack(found.images(rows)), found.reconstructions(rows)
    residuals = np.square(given - made).sum(1)
    for place, expected in enumerate(overlays(given, residuals, scale=float(residuals.max()))):
        assert np.abs(page.picture("overlay", place).astype(int) - expected).max() <= 1
    assert f"a residual of {residuals.max():.3g} is drawn at full colour" in page.text


def test_it_needs_nothing_else_and_runs_nothing_else(job: Path, tmp_path: Path) -> None:
    page = page_of(job, tmp_path, normal=["good"])
    for _, attrs in page.found:
        assert not {"src", "srcset", "style", "action", "formaction"} & attrs.keys()
        assert not any(name.startswith("on") for name in attrs)
        assert (attrs.get("href") or "#").startswith(("#", "data:"))
    (policy,) = (meta["content"] for meta in page.tags("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.raw[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and not re.search(r"\beval\(|innerHTML|http", page.raw["script"])
    assert "http" not in page.source.replace("http-equiv", "")


def test_no_name_breaks_the_page(evil_job: Path, tmp_path: Path) -> None:
    page = page_of(evil_job, tmp_path, normal=["good"])
    assert [row[1] for row in page.data["rows"]] == [f"{reported.EVIL_ID}{row}" for row in range(6)]
    assert json.loads(page.raw["labels"]) == sorted(["good", reported.EVIL_LABEL])
    kinds = [attrs.get("type") for attrs in page.tags("script")]
    assert kinds == ["application/json"] * 2 + ["text/plain"] + [None]  # data, labels, one sheet, and the page's own
    assert page.tags("img") == [] and page.tags("b") == []
    assert reported.EVIL_LABEL in page.text and reported.Evil.name in page.text


def test_where_the_images_are_gone_or_others_it_says_so_and_does_without(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copied = tmp_path / "images"
    shutil.copytree(images, copied)
    job = reported.scored(copied, tmp_path / "job")
    shutil.copy(copied / "good/00.png", copied / "good/01.png")
    page = page_of(job, tmp_path)
    assert page.data["panels"] == ["reconstruction"] and "its images are not those of the job" in page.text
    assert "the gallery is without the images themselves" in caplog.text
    shutil.rmtree(copied)
    page = page_of(job, tmp_path)
    assert page.data["panels"] == ["reconstruction"] and "no such file or folder" in page.text


def test_without_reconstructions_labels_or_pictures_it_tells_how_to_have_them(images: Path, tmp_path: Path) -> None:
    page = page_of(reported.scored(images, tmp_path / "job", keep=()), tmp_path)
    assert page.data["panels"] == ["image"] and "--keep reconstructions" in page.text and "--normal LABEL" in page.text
    page = page_of(tmp_path / "job", tmp_path, images=0)
    assert page.data["panels"] == [] and len(page.data["rows"]) == 1 and len(page.scores()["all"]) == 24


def test_curves_and_thresholds_are_there_where_normal_labels_are_given(job: Path, tmp_path: Path) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rows = jobs.read(job).to_pydict()
    ok = [row for row, score in enumerate(rows["score"]) if score is not None]
    anomalous, scores = [rows["label"][row] == "bad" for row in ok], [rows["score"][row] for row in ok]
    page = page_of(job, tmp_path, normal=["good"])
    assert f"{roc_auc_score(anomalous, scores):.4f} (" in page.text
    assert f"{average_precision_score(anomalous, scores):.4f} (" in page.text
    assert "Thresholds by the normal images" in page.text
    page = page_of(job, tmp_path, normal=["good", "bad"])
    assert "of both kinds, normal and anomalous, are needed" in page.text
    with pytest.raises(ValueError, match="no image has the label 'fine'; labels are 'bad', 'good'"):
        write_report(job, tmp_path / "report.html", normal=["fine"])


def test_a_job_with_a_calibration_shows_p_values_and_begins_at_its_decisions(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, cut = parts.table_of, 50

    def calibrated(*given: Any) -> Any:
        table = real(*given)
        if "score" not in table.column_names:
            return table
        scores = table["score"].to_numpy()
        ok = np.isfinite(scores)
        import pyarrow as pa

        table = table.append_column("p_value", pa.array(np.where(ok, 0.25, np.nan), mask=~ok))
        return table.append_column("anomalous", pa.array(scores > np.float32(cut), mask=~ok))

    monkeypatch.setattr(parts, "table_of", calibrated)
    page, scores = page_of(job, tmp_path), jobs.read(job)["score"].to_numpy()
    assert "P-values of the job's calibration" in page.text and "The job's own decision" in page.text
    assert {row[8] for row in page.data["rows"]} == {0.25, None}
    passed = scores[scores <= 50]
    assert page.data["threshold"] == passed.max()
    cut = -1  # all are flagged
    least = float(np.nanmin(scores))
    assert least - 1e-9 < page_of(job, tmp_path).data["threshold"] < least


def test_provenance_is_that_of_the_job(job: Path, tmp_path: Path) -> None:
    page, about = page_of(job, tmp_path), json.loads((job / "job.json").read_text())
    for value in (about["generator"]["sha256"], about["manifest"]["sha256"], about["engine"], "lr_weights"):
        assert value in page.text
    made = [parts.made_in(path) for path in sorted(job.glob("part-*"))]
    assert len(made) == 3 and all(each["seconds"]["search"] > 0 for each in made)
    total = sum(sum(each["seconds"].values()) for each in made)
    assert f"{25 / total:.3g}, by these seconds" in page.text and made[0]["versions"]["torch"] in page.text


def test_the_gallery_of_a_few_has_the_most_anomalous_and_some_of_the_rest(job: Path, tmp_path: Path) -> None:
    page = page_of(job, tmp_path, images=6)
    found = {row[0] for row in page.data["rows"] if row[3] == "ok"}
    scores = jobs.read(job)["score"].to_numpy()
    order = sorted(np.flatnonzero(np.isfinite(scores)), key=lambda row: -scores[row])
    assert len(found) == 6 and set(order[:3]) <= found and order[-1] in found
    assert sum(map(len, page.scores().values())) == 24 and "7 of 25 images are here" in page.text


def test_the_pictures_stay_below_their_budget(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_report(job, tmp_path / "whole.html")
    monkeypatch.setattr(pictures, "BUDGET", 5000)
    made = write_report(job, tmp_path / "report.html")
    assert 1 < made.shown < whole.shown and made.rows == 25


@pytest.mark.parametrize("readable", [False, None])
def test_a_job_of_nothing_and_one_of_nothing_readable_have_a_page(readable: bool | None, tmp_path: Path) -> None:
    class Nothing(reported.Evil):
        def items(self) -> Iterator[jobs.Item]:
            return iter(()) if readable is None else super().items()

        def read(self, first: int, stop: int) -> Iterator[Any]:
            return (jobs.Unreadable("<b>broken") for _ in range(first, stop))

    jobs.run(reported.generator(), Nothing(), tmp_path / "job", keep=("reconstructions",))
    page = page_of(tmp_path / "job", tmp_path)
    assert [row[10] for row in page.data["rows"]] == ([] if readable is None else ["<b>broken"] * 6)
    assert page.scores()["all"].size == 0 and page.data["panels"] == []


def test_pictures_of_any_number_of_channels_and_size_are_made_small_enough_to_look_at() -> None:
    random = np.random.default_rng(0)
    many = random.uniform(-1, 1, (3, 5, 50, 100)).astype(np.float32)
    assert shown(many).shape == (3, 1, 50, 100)
    assert thumbnails(shown(many), 40).shape == (3, 1, 20, 40)
    plain = np.full((2, 3, 64, 64), 77, np.uint8)
    assert (thumbnails(plain, 16) == 77).all()
    assert sheet(thumbnails(plain, 16)).startswith("data:image/png") and sheet(plain).startswith("data:image/jpeg")


def test_one_score_far_out_does_not_press_the_others_into_one_bar() -> None:
    scores = np.append(np.random.default_rng(0).normal(10, 1, 2000), 1e6)
    found = histogram({"all": scores}, "score")
    assert found.high < 20 and found.beyond >= 1
    assert histogram({"all": np.ones(5)}, "score").beyond == 0
    assert histogram({"all": np.array([-0.0, 1])}, "score").chart.x_ticks[0] == "0"
    assert histogram({"all": np.empty(0)}, "score").chart.series[0].name == "all (0)"
