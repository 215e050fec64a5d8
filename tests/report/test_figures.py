"""The curve and the gallery."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from adgan_fast.report import figures, save_gallery, save_roc

pytest.importorskip("matplotlib", reason="the demo's extra is not installed: pip install 'adgan-fast[demo]'")
pytest.importorskip("sklearn", reason="the demo's extra is not installed: pip install 'adgan-fast[demo]'")


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved from now on, still open."""
    found: list[Figure] = []
    real = figures.save_figure
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: (found.append(figure), real(figure, path))[1])
    return found


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_roc_curve_shows_the_points_and_the_area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = drawn(monkeypatch)
    path = save_roc(tmp_path / "roc.png", [0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0], 0.875, "A title")
    assert path == tmp_path / "roc.png"
    assert pixels(path).std() > 0
    (axes,) = found[0].axes
    assert axes.lines[1].get_xydata().tolist() == [[0, 0], [0, 0.5], [0.5, 1], [1, 1]]
    assert axes.get_title() == "A title"
    assert "AUC 0.8750" in [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gallery_shows_the_extremes_with_their_residuals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (6, channels, 8, 8)).astype(np.float32)
    reconstructions = random.uniform(-1, 1, images.shape).astype(np.float32)
    scores = np.array([3.0, np.nan, 1.0, 5.0, 2.0, 4.0])
    found = drawn(monkeypatch)
    save_gallery(tmp_path / "g.png", images, reconstructions, scores, labels="abcdef", count=2)
    axes = np.array(found[0].axes).reshape(2, 3, 2)
    titles = [[cell.get_title() for cell in block[0]] for block in axes]
    assert titles == [["c\n1", "e\n2"], ["d\n5", "f\n4"]]
    for block, which in zip(axes, ([2, 4], [3, 5]), strict=True):
        for column, index in enumerate(which):
            image, reconstruction, residual = (cell.images[0].get_array() for cell in block[:, column])
            expected = (images[index].transpose(1, 2, 0) + 1) / 2
            assert np.allclose(np.asarray(image).reshape(expected.shape), expected)
            expected = (reconstructions[index].transpose(1, 2, 0) + 1) / 2
            assert np.allclose(np.asarray(reconstruction).reshape(expected.shape), expected)
            assert np.allclose(residual, np.abs(images[index] - reconstructions[index]).mean(0))
    scales = {cell.images[0].get_clim() for cell in axes[:, 2].flat}
    assert len(scales) == 1
    assert pixels(tmp_path / "g.png").std() > 0


def test_the_gallery_of_fewer_images_than_asked_for_shows_those(tmp_path: Path, monkeypatch) -> None:
    found = drawn(monkeypatch)
    images = np.zeros((2, 1, 8, 8))
    save_gallery(tmp_path / "g.png", images, images, np.array([2.0, 1.0]))
    assert len(found[0].axes) == 2 * 3 * 2
    assert [axes.get_title() for axes in found[0].axes[:2]] == ["#1\n1", "#0\n2"]


def test_the_gallery_says_what_it_cannot_draw(tmp_path: Path) -> None:
    images, scores = np.zeros((3, 1, 8, 8)), np.arange(3.0)
    for arguments, message in [
        ((images[:, 0], images[:, 0], scores), r"\(3, 8, 8\)"),
        ((images, images[:2], scores), r"\(2, 1, 8, 8\)"),
        ((images, images, scores[:2]), "one score"),
        ((images, images, np.full(3, np.nan)), "no image has a finite score"),
    ]:
        with pytest.raises(ValueError, match=message):
            save_gallery(tmp_path / "g.png", *arguments)
    with pytest.raises(ValueError, match="count must be at least 1"):
        save_gallery(tmp_path / "g.png", images, images, scores, count=0)
    assert not list(tmp_path.iterdir())


def test_pictures_are_drawn_without_pyplot(tmp_path: Path) -> None:
    had, settings = "matplotlib.pyplot" in sys.modules, matplotlib.rcParams.copy()
    save_roc(tmp_path / "roc.png", [0, 1], [0, 1], 0.5, "")
    assert ("matplotlib.pyplot" in sys.modules) == had
    assert matplotlib.rcParams.copy() == settings
