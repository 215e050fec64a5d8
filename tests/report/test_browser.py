"""The page in a browser: what moves, what opens, by mouse and by keyboard, and that nothing complains.

Wants Playwright (``pip install playwright``) and a Chromium (Debian: ``apt-get install chromium``): neither is
installed by ``make test``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adgan_fast import Calibration, SearchConfig, jobs
from adgan_fast.jobs.sources import open_source
from adgan_fast.report.html import write_report
from tests.support import reported

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt-get install chromium"),
]
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as found:
        started = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens the report of a job; in the end nothing may have been logged, nor asked of a network."""
    said: list[str] = []

    def open_(job: Path, width: int = 1440, scheme: str = "light", **options: Any) -> Any:
        path = write_report(job, tmp_path / "report.html", **options).path
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#cells li")
        return page

    yield open_
    assert said == []


def scores_of(job: Path) -> np.ndarray:
    return jobs.read(job)["score"].to_numpy()


def counted(page: Any) -> int:
    return int(page.inner_text("#counts").split()[0].replace(",", ""))


def test_the_slider_moves_the_counts(job: Path, opened: Open) -> None:
    page, scores = opened(job, normal=["good"]), scores_of(job)
    slider, seen = page.locator("#slider"), set()
    for key in ("Home", "ArrowRight", "PageUp", "PageUp", "End"):
        slider.press(key)
        threshold = page.evaluate("Number(document.getElementById('threshold').value)")
        assert counted(page) == (scores > threshold).sum()
        seen.add(counted(page))
    assert len(seen) >= 3 and min(seen) == 0 and max(seen) >= 22
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 100)  # the line stands at the end
    page.mouse.down()
    page.mouse.move(box["x"] + 12, box["y"] + 100, steps=5)
    page.mouse.up()
    assert counted(page) >= 22
    page.fill("#threshold", str(float(np.nanmedian(scores))))
    assert counted(page) == 12 and "12 of 24" in slider.get_attribute("aria-valuetext")
    cells = page.locator("#table tbody tr").all_inner_texts()
    assert [cell.split()[0] for cell in cells] == ["normal", "anomalous"]
    assert sum(int(cell.split()[1]) for cell in cells) == 12


def test_the_gallery_opens_and_goes_on_by_keyboard(job: Path, images: Path, opened: Open) -> None:
    page, rows = opened(job), jobs.read(job).to_pydict()
    order = sorted((row for row in range(25) if rows["score"][row] is not None), key=lambda row: -rows["score"][row])
    names = page.locator("#cells .id").all_inner_texts()
    assert names == [rows["id"][row] for row in order] + ["bad/broken.png"]
    first = page.locator("#cells button").first
    first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible() and page.inner_text("#detail-title") == names[0]
    page.wait_for_timeout(200)
    drawn = page.evaluate("""[...document.querySelectorAll('#detail-panels canvas')].map((canvas) =>
        [canvas.width, [...canvas.getContext('2d').getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 === 0)])""")
    assert len(drawn) == 3 and all(width == 8 for width, _ in drawn)
    with Image.open(images / names[0]) as picture:
        expected = np.asarray(picture).ravel().tolist()
    assert drawn[0][1] == expected and drawn[1][1] != expected
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#detail-title") == names[1]
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("document.activeElement.querySelector('.id').textContent") == names[1]


def test_filters_choose_by_label_status_decision_and_name(job: Path, opened: Open) -> None:
    page = opened(job, normal=["good"])
    page.select_option("#label", label="good")
    assert page.inner_text("#found") == "12 of 25 images"
    page.select_option("#label", "")
    page.select_option("#status", "unreadable")
    assert page.inner_text("#found") == "1 of 25 images"
    assert "not a picture" in page.locator("#cells button").inner_text()
    page.select_option("#status", "")
    page.select_option("#decision", "flagged")
    assert page.inner_text("#found") == f"{counted(page)} of 25 images"
    page.fill("#threshold", "0")
    playwright.expect(page.locator("#found")).to_have_text("24 of 25 images")
    page.select_option("#decision", "")
    page.fill("#name", "GOOD/03")
    assert page.inner_text("#found") == "1 of 25 images"


def test_names_written_to_break_the_page_are_only_text(evil_job: Path, opened: Open) -> None:
    page = opened(evil_job, normal=["good"])
    page.locator("#cells button").first.click()
    assert "</script><script>window.broken" in page.inner_text("#detail-title")
    page.locator("#close").click()
    page.select_option("#label", index=1)
    assert page.inner_text("#found") == "3 of 6 images"
    assert page.evaluate("window.broken") is None


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen_and_text_stands_out(job: Path, opened: Open, width: int, scheme: str) -> None:
    page = opened(job, width, scheme, normal=["good"])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.locator("#cells button").first.click()
    box = page.locator("dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    back, text = page.evaluate("""['backgroundColor', 'color'].map((name) =>
        getComputedStyle(document.body)[name].match(/\\d+/g).map(Number).reduce((a, b) => a + b) / 3)""")
    assert (back > 200 and text < 60) if scheme == "light" else (back < 60 and text > 200)


@pytest.mark.parametrize("width", [390, 1440])
def test_calibration_and_drift_are_told_in_words(images: Path, tmp_path: Path, opened: Open, width: int) -> None:
    decision = jobs.Decision(Calibration(np.linspace(0.5, 1, 40)), 0.1)
    jobs.run(
        reported.generator(), open_source(images, labels=True), tmp_path / "job",
        config=SearchConfig(n_seed=2, steps=1), decision=decision,
    )  # fmt: skip
    page, threshold = opened(tmp_path / "job", width), decision.calibration.threshold(0.1)
    assert page.input_value("#threshold") == f"{threshold:.6g}"
    assert f"those whose score is above {threshold:.6g}: the threshold begins there" in page.inner_text("#calibration")
    page.press("#slider", "Home")  # where the axis begins, though no score is as low
    assert page.input_value("#threshold") == f"{threshold:.6g}" and counted(page) == 24
    text = page.inner_text("#calibration")
    assert "24 of 24 images (100.0 %) are called anomalous; of normal images it would be 10 % at most" in text
    assert (
        "The job's own decision: 24 images are anomalous" in text
        and "Calibrated on 40 images" in text
        and "If these images are normal, there is drift: they do not score as the 40 of the calibration, but higher"
        in text
        and "p = 0.001" in text
    )
    assert page.locator("#calibration .note").count() == 1 and "P-values" in text
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_it_prints_with_pictures_and_without_what_is_for_a_screen(
    job: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text  # cells made at once: fewer than there are
    few = lambda path, **how: read(path, **how).replace("AT_ONCE = 60", "AT_ONCE = 6")  # noqa: E731
    monkeypatch.setattr(Path, "read_text", few)
    page = opened(job, width=390, scheme="dark")
    shown = page.locator("#cells li").count()
    assert shown < 25
    page.emulate_media(media="print")
    assert page.inner_text("#printed").startswith(f"{shown} of these 25 images are printed")
    page.emulate_media(media="screen")
    page.evaluate("document.getElementById('all').click()")  # without scrolling, which shows more by itself
    playwright.expect(page.locator("#cells li")).to_have_count(25)
    assert page.inner_text("#printed") == "" and not page.locator("#all").is_visible()
    page.emulate_media(media="print")
    assert not page.locator(".filters").is_visible() and page.locator("#cells li").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(page.pdf()) > 10_000
