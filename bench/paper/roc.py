"""Figure 3: ROC curves of table 1's detectors, averaged over the classes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_curve

from .auc import mean_curve
from .figures import Curve, save_curves
from .rows import Store
from .sets import PaperSet, drawn_items, labels_of

SHOWN = ("kde-pca", "ocsvm-pca", "iforest", "gmm-pca", "dcae", "vae", "anogan", "adgan")
"""The detectors of the paper's figure."""


def roc(images: PaperSet, out: Path) -> Path:
    """Writes ``roc-<set>.png`` from the scores of table 1 in ``out``, of those of SHOWN that have run.

    A curve is the mean of the classes', at equal shares of false alarms; only detectors that have run on every class
    that any of them has run on are drawn, since a mean over others would be of other tasks.

    Raises:
        FileNotFoundError: no scores of this set are in ``out``.
        ValueError: no detector has run on all of the classes; or rows of other settings beside each other.
    """
    curves: dict[str, dict[str, Curve]] = defaultdict(dict)
    areas: dict[str, list[float]] = defaultdict(list)
    labels = labels_of(images.test)
    for row, scores in Store(out, images.name).rows():
        shown = labels[drawn_items(images, row.n_test, row.config["seed"])]
        false, true, _ = roc_curve(shown != images.named(row.normal_class), scores)
        curves[row.detector][row.normal_class] = (false, true)
        areas[row.detector].append(row.auc)
    if not curves:
        raise FileNotFoundError(f"{out}: no scores of {images.name}: run table1 first, with the same --out")
    classes = {name for detector in SHOWN for name in curves.get(detector, ())}
    wanted = [name for name in SHOWN if classes and curves.get(name, {}).keys() == classes]
    if not wanted:
        raise ValueError(f"{out}: no detector of {', '.join(SHOWN)} has run on all of the classes that one has run on")
    drawn = {name: (mean_curve(list(curves[name].values())), float(np.mean(areas[name]))) for name in wanted}
    return save_curves(out / f"roc-{images.name}.png", drawn, f"{images.name}: mean of {len(classes)} classes")
