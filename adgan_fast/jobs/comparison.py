"""Two jobs over the same images: another generator, engine or configuration, and what it changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import metrics
from ..given import is_number, whole
from . import description as descriptions
from .finished import Finished

FLAGGED = 0.05
"""Share of (normal) images flagged, where a job has no decisions of its own."""

Array = npt.NDArray[np.float64]


class Change(NamedTuple):
    """One image in both jobs: scores, and what share of the images have a lower score (ties by half)."""

    id: str
    label: str | None
    score_a: float
    score_b: float
    rank_a: float
    rank_b: float


class Comparison(NamedTuple):
    """What two jobs have found.

    Attributes:
        images: scored in both.
        only_a, only_b: scored in one alone: the other has no such image, or no score for it.
        differences: what one description has otherwise than the other: name, and the values of both.
        rank_correlation: Spearman's, from -1 to 1; NaN where one job gives all images the same score.
        moved: the images whose rank changed most, these first; none whose rank is the same.
        decided: "anomalous", what the parts say, or "threshold".
        thresholds: of both jobs, where decided by them.
        decisions: how many are flagged by "both", "a", "b", "neither".
        flips: the images that one flags and the other does not, the highest ranks first.
        auc: of both, with intervals, where normal labels are given and both kinds are there.
    """

    images: int
    only_a: int
    only_b: int
    differences: list[tuple[str, Any, Any]]
    rank_correlation: float
    moved: list[Change]
    decided: str
    thresholds: tuple[float, float] | None
    decisions: dict[str, int]
    flips: list[Change]
    auc: tuple[metrics.Area, ...] | None


def compare(
    a: Finished,
    b: Finished,
    *,
    normal: Sequence[str] = (),
    flagged: float = FLAGGED,
    most: int = 10,
    by_number: bool = False,
) -> Comparison:
    """Compare the jobs image by image: by their places where the manifests are the same, else by id.

    Ids that are numbers of rows say nothing of images in another file: they are refused, but for one file in both jobs.

    Scores of two generators have no common scale, ranks have.

    Args:
        a, b: the jobs.
        normal: labels of normal images.
        flagged: where the jobs have no decisions of their own, each flags the scores above its quantile 1 - flagged of
            normal images; of all images where none are known.
        most: images in `moved` at most.
        by_number: rows of the same number are the same image, whatever files they are of.

    Raises:
        ValueError: no image is in both; ids that are not unique, or numbers of rows in other files; a number out of
            range.
    """
    if not is_number(flagged) or not 0 < flagged < 1:
        raise ValueError(f"flagged must be a number between 0 and 1, got {flagged!r}")
    most = whole("most", most, 0)
    at_a, at_b = _matched(a, b, by_number)
    x, y = a.numbers("score")[at_a], b.numbers("score")[at_b]
    both = np.isfinite(x) & np.isfinite(y)
    scored_a, scored_b = (int(np.isfinite(job.numbers("score")).sum()) for job in (a, b))
    at_a, at_b, x, y = at_a[both], at_b[both], x[both], y[both]
    if not len(x):
        raise ValueError("no image has a score in both jobs")
    labels = a.table["label"].take(at_a).to_pylist()
    known = np.array([label is not None for label in labels]) & bool(normal)
    anomalous = known & np.array([label not in normal for label in labels])
    ranks_a, ranks_b = ranks(x), ranks(y)
    ids = a.table["id"].take(at_a).to_pylist()

    def change(row: int) -> Change:
        return Change(ids[row], labels[row], float(x[row]), float(y[row]), float(ranks_a[row]), float(ranks_b[row]))

    flags_a, flags_b, thresholds = _decisions(a, b, at_a, at_b, x, y, known & ~anomalous, flagged)
    counted = Counter(zip(flags_a.tolist(), flags_b.tolist(), strict=True))
    changes = np.abs(ranks_a - ranks_b)
    moved = np.argsort(-changes, kind="stable")[:most]
    moved = moved[changes[moved] > 0]
    flips = np.flatnonzero(flags_a != flags_b)
    flips = flips[np.argsort(-np.maximum(ranks_a, ranks_b)[flips], kind="stable")]
    areas: tuple[metrics.Area, ...] | None = None
    if anomalous.any() and (known & ~anomalous).any():
        few = metrics.CURVE_RESAMPLES
        areas = tuple(metrics.auc(scores[known], anomalous[known], resamples=few) for scores in (x, y))
    return Comparison(
        len(x), scored_a - len(x), scored_b - len(x), _differences(a, b),
        _correlation(ranks_a, ranks_b), [change(int(row)) for row in moved],
        "threshold" if thresholds else "anomalous", thresholds,
        {"both": counted[True, True], "a": counted[True, False], "b": counted[False, True],
         "neither": counted[False, False]},
        [change(int(row)) for row in flips], areas,
    )  # fmt: skip


def _differences(a: Finished, b: Finished) -> list[tuple[str, Any, Any]]:
    """But for what changes no score: shards, what is kept, what the source was called."""
    mine, theirs = descriptions.flat(a.description), descriptions.flat(b.description)
    names = [name for name in mine | theirs if name not in ("shard", "keep", "source.name")]
    return [(name, mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)]


def ranks(scores: Array) -> Array:
    """Of each score the share of scores below it, ties counted half: in (0, 1)."""
    levels, position, counts = np.unique(scores, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - 0.5 * counts
    return (below[position] if len(levels) else below) / max(1, len(scores))


def _correlation(x: Array, y: Array) -> float:
    """Pearson's, of ranks: Spearman's."""
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread else float("nan")


CONTENT = ("kind", "path", "stamp", "files", "sha256")
"""What of a source's fingerprint says what its rows are."""


def _matched(a: Finished, b: Finished, by_number: bool) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows of the same images."""
    if not by_number and all(job.texts("id") == [str(row) for row in range(len(job))] for job in (a, b)):
        _require_same_rows(a, b)
    if a.description["manifest"] == b.description["manifest"]:
        rows = np.arange(len(a))
        return rows, rows
    places: list[dict[Any, int]] = []
    for job in (a, b):
        ids = job.texts("id")
        places.append({name: row for row, name in enumerate(ids)})
        if len(places[-1]) < len(ids):
            raise ValueError(f"{job.folder}: ids are not unique, and the jobs are not over the same images")
    shared = [name for name in places[0] if name in places[1]]
    if not shared:
        raise ValueError(f"no image of {a.folder} is in {b.folder}: they share no id")
    return np.array([places[0][name] for name in shared]), np.array([places[1][name] for name in shared])


def _require_same_rows(a: Finished, b: Finished) -> None:
    """ValueError where nothing says that two rows of one number are one image.

    The manifests may well be the same: they hold numbers alone, where it is the fingerprint that tells of the file.
    """
    here, there = (job.description["source"] for job in (a, b))
    told = "path" in here or "sha256" in here or a.description["manifest"] == b.description["manifest"]
    if told and all(here.get(name) == there.get(name) for name in CONTENT):
        return
    paths = " and ".join(str(source.get("path", source.get("name"))) for source in (here, there))
    raise ValueError(
        f"{a.folder} and {b.folder} are over other files ({paths}) and know images by numbers of rows, so nothing "
        "says that two of one number are the same. Where they are, --by-number (by_number=True) compares them"
    )


def _decisions(
    a: Finished,
    b: Finished,
    at_a: npt.NDArray[np.intp],
    at_b: npt.NDArray[np.intp],
    x: Array,
    y: Array,
    normal: npt.NDArray[np.bool_],
    flagged: float,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], tuple[float, float] | None]:
    """Of both jobs, and the thresholds where they decide by them."""
    if all("anomalous" in job.table.column_names for job in (a, b)):
        own = [np.array(job.texts("anomalous"), object)[at] == True for job, at in ((a, at_a), (b, at_b))]  # noqa: E712
        return own[0], own[1], None
    of = normal if normal.any() else np.ones_like(normal)
    cuts = float(np.quantile(x[of], 1 - flagged)), float(np.quantile(y[of], 1 - flagged))
    return x > cuts[0], y > cuts[1], cuts
