"""What adaptive starts save, and what they change: ``python -m bench.studies.adaptive MNIST MODELS OUT [CLASSES]``.

MNIST is the folder of its files, MODELS that of ``bench.paper table1`` (its trained generators, ``MODELS/3/models``),
OUT gets the losses of all starts, searched once, and ``adaptive-mnist.csv``; CLASSES as 3,8. Every rule is then applied
to these losses, as the search applies it: to the starts in their own order, and in random orders (the same one for all
images, as starts are), of which the table has the mean, since one order is one draw.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from adgan_fast import Adaptive, Calibration, Scorer
from adgan_fast.training import load_generator
from bench.paper.sets import PaperSet, open_set, trial

Array = npt.NDArray[Any]

ITEMS, HELD_OUT, N_SEED, LEVEL = 1000, 200, 64, 0.1
ORDERS = 20
FEWER = (8, 16, 21, 32)
CONFIDENCES = (0.95, 0.99)
REAL = 100
"""Test images that are searched by the rule of 0.99, to see that it is the one applied, and what it saves in time."""


def losses_of(images: PaperSet, digit: int, models: Path, out: Path) -> tuple[Array, Array, Array]:
    """Final losses (n, N_SEED) of images to calibrate on and of the test items; and which of these are anomalous."""
    at = trial(images, digit, items=ITEMS, holdout=HELD_OUT, seed=0)
    found = []
    scorer = Scorer(load_generator(models / str(digit) / "models" / "wgan-gp"), n_seed=N_SEED)
    for name, shown in (("calibration", at.holdout.images[~at.holdout.anomalous]), ("test", at.test.images)):
        path = out / f"{digit}-{name}.npy"
        if not path.is_file():
            np.save(path, scorer.search(shown).losses.numpy())
        found.append(np.load(path))
    _really(scorer, at.test.images[:REAL], *found)
    return found[0], found[1], at.test.anomalous


def _really(scorer: Scorer, shown: Array, losses: Array, full: Array) -> None:
    """Search some images with the rule, and say what that took beside all starts."""
    threshold = Calibration(losses.mean(1)).threshold(LEVEL)
    adaptive = Adaptive(threshold=threshold, losses=losses)
    quick = scorer.prepare(shown.shape[1:]).settled_by(adaptive)
    seconds = []
    for each in (scorer, quick):
        began = time.process_time()
        used = each.search(shown).starts_used
        seconds.append(time.process_time() - began)
    assert used is not None and np.array_equal(used, adaptive.rule(N_SEED).starts_used(full[:REAL]))
    print(
        f"{REAL} images: {N_SEED * REAL / int(used.sum()):.2f} times fewer pairs, {seconds[0] / seconds[1]:.2f} times "
        f"less processor time ({seconds[0]:.1f} s, {seconds[1]:.1f} s)",
        flush=True,
    )


def rules(losses: Array) -> Iterator[tuple[str, Adaptive | int]]:
    """By name; a number is for so many starts of every image."""
    calibration = Calibration(losses.mean(1))
    for count in FEWER:
        yield f"{count} starts", count
    for confidence in CONFIDENCES:
        for margins, given in (("conformal", losses), ("Student's", None)):
            threshold = calibration.threshold(LEVEL)
            yield (
                f"threshold, {confidence}, {margins}",
                Adaptive(threshold=threshold, losses=given, confidence=confidence),
            )
            for tolerance in (0.1, 0.2):
                yield (
                    f"p-value ± {tolerance}, {confidence}, {margins}",
                    Adaptive(calibration=calibration, losses=given, confidence=confidence, tolerance=tolerance),
                )


def applied(adaptive: Adaptive | int, losses: Array) -> tuple[Array, Array]:
    """Starts used and scores (N,) by a rule."""
    used = np.full(len(losses), adaptive) if isinstance(adaptive, int) else adaptive.rule(N_SEED).starts_used(losses)
    return used, np.cumsum(losses, axis=1, dtype=np.float64)[np.arange(len(losses)), used - 1] / used


def measured(calibration: Array, test: Array, anomalous: Array) -> Iterator[dict[str, Any]]:
    """A row for each rule: pairs saved, the change of AUC, and decisions that are not those of all starts."""
    random = np.random.default_rng(0)
    orders = [np.arange(N_SEED), *(random.permutation(N_SEED) for _ in range(ORDERS))]
    whole = test.mean(1, dtype=np.float64)
    area, threshold = roc_auc_score(anomalous, whole), Calibration(calibration.mean(1)).threshold(LEVEL)
    found: dict[str, list[tuple[float, ...]]] = {}
    for order in orders:
        for name, adaptive in rules(calibration[:, order]):
            used, scores = applied(adaptive, test[:, order])
            flips = (scores > threshold) != (whole > threshold)
            change = roc_auc_score(anomalous, scores) - area
            row = (N_SEED / used.mean(), change, flips.mean(), flips[~anomalous].mean(), flips[anomalous].mean())
            found.setdefault(name, []).append(row)
    for name, rows in found.items():
        fewer, change, *flips = np.array(rows).T
        yield {
            "rule": name, "auc_of_all": area, "fewer": fewer.mean(), "auc_own_order": change[0],
            "auc_mean": change.mean(), "auc_rms": np.sqrt(np.square(change).mean()),
            **{f"flips{of}": each.mean() for of, each in zip(("", "_normal", "_anomalous"), flips, strict=True)},
        }  # fmt: skip


def main() -> None:
    data, models, out = map(Path, sys.argv[1:4])
    classes = sys.argv[4].split(",") if len(sys.argv) > 4 else "0123456789"
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    images = open_set(data, "mnist")
    rows = []
    for digit in map(int, classes):
        print(f"digit {digit}", flush=True)
        for row in measured(*losses_of(images, digit, models, out)):
            rows.append({"digit": digit} | {k: v if isinstance(v, str) else f"{v:.4f}" for k, v in row.items()})
            print(" | ".join(map(str, rows[-1].values())), flush=True)
    with (out / "adaptive-mnist.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
