"""The whole road on real images: train a WGAN on one digit, score held-out images of all ten, write the outcome.

    adgan-fast demo --out demo-output

The images are scikit-learn's handwritten digits (8 by 8 pixels), which come with it: nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from . import SearchConfig, jobs
from .data import ImageSet, load_digits
from .jobs.sources import Held
from .terminal import any_text
from .training import WGANConfig, save_generator, train

TRAINING = WGANConfig(
    latent=32, width=16, steps=1000, batch_size=32, objective="gp", lr=1e-3, checkpoint_every=0, sample_every=0
)
"""Chosen on the validation images (--held-out validation). The paper's own settings, weight clipping at 5e-5 with
latent 256, are WGANConfig's defaults; they take more steps than a demo has."""


# Shares of each digit: to train on while settings are chosen, to choose them on, to test on.
SHARES = {"fit": 0.5, "validation": 0.2, "test": 0.3}
SPLIT_SEED = 0  # one split, whatever --seed is


def split(labels: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
    """Positions of the images of each part of SHARES, every digit in the same shares; always the same split."""
    random = np.random.Generator(np.random.Philox(SPLIT_SEED))
    bounds = np.cumsum(list(SHARES.values()))[:-1]
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in SHARES}
    for label in np.unique(labels):
        positions = random.permutation(np.flatnonzero(labels == label))
        for name, part in zip(SHARES, np.split(positions, np.rint(bounds * len(positions)).astype(int)), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


def run(digit: int, held_out: str, training: WGANConfig, config: SearchConfig, output: Path) -> None:
    """Train on `digit`, score the images of the part `held_out` of SHARES, write all to the folder `output`."""
    with any_text("backslashreplace"), _log_lines():
        _run(digit, held_out, training, config, output)


def _run(digit: int, held_out: str, training: WGANConfig, config: SearchConfig, output: Path) -> None:
    began = time.perf_counter()
    digits = load_digits()
    parts = split(digits.labels if digits.labels is not None else np.empty(0, np.int64))
    known = parts["fit"] if held_out == "validation" else np.concatenate([parts["fit"], parts["validation"]])
    normal, tested = digits.subset(np.sort(known)).of_class(digit), digits.subset(parts[held_out])
    labels = _labels(tested)
    anomalous = labels != digit
    _say(
        f"[1/4] Images: {len(normal)} of digit {digit} to train on; {len(tested)} held out ({held_out} part), "
        f"{np.sum(~anomalous)} of them normal (digit {digit}), {np.sum(anomalous)} anomalous (the other digits)"
    )

    objective = {"clip": "weight clipping", "gp": "gradient penalty"}[training.objective]
    _say(
        f"[2/4] Training a WGAN ({objective}, latent {training.latent}, width {training.width}): {training.steps} steps"
    )
    start = time.perf_counter()
    with _one_thread():
        generator = train(normal.images, training, progress=True).generator
    save_generator(generator, output / "generator.safetensors")
    _say(f"      {time.perf_counter() - start:.1f} s")

    _say(f"[3/4] Scoring {len(tested)} images: {config.n_seed} starts of {config.steps} steps each")
    source = Held(tested.images, "digits", ids=[str(index) for index in parts[held_out]])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as job:
        result = jobs.run(generator, source, job, config=config, keep=("reconstructions",), progress=True)
        rows = jobs.read(job)
    seconds = time.perf_counter() - start
    _say(f"      {seconds:.1f} s, {len(tested) / seconds:.1f} images/s, engine {result.engine!r}")

    _say(f"[4/4] Writing to {output}")
    scores = rows["score"].to_numpy()
    reconstructions = rows["reconstructions"].combine_chunks().to_numpy_ndarray()
    auc = _write(output, digit, tested, parts[held_out], scores, reconstructions)
    _say(f"      done, {time.perf_counter() - began:.1f} s in all")
    _say(f"AUC {auc:.4f}: digit {digit} against the other nine")
    _say(
        f"mean score {scores[~anomalous].mean():.4f} of normal images, {scores[anomalous].mean():.4f} of anomalous ones"
    )


def _write(
    output: Path,
    digit: int,
    tested: ImageSet,
    index: npt.NDArray[np.int64],
    scores: npt.NDArray[Any],
    reconstructions: npt.NDArray[Any],
) -> float:
    """Scores as CSV and Parquet, the ROC curve and the gallery; returns the AUC."""
    import pyarrow as pa
    from pyarrow import parquet
    from sklearn.metrics import roc_auc_score, roc_curve

    from .report import save_gallery, save_roc

    labels = _labels(tested)
    anomalous = labels != digit
    columns: dict[str, npt.NDArray[Any]] = {"index": index, "label": labels, "anomalous": anomalous, "score": scores}
    with open(output / "scores.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(index, labels, anomalous, scores, strict=True):
            writer.writerow((row[0], row[1], int(row[2]), f"{row[3]:.9g}"))  # nine digits give a float32 back exactly
    with open(output / "scores.parquet", "wb") as binary:  # pyarrow opens no path that is not UTF-8
        parquet.write_table(pa.table(columns), binary)
    auc = float(roc_auc_score(anomalous, scores))
    false_positives, true_positives, _ = roc_curve(anomalous, scores)
    save_roc(output / "roc.png", false_positives, true_positives, auc, f"Digit {digit} against the other nine")
    save_gallery(output / "gallery.png", tested.images, reconstructions, scores, labels=[f"digit {x}" for x in labels])
    return auc


def _labels(images: ImageSet) -> npt.NDArray[np.int64]:
    assert images.labels is not None  # the digits have labels
    return images.labels


def _say(line: str) -> None:
    print(line, flush=True)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and so the numbers do not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _log_lines() -> Iterator[None]:
    """Shows adgan_fast's log, which says which engine was chosen and why."""
    log, handler = logging.getLogger("adgan_fast"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("      %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


if __name__ == "__main__":
    from .cli import main

    sys.exit(main(["demo", *sys.argv[1:]]))
