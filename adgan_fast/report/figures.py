"""The ROC curve and the gallery of most and least anomalous images, as PNG files.

Figures are built without pyplot: no window, no backend to choose, nothing kept between calls.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import files

log = logging.getLogger("adgan_fast")


@contextlib.contextmanager
def _any_backend() -> Iterator[None]:
    """Lets matplotlib be imported whatever MPLBACKEND says: a wrong name stops the import, though none is needed here.

    A right one holds for the rest of the program, as it would have.
    """
    wanted = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if wanted:
        import matplotlib

        try:
            matplotlib.rcParams["backend"] = wanted
        except ValueError:
            log.warning("MPLBACKEND=%r is no backend of matplotlib; the figures here need none", wanted)


with _any_backend():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure, SubFigure

Array = npt.NDArray[Any]
ROWS = ("image", "best\nreconstruction", "residual")


def save_roc(
    path: str | os.PathLike[str], false_positives: npt.ArrayLike, true_positives: npt.ArrayLike, auc: float, title: str
) -> Path:
    """Writes the ROC curve.

    Args:
        path: of the PNG.
        false_positives, true_positives: rates in [0, 1] over falling thresholds, as sklearn.metrics.roc_curve gives.
        auc: area under the curve, for the legend.
        title: above the plot.
    """
    figure = new_figure(4.6, 4.4)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--", label="chance")
    axes.plot(false_positives, true_positives, color="#1f6f8b", linewidth=2, label=f"AUC {auc:.4f}")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="normal images flagged", ylabel="anomalous images flagged")
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="lower right", frameon=False)
    return save_figure(figure, path)


def save_gallery(
    path: str | os.PathLike[str],
    images: npt.ArrayLike,
    reconstructions: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    labels: Sequence[object] | None = None,
    count: int = 8,
) -> Path:
    """Writes the `count` least and `count` most anomalous images: image, best reconstruction, residual.

    The residual is the absolute difference, averaged over channels, on one scale for the whole picture. Images whose
    score is not finite are left out; where fewer than `count` remain, those are shown.

    Args:
        path: of the PNG.
        images, reconstructions: (N, C, H, W) in [-1, 1], C = 1 or 3.
        scores: (N,)
        labels: N names shown above the images, with the scores; the index in `images` when None.
        count: images in a row, at least 1.

    Raises:
        ValueError: shapes that do not fit each other, or no image with a finite score.
    """
    images, reconstructions, scores = np.asarray(images), np.asarray(reconstructions), np.asarray(scores)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape != reconstructions.shape:
        shapes = f"{images.shape} and {reconstructions.shape}"
        raise ValueError(f"images and reconstructions must both be (N, 1 or 3, H, W), got {shapes}")
    if scores.shape != images.shape[:1] or (labels is not None and len(labels) != len(images)):
        raise ValueError(f"there must be one score (and one label) for each of {len(images)} images")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    order = np.argsort(scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    if not len(order):
        raise ValueError("no image has a finite score")
    shown = (order[:count], order[::-1][:count])
    residuals = np.abs(images - reconstructions).mean(1)
    scale = max(float(residuals[np.concatenate(shown)].max()), 1e-6)

    names = [f"#{index}" for index in range(len(images))] if labels is None else list(map(str, labels))
    columns = len(shown[0])
    figure = new_figure(0.9 + 0.95 * columns, 7.0)
    blocks = np.array(figure.subfigures(2, 1), dtype=object)
    for block, which, title in zip(blocks, shown, ("Least anomalous", "Most anomalous"), strict=True):
        block.suptitle(title, fontsize=11, fontweight="bold")
        cells = (_shown(images[which]), _shown(reconstructions[which]), residuals[which])
        _block(block, cells, [f"{names[index]}\n{scores[index]:.4g}" for index in which], scale)
    return save_figure(figure, path)


def _block(block: SubFigure, cells: Sequence[Array], titles: Sequence[str], scale: float) -> None:
    grid = block.subplots(len(ROWS), len(titles), squeeze=False)
    for row, (name, pictures) in enumerate(zip(ROWS, cells, strict=True)):
        for column, picture in enumerate(pictures):
            axes = grid[row, column]
            if name == "residual":
                axes.imshow(picture, cmap="magma", vmin=0, vmax=scale)
            else:
                axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(titles[column], fontsize=8)
        grid[row, 0].set_ylabel(name, fontsize=8)


def _shown(images: Array) -> Array:
    """(N, C, H, W) in [-1, 1] to what imshow takes: (N, H, W) or (N, H, W, 3) in [0, 1]."""
    unit = (np.clip(images, -1, 1) + 1) / 2
    return unit[:, 0] if images.shape[1] == 1 else unit.transpose(0, 2, 3, 1)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, to be written by `save_figure`."""
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes the figure as a PNG, whole or not at all."""
    path, png = Path(path), io.BytesIO()
    figure.savefig(png, format="png")
    files.replace(path, png.getvalue())
    return path
