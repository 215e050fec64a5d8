"""Results on disk: a row and the scores of each (class, detector), and the table that is made of them.

    OUT/<set>/<class>/<detector>.json    the row
    OUT/<set>/<class>/<detector>.npy     scores of the test items, float64, in the trial's order

The row is written last: where it is, the scores are. A row of other settings is never taken for one of these.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adgan_fast import files

from .settings import Settings


@dataclasses.dataclass(frozen=True)
class Row:
    """One detector on one trial.

    Attributes:
        dataset, normal_class, detector: which; the class by its name.
        auc, auc_low, auc_high: area under the ROC curve, and its 95 % bootstrap interval over test items.
        n_test: test items.
        fit_seconds: of all that learning took, choices and the training of a shared generator included; the wall's.
        score_seconds: of all test items.
        config: everything that decides the scores, and what was chosen on the holdout.
    """

    dataset: str
    normal_class: str
    detector: str
    auc: float
    auc_low: float
    auc_high: float
    n_test: int
    fit_seconds: float
    score_seconds: float
    config: dict[str, Any]


def save_array(path: Path, values: npt.NDArray[Any]) -> None:
    """Writes an ``.npy``, whole or not at all."""
    data = io.BytesIO()
    np.save(data, values)
    files.replace(path, data.getvalue())


def save_table(path: Path, columns: Iterable[str], lines: Iterable[Iterable[Any]]) -> Path:
    """Writes a CSV with a header, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    files.replace(path, text.getvalue().encode())
    return path


class OtherSettings(ValueError):
    """What lies in the folder was made with other settings."""


class Store:
    """The rows of one set in a folder."""

    def __init__(self, out: Path, dataset: str) -> None:
        self.folder = out / dataset

    def of_class(self, name: str) -> Path:
        """Where all of a class lies."""
        return self.folder / name

    def row(self, class_name: str, detector: str, settings: dict[str, Any]) -> Row | None:
        """The row if it is there; OtherSettings if it is one of other ``settings`` (a part of its config)."""
        path = self.of_class(class_name) / f"{detector}.json"
        if not path.is_file():
            return None
        row = Row(**json.loads(path.read_text()))
        theirs = {name: row.config.get(name) for name in settings}
        if theirs != settings:
            changed = [
                f"{name} {theirs[name]!r} there, {settings[name]!r} here"
                for name in settings
                if theirs[name] != settings[name]
            ]
            raise OtherSettings(
                f"{path}: made with other settings: {'; '.join(changed)}. Give another --out, or remove it"
            )
        return row

    def put(self, row: Row, scores: npt.NDArray[np.float64]) -> None:
        folder = self.of_class(row.normal_class)
        folder.mkdir(parents=True, exist_ok=True)
        save_array(folder / f"{row.detector}.npy", scores)
        files.replace(folder / f"{row.detector}.json", json.dumps(dataclasses.asdict(row), indent=1).encode())

    def rows(self) -> Iterator[tuple[Row, npt.NDArray[np.float64]]]:
        """All rows that are there, with their scores, by class and detector.

        Raises OtherSettings where a detector's rows differ in the number of test items, or in how networks were trained
        or searched: their mean would be of nothing.
        """
        first: dict[str, Row] = {}
        for path in sorted(self.folder.glob("*/*.json")):
            row = Row(**json.loads(path.read_text()))
            other = first.setdefault(row.detector, row)
            for name in SHARED & row.config.keys() | {"items"}:
                if row.config.get(name) != other.config.get(name):
                    both = f"{name} {row.config.get(name)!r}, beside {other.config.get(name)!r} of {other.normal_class}"
                    raise OtherSettings(f"{path}: made with {both}: run one of them again, with another --out")
            yield row, np.load(path.with_suffix(".npy"))


SHARED = {field.name for field in dataclasses.fields(Settings)}
"""What of a row's config holds for all classes; the rest was chosen for one."""
COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def save_rows(path: Path, rows: Iterable[Row]) -> Path:
    """The rows as CSV; config as JSON."""

    def cells(row: Row) -> Iterable[Any]:
        found = dataclasses.asdict(row)
        for name in ("auc", "auc_low", "auc_high"):
            found[name] = f"{found[name]:.5f}"
        for name in ("fit_seconds", "score_seconds"):
            found[name] = f"{found[name]:.4g}"
        return (found | {"config": json.dumps(row.config, sort_keys=True)}).values()

    return save_table(path, COLUMNS, map(cells, rows))


def as_markdown(rows: Iterable[Row], detectors: list[str], classes: list[str]) -> str:
    """AUC of every detector, a line each, and class, with the mean where no class lacks; a class's best is bold."""
    cells = {(row.detector, row.normal_class): row.auc for row in rows}
    best = {name: max((cells[d, name] for d in detectors if (d, name) in cells), default=np.nan) for name in classes}
    lines = [
        "| detector | " + " | ".join(classes) + " | mean |",
        "| --- |" + " --- |" * (len(classes) + 1),
    ]
    for detector in detectors:
        values = [cells.get((detector, name)) for name in classes]
        shown = [
            "" if v is None else f"**{v:.3f}**" if v == best[c] else f"{v:.3f}"
            for c, v in zip(classes, values, strict=True)
        ]
        found = [value for value in values if value is not None]
        mean = f"{np.mean(found):.3f}" if len(found) == len(classes) else ""
        lines.append(f"| {detector} | " + " | ".join([*shown, mean]) + " |")
    return "\n".join(lines) + "\n"
