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

    A curve is the mean of the classes', at equal shares of false alarms; only detectors that have run on all classes
    that any has are drawn, since a mean over fewer would be of other tasks.

    Raises:
        FileNotFoundError: no scores of this set are in ``out``.
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
    most = max(len(of_classes) for of_classes in curves.values())
    wanted = [name for name in SHOWN if len(curves.get(name, ())) == most]
    drawn = {name: (mean_curve(list(curves[name].values())), float(np.mean(areas[name]))) for name in wanted}
    return save_curves(out / f"roc-{images.name}.png", drawn, f"{images.name}: mean of {most} classes")
