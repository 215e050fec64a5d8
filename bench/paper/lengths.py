"""How long, and how, to train the shared generator: ADGAN's AUC on the holdout while training goes on.

Choices of a training are made here, on training images alone (see sets.Trial.holdout), never on test items.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from adgan_fast import files, search
from adgan_fast.training import WGANConfig

from .auc import auc
from .entries import Context
from .figures import save_lengths
from .rows import save_table
from .sets import PaperSet, Trial, trial
from .settings import Settings

COLUMNS = ("dataset", "normal_class", "training", "step", "auc", "auc_low", "auc_high", "seconds", "config")


def lengths(
    images: PaperSet,
    out: Path,
    settings: Settings,
    training: WGANConfig,
    name: str,
    *,
    classes: list[int],
    every: int,
    progress: bool,
) -> Path:
    """Trains on each class and scores the holdout after every `every` steps; goes on where an earlier run ended.

    Args:
        images, out, settings: the set, the folder, and the search.
        training: of the generator; its steps are the last length.
        name: of this training, in rows and figures.
        classes: the normal ones.
        every: steps.
        progress: whether to show it.

    Returns:
        ``lengths-<set>.csv``, which with its ``.png`` holds all that `out` has, of this training and others.
    """
    for label in classes:
        at = trial(images, label, items=0, holdout=settings.holdout, seed=settings.seed)
        context = Context(settings, out / images.name / images.class_name(label), progress)
        folder = context.folder / "lengths" / _key(training, settings, at, every)
        for step in range(every, training.steps + 1, every):
            kept = folder / f"{step:07d}.json"
            if not kept.is_file():
                row = _row(at, context, training, step, folder.name)
                row |= {"dataset": images.name, "normal_class": images.class_name(label), "training": name}
                folder.mkdir(parents=True, exist_ok=True)
                files.replace(kept, json.dumps(row).encode())
                if progress:
                    print(f"{images.name} {label}: {name}: step {step}: {row['auc']:.4f}", flush=True)
    return _collected(images, out)


def _row(at: Trial, context: Context, training: WGANConfig, step: int, key: str) -> dict[str, Any]:
    trained, seconds = context.train(f"lengths-{key}", at.train, dataclasses.replace(training, steps=step))
    found = search(trained.generator, at.holdout.images, config=context.search())
    area = auc(torch.as_tensor(found.scores).double().numpy(), at.holdout.anomalous)
    settings = {"training": training.described(), "search": context.settings.described(("n_seed", "steps"))}
    return {
        "step": step, "auc": area.value, "auc_low": area.low, "auc_high": area.high, "seconds": seconds,
        "config": settings,
    }  # fmt: skip


def _key(training: WGANConfig, settings: Settings, at: Trial, every: int) -> str:
    """Twelve letters for all that decides a row, but for the step; and for `every`: no training goes back a step."""
    described = {**training.described(), "steps": 0, "device": "", "images": at.digest}
    described |= {"every": every, "search": settings.described(("n_seed", "steps"))}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def _collected(images: PaperSet, out: Path) -> Path:
    rows = [json.loads(file.read_text()) for file in sorted((out / images.name).glob("*/lengths/*/*.json"))]
    rows.sort(key=lambda row: (row["normal_class"], row["training"], row["step"]))

    def cells(row: dict[str, Any]) -> Iterable[Any]:
        rounded = {name: f"{row[name]:.5f}" for name in ("auc", "auc_low", "auc_high")}
        shown = (
            row | rounded | {"seconds": f"{row['seconds']:.4g}", "config": json.dumps(row["config"], sort_keys=True)}
        )
        return (shown[column] for column in COLUMNS)

    path = save_table(out / f"lengths-{images.name}.csv", COLUMNS, map(cells, rows))
    save_lengths(path.with_suffix(".png"), rows)
    return path
