"""Table 1: one class against the others, every detector, every class."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adgan_fast import files
from adgan_fast.training import TrainingDiverged

from .auc import NotFinite, auc
from .entries import DETECTORS, ENTRIES, Context, Entry, Refused, Scoring
from .figures import save_heat_map
from .rows import Row, Store, as_markdown, save_rows
from .sets import PaperSet, Trial, trial
from .settings import Settings

BLOCK = 250
"""Test items scored before what is found is put on disk."""


def table1(
    images: PaperSet,
    out: Path,
    settings: Settings,
    *,
    classes: Sequence[int],
    entries: Sequence[str],
    progress: bool,
    fit_only: bool = False,
) -> list[str]:
    """Runs what is not in ``out`` yet; returns a line for each detector that was refused or failed, with the reason.

    With ``fit_only`` the networks are trained, and nothing is scored: a later run finds them. Such runs may stand side
    by side on a GPU, where a search wants the memory for itself.

    After each class the table is written anew: ``table1-<set>.csv``, ``.md`` and ``.png`` hold all rows of the folder.
    """
    store = Store(out, images.name)
    lines: dict[Any, str] = {}
    for label in classes:
        name = images.class_name(label)
        at = trial(images, label, items=settings.items, holdout=settings.holdout, seed=settings.seed)
        for key in entries:
            entry = ENTRIES[key]
            try:
                if fit_only:
                    entry.fit(at, Context(settings, store.of_class(name), progress))
                else:
                    _run(entry, at, store, images.name, name, settings, progress)
            except Refused as reason:
                lines[key] = f"refused: {key}: {reason}"
            except (TrainingDiverged, NotFinite) as reason:
                lines[key, label] = f"failed: {key} on {name}: {reason}"
        write(store, out, images)
    return list(lines.values())


def _run(entry: Entry, at: Trial, store: Store, dataset: str, name: str, settings: Settings, progress: bool) -> None:
    """Fits an entry on a trial and scores the test items, block by block; resumes at the block that is missing."""
    wanted = settings.described(entry.uses) | {"images": at.digest}
    if all(store.row(name, detector, wanted) is not None for detector in entry.names):
        return
    context = Context(settings, store.of_class(name), progress)
    began = time.perf_counter()
    fitted = entry.fit(at, context)
    fit_seconds = time.perf_counter() - began if fitted.seconds is None else fitted.seconds
    parts = store.of_class(name) / f"{entry.names[0]}.parts"
    found, score_seconds = _scores(fitted.scores, at.test.images, parts, wanted | fitted.chosen)
    for detector in entry.names:
        area = auc(found[detector], at.test.anomalous)
        row = Row(
            dataset, name, detector, area.value, area.low, area.high, len(at.test.anomalous),
            fit_seconds, score_seconds, wanted | fitted.chosen,
        )  # fmt: skip
        store.put(row, found[detector])
        if progress:
            print(
                f"{dataset} {name}: {detector} {area.value:.4f} ({fit_seconds:.0f} s, {score_seconds:.0f} s)",
                flush=True,
            )
    shutil.rmtree(parts)


def _scores(
    score: Scoring, images: npt.NDArray[np.uint8], folder: Path, key: dict[str, Any]
) -> tuple[dict[str, npt.NDArray[np.float64]], float]:
    """Scores of all images, by detector, and the seconds they took; a part on disk for each BLOCK of them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = json.dumps(key, sort_keys=True)
    parts = []
    for first in range(0, len(images), BLOCK):
        path = folder / f"{first:06d}.npz"
        if path.is_file():
            with np.load(path) as stored:
                part = dict(stored)
            if str(part.pop("key")) == written:
                parts.append(part)
                continue
        began = time.perf_counter()
        part = {name: np.asarray(values, np.float64) for name, values in score(images[first : first + BLOCK]).items()}
        part["seconds"] = np.float64(time.perf_counter() - began)
        data = io.BytesIO()
        np.savez(data, key=np.array(written), **part)
        files.replace(path, data.getvalue())
        parts.append(part)
    seconds = float(sum(part.pop("seconds") for part in parts))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, seconds


def write(store: Store, out: Path, images: PaperSet) -> None:
    """The table of all rows that are there: CSV, Markdown and a heat map."""
    found = [row for row, _ in store.rows() if row.detector in DETECTORS]
    classes = [images.class_name(label) for label in images.classes]
    found.sort(key=lambda row: (classes.index(row.normal_class), DETECTORS.index(row.detector)))
    if not found:
        return
    ran = [name for name in DETECTORS if any(row.detector == name for row in found)]
    seen = [name for name in classes if any(row.normal_class == name for row in found)]
    stem = out / f"table1-{images.name}"
    save_rows(stem.with_suffix(".csv"), found)
    files.replace(stem.with_suffix(".md"), as_markdown(found, ran, seen).encode())
    save_heat_map(stem.with_suffix(".png"), {(r.detector, r.normal_class): r.auc for r in found}, ran, seen)
