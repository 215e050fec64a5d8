"""The experiments' figures, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adgan_fast.report.figures import new_figure, save_figure

Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
_NORMAL, _ANOMALOUS = "#1f6f8b", "#c8553d"


def save_heat_map(
    path: Path, cells: Mapping[tuple[str, str], float], rows: Sequence[str], columns: Sequence[str]
) -> Path:
    """AUC of each (row, column); a cell that is not there stays empty."""
    values = np.array([[cells.get((row, column), np.nan) for column in columns] for row in rows])
    figure = new_figure(2.2 + 0.55 * len(columns), 0.8 + 0.28 * len(rows))
    axes = figure.add_subplot()
    shown = axes.imshow(values, cmap="RdYlGn", vmin=0.4, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(column, row, f"{value:.3f}"[1:] if value < 1 else "1", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=45 if max(map(len, columns)) > 2 else 0)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("normal class", fontsize=8)
    figure.colorbar(shown, ax=axes, label="AUC")
    return save_figure(figure, path)


def save_curves(path: Path, curves: Mapping[str, tuple[Curve, float]], title: str) -> Path:
    """ROC curves (false and true positive rates, with an AUC each) by detector."""
    figure = new_figure(5.4, 4.8)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle="--")
    for name, ((false, true), area) in sorted(curves.items(), key=lambda item: -item[1][1]):
        bold = name == "adgan"
        axes.plot(
            false, true, linewidth=2.4 if bold else 1.2, color="black" if bold else None, label=f"{name} {area:.3f}"
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="normal images flagged", ylabel="anomalous images flagged")
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="lower right", frameon=False, fontsize=7)
    return save_figure(figure, path)


def save_paths(
    path: Path, paths: Mapping[str, npt.NDArray[np.float64]], pictures: Mapping[str, Any], title: str
) -> Path:
    """Searches in a latent plane (the paper's figure 2).

    Args:
        path: of the PNG.
        paths: "normal" and "anomalous", latents (S, k + 1, 2) from start to end.
        pictures: of the same names, (image, best reconstruction), each (H, W) or (H, W, 3) in [0, 1].
        title: above.
    """
    figure = new_figure(8.2, 4.6)
    left, right = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    axes = left.add_subplot()
    for radius in (1, 2, 3):  # of the prior
        circle = np.linspace(0, 2 * np.pi, 200)
        axes.plot(radius * np.cos(circle), radius * np.sin(circle), color="0.85", linewidth=1)
    for name, color in (("normal", _NORMAL), ("anomalous", _ANOMALOUS)):
        for index, each in enumerate(paths[name]):
            axes.plot(each[:, 0], each[:, 1], color=color, linewidth=0.8, alpha=0.7, label=name if index == 0 else None)
            axes.plot(each[0, 0], each[0, 1], "o", color=color, markersize=2.5, markerfacecolor="white")
            axes.plot(each[-1, 0], each[-1, 1], "o", color=color, markersize=3.5)
    axes.set_aspect("equal")
    axes.set(xlabel="z₁", ylabel="z₂")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    grid = right.subplots(2, 2)
    for row, name in enumerate(("normal", "anomalous")):
        for column, (picture, what) in enumerate(zip(pictures[name], ("image", "best reconstruction"), strict=True)):
            grid[row, column].imshow(picture, cmap="gray", vmin=0, vmax=1)
            grid[row, column].set_xticks([])
            grid[row, column].set_yticks([])
            grid[row, column].set_title(f"{name}: {what}", fontsize=7)
    return save_figure(figure, path)


def save_ablation(path: Path, panels: Mapping[str, list[dict[str, Any]]]) -> Path:
    """AUC, and seconds an image, against each setting: a panel each, a line for each class."""
    names = list(panels)
    figure = new_figure(3.1 * min(4, len(names)), 2.6 * -(-len(names) // 4))
    grid = np.atleast_1d(figure.subplots(-(-len(names) // 4), min(4, len(names)), squeeze=False)).ravel()
    for axes, name in zip(grid, names, strict=False):
        rows = panels[name]
        values = list(dict.fromkeys(row["value"] for row in rows))
        for label in dict.fromkeys(row["normal_class"] for row in rows):
            of_class = {row["value"]: row["auc"] for row in rows if row["normal_class"] == label}
            axes.plot(range(len(values)), [of_class.get(v, np.nan) for v in values], "o-", markersize=3, label=label)
        axes.set_xticks(range(len(values)), [str(value) for value in values], fontsize=6, rotation=30)
        axes.tick_params(axis="y", labelsize=6)
        axes.set_title(name, fontsize=8)
        axes.set_ylabel("AUC", fontsize=7)
        cost = axes.twinx()
        seconds = [np.mean([row["seconds_per_image"] for row in rows if row["value"] == value]) for value in values]
        cost.plot(range(len(values)), seconds, color="0.6", linewidth=1, linestyle=":")
        cost.set_ylabel("s an image", fontsize=6, color="0.5")
        cost.tick_params(axis="y", labelsize=6, colors="0.5")
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    grid[0].legend(fontsize=6, frameon=False)
    return save_figure(figure, path)


def save_lengths(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """AUC on the holdout against steps of training: a panel for each class, a line for each training."""
    classes = list(dict.fromkeys(row["normal_class"] for row in rows))
    trainings = list(dict.fromkeys(row["training"] for row in rows))
    figure = new_figure(4.0 * len(classes), 3.2)
    for axes, label in zip(figure.subplots(1, len(classes), squeeze=False)[0], classes, strict=True):
        for number, training in enumerate(trainings):
            own = [row for row in rows if row["normal_class"] == label and row["training"] == training]
            if own:
                steps, areas = [row["step"] for row in own], [row["auc"] for row in own]
                axes.plot(steps, areas, "o-", markersize=2.5, linewidth=1, color=f"C{number % 10}", label=training)
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("generator steps", fontsize=7)
        axes.set_ylabel("AUC on the holdout", fontsize=7)
        axes.tick_params(labelsize=6)
        axes.legend(fontsize=6, frameon=False)
    return save_figure(figure, path)
