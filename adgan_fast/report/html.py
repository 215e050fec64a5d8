"""A job as one HTML page that needs nothing else: scores, pictures, curves, and where they come from."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__, files, metrics
from ..given import whole
from ..jobs.batch import STARTS_USED
from ..jobs.drift import drift, is_calibrated, threshold_of, untestable
from ..jobs.finished import Finished
from ..jobs.windowed import COUNT
from . import charts
from .pictures import SIDE, Pictures, pictures

log = logging.getLogger("adgan_fast")

TEMPLATES = Path(__file__).parent / "templates"
DRIFT_LEVEL = 0.01
"""Of the test of drift, as on the command line."""
LEVELS = (0.1, 0.05, 0.01)
"""Shares of normal images flagged for which a threshold is told; the page begins with the second."""

Array = npt.NDArray[Any]


class Report(NamedTuple):
    """Attributes: path; size in bytes; rows of the job, and how many of them are in the gallery."""

    path: Path
    bytes: int
    rows: int
    shown: int


class Scores(NamedTuple):
    """The scores of a job, and what is known of their images. All (N,), in manifest order.

    Attributes:
        values: NaN where the status is not "ok".
        labels, statuses: of each.
        known: whether it is known to be normal or anomalous.
        anomalous: False where it is not known.
    """

    values: npt.NDArray[np.float64]
    labels: list[str | None]
    statuses: list[str]
    known: npt.NDArray[np.bool_]
    anomalous: npt.NDArray[np.bool_]

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.values)

    def groups(self) -> dict[str, Array]:
        """Finite scores by what is known: "normal", "anomalous", "unlabelled"; "all" where nothing is."""
        if not self.known.any():
            return {"all": self.values[self.scored]}
        of = {"normal": self.known & ~self.anomalous, "anomalous": self.anomalous, "unlabelled": ~self.known}
        return {name: self.values[mask & self.scored] for name, mask in of.items() if mask.any()}


def write_report(
    job: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    normal: Sequence[str] = (),
    images: int | None = None,
    side: int = SIDE,
    sigma: float = 0.0,
) -> Report:
    """Write the page of a finished job, whole or not at all.

    Args:
        job: its folder.
        out: the .html file.
        normal: labels of normal images; those with another label are anomalous. Without any, no curves are drawn.
        images: how many are in the gallery; None: as many as leave the pictures below about 20 MB. Histogram, counts
            and curves always have all.
        side: the longest side of a picture, in pixels; larger ones are made smaller.
        sigma: of the Gaussian filter that residuals go through, in pixels (`adgan_fast.maps.smoothed`).

    Raises:
        FileNotFoundError, JobDamaged, OtherJob: as `jobs.read`.
        ValueError: a label that no image has, or a number out of range.
    """
    if images is not None:
        images = whole("images", images, 0)
    side = whole("side", side, 8)
    found = Finished(job)
    scores = _scores(found, tuple(normal))
    gallery = pictures(found, scores.values, images, side, sigma)
    if gallery.gone:
        log.warning("the gallery is without the images themselves: %s", gallery.gone)
    text = _rendered(found, scores, tuple(normal), gallery)
    path, data = Path(out), text.encode()
    files.replace(path, data)
    return Report(path, len(data), len(found), len(gallery.rows))


def _scores(found: Finished, normal: tuple[str, ...]) -> Scores:
    labels = found.texts("label")
    if missing := sorted(set(normal) - set(labels)):
        there = ", ".join(repr(label) for label in sorted({label for label in labels if label is not None})[:20])
        raise ValueError(f"no image has the label {missing[0]!r}; labels are {there or 'none: score with labels'}")
    known = np.array([bool(normal) and label is not None for label in labels], bool)
    anomalous = known & np.array([label not in normal for label in labels], bool)
    return Scores(found.numbers("score"), labels, found.texts("status"), known, anomalous)


def _rendered(found: Finished, scores: Scores, normal: tuple[str, ...], gallery: Pictures) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    groups = scores.groups()
    threshold = _first_threshold(found, scores, groups)
    histogram = charts.histogram(groups, "score", reaching=threshold)
    counts, untested = Counter(scores.statuses), untestable(found, normal)
    return environment.get_template("report.html").render(
        title=f"Anomaly scores: {found.folder.resolve().name}",
        style=Markup(style), style_hash=_hash(style), script=Markup(script), script_hash=_hash(script),
        rows=len(found), scored=int(scores.scored.sum()),
        bad=[(name, count) for name, count in counts.items() if name != "ok"],
        labels=sorted({label for label in scores.labels if label is not None}), normal=normal,
        statuses=sorted(counts), histogram=histogram, gallery=gallery, calibrated=_calibrated(found, scores),
        curves=_curves(scores), level=metrics.LEVEL, thresholds=_thresholds(scores), course=_course(scores),
        provenance=_provenance(found), decisions=_decisions(found), windows=found.windows,
        untested=untested, drift=None if untested else drift(found, normal), drift_level=DRIFT_LEVEL,
        adaptive=STARTS_USED in found.table.column_names,
        threshold=threshold, data=_data(found, scores, groups, histogram, threshold, gallery),
    )  # fmt: skip


def _hash(text: str) -> str:
    """As a content security policy names what may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(
    found: Finished,
    scores: Scores,
    groups: dict[str, Array],
    histogram: charts.Histogram,
    threshold: float,
    gallery: Pictures,
) -> dict[str, Any]:
    """What the page's script reads: all scores, sorted, as bytes; and the rows of the gallery."""
    kind = "float64" if found.description.get("dtype") == "float64" else "float32"
    little = {"float64": "<f8", "float32": "<f4"}[kind]
    columns = {name: found.numbers(name) for name in ("score_std", "score_min", "initial_loss", "p_value")}
    used = found.numbers(COUNT if found.windows else STARTS_USED)
    ids, errors, decided = found.texts("id"), found.texts("error"), found.texts("anomalous")
    rows = [
        [
            row, ids[row], scores.labels[row], scores.statuses[row], _plain(scores.values[row]),
            *(_plain(values[row]) for values in columns.values()), decided[row], errors[row], at,
            _plain(used[row]),
        ]
        for row, at in zip(gallery.rows, gallery.places, strict=True)
    ]  # fmt: skip
    return {
        "kind": kind,
        "scores": [
            [name, base64.b64encode(np.sort(values).astype(little).tobytes()).decode()]
            for name, values in groups.items()
        ],
        "of": "windows" if found.windows else "starts", "used": "windows" if found.windows else "starts used",
        "low": histogram.low, "high": histogram.high, "threshold": threshold,
        "rows": rows, "panels": gallery.panels, "cell": gallery.cell, "cells": gallery.per_sheet,
        "columns": gallery.columns,
    }  # fmt: skip


def _plain(value: float) -> float | None:
    return float(value) + 0.0 if np.isfinite(value) else None  # 0 for -0


def _first_threshold(found: Finished, scores: Scores, groups: dict[str, Array]) -> float:
    """The job's own by its calibration; what parts its decisions, of one by an older version, that has not kept the
    calibration; else what flags 5 % of the normal images.
    """
    if is_calibrated(found):
        return threshold_of(found)
    decided = _decisions(found)
    if decided is not None and scores.scored.any():
        passed = scores.scored & ~decided
        if not passed.any():  # below all of them
            return float(np.nextafter(scores.values[scores.scored].min(), -np.inf))
        return float(scores.values[passed].max())
    values = groups.get("normal", scores.values[scores.scored])
    return float(np.quantile(values, 1 - LEVELS[1])) if len(values) else 0.0


def _decisions(found: Finished) -> npt.NDArray[np.bool_] | None:
    """The job's own, (N,), where it was scored with a calibration."""
    if "anomalous" not in found.table.column_names:
        return None
    return np.array([bool(value) for value in found.texts("anomalous")], bool)


def _curves(scores: Scores) -> list[tuple[str, str, charts.Chart]]:
    """Name, name of the area, chart; empty where there are not both kinds."""
    which = scores.known & scores.scored
    values, anomalous = scores.values[which], scores.anomalous[which]
    if not anomalous.any() or anomalous.all():
        return []
    receiver, recall = metrics.roc(values, anomalous), metrics.precision_recall(values, anomalous)
    flagged = "normal images flagged", "anomalous images flagged"
    return [
        ("ROC", "AUC", charts.curve(receiver, *flagged, None)),
        ("Precision and recall", "Average precision",
         charts.curve(recall, "recall: anomalous images flagged", "precision", float(anomalous.mean()))),
    ]  # fmt: skip


def _thresholds(scores: Scores) -> list[tuple[float, float, float, float]]:
    """For each of LEVELS: the quantile of normal scores, and which share of normal and anomalous images is above."""
    groups = scores.groups()
    normal, anomalous = groups.get("normal", np.empty(0)), groups.get("anomalous", np.empty(0))
    if not len(normal) or not len(anomalous):
        return []
    cuts = [(level, float(np.quantile(normal, 1 - level))) for level in LEVELS]
    return [(level, cut, float((normal > cut).mean()), float((anomalous > cut).mean())) for level, cut in cuts]


def _course(scores: Scores) -> charts.Chart | None:
    """Of normal images where they are known, else of all."""
    which = scores.scored & (scores.known & ~scores.anomalous if scores.known.any() else True)
    return charts.course(scores.values[which])


def _calibrated(found: Finished, scores: Scores) -> tuple[charts.Histogram, list[tuple[float, float]]] | None:
    """P-values by what is known, and for each of LEVELS the share of normal images (of all) at or below it."""
    p_values = found.numbers("p_value")
    if not (there := np.isfinite(p_values)).any():
        return None
    groups = {"all": p_values[there]}
    if scores.known.any():
        masks = {"normal": scores.known & ~scores.anomalous, "anomalous": scores.anomalous}
        groups = {name: p_values[mask & there] for name, mask in masks.items() if (mask & there).any()}
    first = next(iter(groups.values()))
    return charts.histogram(groups, "p-value", (0.0, 1.0)), [(a, float((first <= a).mean())) for a in LEVELS]


def _provenance(found: Finished) -> list[tuple[str, list[tuple[str, str]]]]:
    """What decided the rows, and what made them, under headings."""
    about = found.description
    generator = [
        ("class", about.get("generator", {}).get("class")), ("SHA-256", about.get("generator", {}).get("sha256")),
        ("latent", about.get("latent_shape")), ("image", about.get("image_shape")),
    ]  # fmt: skip
    source = [(name, value) for name, value in about["source"].items() if value is not None and name != "files"]
    source += [("images", about["manifest"]["items"]), ("SHA-256 of the manifest", about["manifest"]["sha256"])]
    run = [
        ("engine", about.get("engine")), ("precision", about.get("precision")), ("dtype", about.get("dtype")),
        ("adgan_fast", about.get("package")), *_made(found),
    ]  # fmt: skip
    report = [("adgan_fast", __version__), ("made at", datetime.now(timezone.utc).isoformat(timespec="seconds"))]
    blocks = [("Generator", generator), ("Configuration", _settings(found)), ("Images", source), ("Run", run)]
    return [
        (heading, [(name, _said(value)) for name, value in entries])
        for heading, entries in [*blocks, ("This report", report)]
    ]


def _settings(found: Finished) -> list[tuple[str, Any]]:
    """Of the search, of when an image has starts enough, and of windows."""
    config = dict(found.description.get("config", {}))
    until, windows = config.pop("adaptive", None), found.windows
    settings = list(config.items())
    if until is not None:
        to = f"threshold {until['threshold']:.6g}" if "threshold" in until else f"p-value to {until['tolerance']:g}"
        looks = ", ".join(map(str, until["rounds"]))
        settings += [("adaptive", f"confidence {until['confidence']:g}, rounds after {looks} starts, {to}")]
    if windows is not None:
        standardized = "yes" if windows.standardize else "no"
        settings += [
            ("window size", windows.size), ("window stride", windows.step), ("windows standardized", standardized),
        ]  # fmt: skip
        if "windows" not in found.description.get("calibration", {}):  # else windows are ranked, and it is of no effect
            settings += [("quantile of windows", windows.quantile)]
    return settings


def _made(found: Finished) -> list[tuple[str, Any]]:
    """What the parts say of how they were made."""
    made = [each for each in found.made if each]
    if len(made) < len(found.made) or not made:
        return [("time", "not recorded by the version that made it")]
    machines = Counter(f"{each['processor']}, threads: {each['threads']}" for each in made)
    gpus = Counter(each["gpu"] for each in made if each["gpu"])
    seconds = {what: sum(each["seconds"].get(what, 0.0) for each in made) for what in ("search", "wait")}
    total = sum(seconds.values())
    versions = {f"{name} {version}" for each in made for name, version in each["versions"].items()}
    return [
        ("device", found.description.get("device")), ("processor", "; ".join(machines)), ("GPU", "; ".join(gpus)),
        ("versions", ", ".join(sorted(versions))), ("first part at", min(each["at"] for each in made)),
        ("last part at", max(each["at"] for each in made)), ("parts", len(made)),
        ("seconds of search", f"{seconds['search']:.1f}, and {seconds['wait']:.1f} of waiting for images"),
        ("images/s", f"{len(found) / total:.3g}, by these seconds, of one device" if total else None),
    ]  # fmt: skip


def _said(value: Any) -> str:
    if value is None or value == "":
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
