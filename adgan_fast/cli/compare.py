"""``adgan-fast compare``: what another generator, engine or configuration changes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .given import Failure, Mistake
from .report import Normal
from .table import columns

if TYPE_CHECKING:
    from ..jobs.comparison import Change, Comparison


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="folder of a job")],
    b: Annotated[Path, typer.Argument(metavar="B", help="folder of another one, over the same images")],
    normal: Normal = None,
    flagged: Annotated[
        float, typer.Option(help="share of normal images that each job flags, where it has no decisions of its own")
    ] = 0.05,
    most: Annotated[
        int, typer.Option(min=0, help="images listed of those that changed most, and of those that flip")
    ] = 10,
    by_number: Annotated[
        bool, typer.Option("--by-number", help="rows of one number are one image, though they are of other files")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all images that flip.")] = False,
) -> None:
    """Compare two finished jobs: rank correlation, the images that changed most, decisions that flip.

    \b
    adgan-fast compare scores-wgan scores-gp
    adgan-fast compare before after --normal good --flagged 0.01

    Images are the same where the jobs had the same ones in the same order, else by id; an id that is the number of a
    row counts in one file alone. Scores of two generators have no common scale: a rank is the share of images with a
    lower score.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments.
    """
    from .. import jobs
    from ..jobs.comparison import compare as compared
    from ..jobs.finished import Finished

    try:
        both = Finished(a), Finished(b)
        found = compared(*both, normal=tuple(normal or ()), flagged=flagged, most=most, by_number=by_number)
    except (FileNotFoundError, ValueError) as error:
        raise Mistake(str(error)) from error
    except (jobs.JobError, OSError) as error:
        raise Failure(str(error)) from error
    typer.echo(json.dumps(_as_json(found), indent=1) if as_json else "\n".join(_lines(found, most)))


def _as_json(found: Comparison) -> dict[str, Any]:
    plain = found._asdict()
    plain["differences"] = [{"name": name, "a": mine, "b": theirs} for name, mine, theirs in found.differences]
    for name in ("moved", "flips"):
        plain[name] = [each._asdict() for each in getattr(found, name)]
    plain["auc"] = found.auc and [area._asdict() for area in found.auc]
    if math.isnan(found.rank_correlation):
        plain["rank_correlation"] = None
    return plain


def _lines(found: Comparison, most: int) -> list[str]:
    only = f"; scored in A alone: {found.only_a}, in B alone: {found.only_b}" if found.only_a or found.only_b else ""
    lines = [f"{found.images} images scored in both{only}", ""]
    if found.differences:
        lines += columns([("differs", "A", "B"), *((name, _short(x), _short(y)) for name, x, y in found.differences)])
    else:
        lines.append("nothing differs in what decides the rows")
    lines += ["", f"rank correlation (Spearman) {found.rank_correlation:.4f}"]
    if found.auc:
        said = (f"{area.value:.4f} ({area.low:.4f} to {area.high:.4f})" for area in found.auc)
        lines += columns([(f"AUC {name}", area) for name, area in zip("AB", said, strict=True)])
    how = "by the jobs' own decisions"
    if found.thresholds:
        how = "above {:.5g} in A, above {:.5g} in B".format(*found.thresholds)
    counts = ", ".join(f"{name} {count}" for name, count in found.decisions.items())
    lines += ["", f"flagged {how}: {counts}; {len(found.flips)} flip"]
    if most and not found.moved:
        lines.append("no image has changed its rank")
    for title, changes in (("changed most", found.moved), ("decisions that flip", found.flips[:most])):
        if changes:
            lines += [
                "",
                title,
                *columns([("id", "label", "score A", "score B", "rank A", "rank B"), *map(_row, changes)]),
            ]
    if len(found.flips) > most:
        lines.append(f"and {len(found.flips) - most} more: --most, or --json, lists them")
    return lines


def _row(change: Change) -> tuple[str, ...]:
    numbers = (change.score_a, change.score_b)
    shares = (change.rank_a, change.rank_b)
    label = "" if change.label is None else change.label
    return (_short(change.id), _short(label), *(f"{x:.4g}" for x in numbers), *(f"{100 * x:.1f} %" for x in shares))


def _short(value: Any, most: int = 40) -> str:
    """On one line, whatever characters it has, and not longer than that."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
