"""What each ingredient of the search is worth, and costs: AUC and seconds an image, one setting after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from adgan_fast import SearchConfig, files, search

from .auc import auc
from .entries import SEARCH, Context, guesses
from .figures import save_ablation
from .rows import Store, save_array, save_table
from .sets import PaperSet, Trial, trial
from .settings import Settings

SEEDS = (1, 2, 4, 8, 16, 32, 64)
PANELS: dict[str, tuple[Any, ...]] = {
    "n_seed": SEEDS,
    "steps": (0, 1, 2, 3, 5, 10, 20),
    "weights": ("per_seed", "per_sample", "frozen"),
    "loss": ("l2", "l1", "laplacian"),
    "starts": ("shared", "independent", "encoder"),
    "lr_z": (0.05, 0.1, 0.25, 0.5, 1.0),
    "lr_weights": (5e-6, 5e-5, 5e-4, 5e-3),
}
"""Each setting with its values; all others stay as the paper has them."""
TIMED = 16
"""Images by which a search is timed; what a call costs without any is taken off, as are an encoder's guesses."""
COLUMNS = (
    "dataset",
    "normal_class",
    "setting",
    "value",
    "auc",
    "auc_low",
    "auc_high",
    "n_test",
    "seconds_per_image",
    "config",
)


class Run(NamedTuple):
    """One search of all items: losses (N, S), and seconds for an image."""

    losses: torch.Tensor
    seconds: float


def ablation(
    images: PaperSet, out: Path, settings: Settings, *, classes: list[int], varied: Sequence[str], progress: bool
) -> Path:
    """Varies the settings ``varied``: runs what is not in ``out`` yet; writes ``ablation-<set>.csv`` and ``.png``."""
    store = Store(out, images.name)
    path = out / f"ablation-{images.name}.csv"
    rows: list[dict[str, Any]] = []
    for label in classes:
        name = images.class_name(label)
        at = trial(images, label, items=settings.items, holdout=settings.holdout, seed=settings.seed)
        for row in _of_class(at, Context(settings, store.of_class(name), progress), images.name, name, varied):
            rows.append(row)
            _write(path, rows)
    panels = {setting: [row for row in rows if row["setting"] == setting] for setting in varied}
    save_ablation(path.with_suffix(".png"), panels)
    return path


def _of_class(at: Trial, context: Context, dataset: str, name: str, varied: Sequence[str]) -> Iterator[dict[str, Any]]:
    gan, _ = context.gan(at)
    uses = (*SEARCH, "autoencoder_steps")
    described = context.settings.described(uses)
    folder = context.folder / "ablation" / context.settings.key(uses)
    folder.mkdir(parents=True, exist_ok=True)
    for setting in varied:
        for value in PANELS[setting]:
            if setting == "n_seed" and value > context.settings.n_seed:
                continue
            kept = folder / f"{setting}-{value}.json"
            if kept.is_file():
                row = json.loads(kept.read_text())
            else:
                run = _run(gan.generator, at, context, folder, setting, value)
                area = auc(run.losses.double().mean(1).numpy(), at.test.anomalous)
                row = dict(
                    zip(
                        COLUMNS,
                        (dataset, name, setting, value, *area, len(at.test.anomalous), run.seconds, described),
                        strict=True,
                    )
                )
                files.replace(kept, json.dumps(row).encode())
                if context.progress:
                    print(
                        f"{dataset} {name}: {setting} {value}: {area.value:.4f}, {run.seconds:.4f} s an image",
                        flush=True,
                    )
            yield row


def _run(generator: torch.nn.Module, at: Trial, context: Context, folder: Path, setting: str, value: Any) -> Run:
    usual = context.search()
    if setting == "n_seed":  # starts are drawn one after the other: the first of a long search are those of a short one
        losses = _usual_losses(generator, at, usual, folder)[:, :value]
        return Run(losses, _timed(generator, at, usual.replace(n_seed=value)))
    if setting == "starts" and value == "encoder":
        starts, _ = guesses(generator, at, context)
        return _searched(generator, at, usual.replace(starts=starts(at.test.images)))
    if getattr(usual, setting) == value:
        return Run(_usual_losses(generator, at, usual, folder), _timed(generator, at, usual))
    return _searched(generator, at, usual.replace(**{setting: value}))


def _searched(generator: torch.nn.Module, at: Trial, config: SearchConfig) -> Run:
    losses = torch.as_tensor(search(generator, at.test.images, config=config).losses)
    return Run(losses, _timed(generator, at, config))


def _timed(generator: torch.nn.Module, at: Trial, config: SearchConfig) -> float:
    """Seconds an image, beyond what a call costs."""
    few = at.test.images[:TIMED]

    def call(count: int) -> float:
        given = config.starts
        own = config.replace(progress=False, starts=given[:count] if isinstance(given, torch.Tensor) else given)
        began = time.perf_counter()
        search(generator, few[:count], config=own)
        return time.perf_counter() - began

    call(1)  # checks the engine, and prepares it
    return max(call(len(few)) - call(1), 0.0) / max(len(few) - 1, 1)


def _usual_losses(generator: torch.nn.Module, at: Trial, usual: SearchConfig, folder: Path) -> torch.Tensor:
    """Of the search with all settings as usual: run once for all panels."""
    kept = folder / "losses.npy"
    if not kept.is_file():
        save_array(kept, torch.as_tensor(search(generator, at.test.images, config=usual).losses).numpy())
    return torch.from_numpy(np.load(kept))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    def cells(row: dict[str, Any]) -> Iterable[Any]:
        rounded = {name: f"{row[name]:.5f}" for name in ("auc", "auc_low", "auc_high", "seconds_per_image")}
        return {**row, **rounded, "config": json.dumps(row["config"], sort_keys=True)}.values()

    save_table(path, COLUMNS, map(cells, rows))
