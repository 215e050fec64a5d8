"""The whole road on real images: train a WGAN on one digit, score held-out images of all ten, write the outcome.

    python -m adgan_fast.demo --output demo-output

The images are scikit-learn's handwritten digits (8 by 8 pixels), which come with it: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import importlib.util
import io
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from . import SearchConfig, SearchResult, engines, search
from .data import ImageSet, load_digits
from .training import TrainingDiverged, WGANConfig, save_generator, train

TRAINING = WGANConfig(
    latent=32, width=16, steps=1000, batch_size=32, objective="gp", lr=1e-3, checkpoint_every=0, sample_every=0
)
"""Chosen on the validation images (--held-out validation). The paper's own settings, weight clipping at 5e-5 with
latent 256, are WGANConfig's defaults; they take more steps than a demo has."""


# Shares of each digit: to train on while settings are chosen, to choose them on, to test on.
SHARES = {"fit": 0.5, "validation": 0.2, "test": 0.3}
SPLIT_SEED = 0  # one split, whatever --seed is


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    with _any_terminal():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    missing = [name for name in ("matplotlib", "pyarrow", "sklearn") if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"the demo needs {', '.join(missing)}: pip install 'adgan-fast[demo]'")
    unavailable = {engine.name: engine.why_not for engine in engines() if not engine.available}
    if args.engine in unavailable:
        parser.error(f"engine {args.engine!r} cannot run here: {unavailable[args.engine]}")
    try:
        training = dataclasses.replace(TRAINING, steps=args.steps, seed=args.seed)
        config = SearchConfig(n_seed=args.n_seed, seed=args.seed, engine=args.engine, progress=True)
        args.output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    try:
        with _log_lines():
            _run(args.digit, args.held_out, training, config, args.output)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except (TrainingDiverged, MemoryError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


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
    start = time.perf_counter()
    result = search(generator, tested.images, config=config)
    seconds = time.perf_counter() - start
    _say(f"      {seconds:.1f} s, {len(tested) / seconds:.1f} images/s, engine {result.engine!r}")

    _say(f"[4/4] Writing to {output}")
    auc = _write(output, digit, tested, parts[held_out], result)
    _say(f"      done, {time.perf_counter() - began:.1f} s in all")
    _say(f"AUC {auc:.4f}: digit {digit} against the other nine")
    _say(
        f"mean score {_mean(result, ~anomalous):.4f} of normal images, {_mean(result, anomalous):.4f} of anomalous ones"
    )


def _write(output: Path, digit: int, tested: ImageSet, index: npt.NDArray[np.int64], result: SearchResult) -> float:
    """Scores as CSV and Parquet, the ROC curve and the gallery; returns the AUC."""
    import pyarrow as pa
    from pyarrow import parquet
    from sklearn.metrics import roc_auc_score, roc_curve

    from .report import save_gallery, save_roc

    labels, scores = _labels(tested), result.scores.numpy()
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
    save_gallery(
        output / "gallery.png", tested.images, result.reconstructions, scores, labels=[f"digit {x}" for x in labels]
    )
    return auc


def _labels(images: ImageSet) -> npt.NDArray[np.int64]:
    assert images.labels is not None  # the digits have labels
    return images.labels


def _mean(result: SearchResult, which: npt.NDArray[np.bool_]) -> float:
    return float(result.scores[torch.from_numpy(which)].mean())


def _say(line: str) -> None:
    print(line, flush=True)


@contextlib.contextmanager
def _any_terminal() -> Iterator[None]:
    """What a terminal cannot show (an ASCII one the letters of a folder's name, say) is shown as an escape."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            stream.reconfigure(errors=errors)


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m adgan_fast.demo",
        description="Trains a small WGAN on one handwritten digit and finds the images that are of another. Writes "
        "scores.csv, scores.parquet, roc.png, gallery.png and generator.safetensors.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = ["auto", *(engine.name for engine in engines())]
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR", help="where to write")
    parser.add_argument("--digit", type=int, choices=range(10), default=8, metavar="0..9", help="the normal class")
    parser.add_argument("--steps", type=int, default=TRAINING.steps, metavar="N", help="generator steps of training")
    parser.add_argument("--n-seed", type=int, default=64, metavar="N", help="starts for each image")
    parser.add_argument("--engine", choices=names, default="auto", help="what runs the search")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of training and of the starts")
    parser.add_argument(
        "--held-out",
        choices=("test", "validation"),
        default="test",
        help="what to score: the test images, or those that settings are chosen on (trains on fewer then)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
