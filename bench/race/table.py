"""Rows to the README's table and a plot: ``python -m bench.race.table bench/results/*.jsonl [--plot FILE.png]``.

The rows of one run each: by default the run measured last, of every case and machine in the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import report
from .rows import Row, load

Title = tuple[str, str]  # case and machine


def latest(rows: Sequence[Row], commit: str | None = None, case: str | None = None) -> dict[Title, list[Row]]:
    """Rows by (case, machine), those of the latest commit measured there, or of `commit`; cases that contain `case`."""
    found: dict[Title, list[Row]] = {}
    for r in rows:
        if (case is None or case in r["case"]) and (commit is None or r["commit"] == commit):
            found.setdefault((r["case"], r["device"]), []).append(r)
    for title, group in found.items():
        newest = max(group, key=lambda r: r["measured"])["commit"]
        found[title] = [r for r in group if r["commit"] == newest]
    return found


def table(title: Title, rows: Sequence[Row]) -> list[str]:
    """The Markdown of one case on one machine, with where the numbers are from; empty if no speed was measured."""
    cells = report.cells(rows)
    if len(cells) == 1:
        return []
    case, device = title
    first = rows[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return [f"{case} on {device} ({versions}; commit {first['commit']}):", "", *report.markdown(cells), ""]


def exponents(title: Title, rows: Sequence[Row]) -> list[str]:
    """The Markdown of the fitted exponents of one case on one machine; empty if none was measured."""
    by_engine: dict[str, dict[str, float]] = {}
    for r in rows:
        if r["metric"].startswith("exponent_of_"):
            by_engine.setdefault(r["engine"], {})[r["metric"].removeprefix("exponent_of_")] = r["value"]
    if not by_engine:
        return []
    variables = sorted({variable for found in by_engine.values() for variable in found})
    body = [
        (engine, *(f"{found[v]:.2f}" if v in found else "-" for v in variables)) for engine, found in by_engine.items()
    ]
    return [
        f"Growth of time on {title[1]}, {title[0]}:",
        "",
        *report.markdown([("exponent of", *variables), *body]),
        "",
    ]


def plot(groups: dict[Title, list[Row]], path: Path) -> None:
    """Images/s of every engine and peer, a panel for each case and machine, on a logarithmic axis; a PNG at `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {title: speeds for title, rows in groups.items() if (speeds := _speeds(rows))}
    if not panels:
        raise ValueError("no row of seconds_per_image to plot")
    heights = [0.35 * len(speeds) + 1 for speeds in panels.values()]
    figure = Figure(figsize=(8, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, speeds) in zip(axes, panels.items(), strict=True):
        names = [r["engine"] for r in speeds]
        values = [1 / r["value"] for r in speeds]
        errors = [
            [1 / r["value"] - 1 / r["high"] for r in speeds],
            [1 / r["low"] - 1 / r["value"] for r in speeds],
        ]
        colours = ["#1f5fa8" if r["kind"] == "engine" else "#b0b0b0" for r in speeds]
        bars = axis.barh(names, values, xerr=errors, color=colours, ecolor="#404040", capsize=2)
        axis.bar_label(bars, [f" {value:.3g}" for value in values], padding=3)
        axis.set_xscale("log")
        axis.set_xlim(min(values) / 2, max(values) * 2.5)
        axis.invert_yaxis()
        axis.set_title("\n".join(title), fontsize=9)
        axis.set_xlabel("images/s (blue: engines, grey: peers)")
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _speeds(rows: Sequence[Row]) -> list[Row]:
    return sorted((r for r in rows if r["metric"] == "seconds_per_image"), key=lambda r: r["value"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.race.table", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="rows, bench/results/*.jsonl")
    parser.add_argument("--commit", help="rows of this commit, not of the latest")
    parser.add_argument("--case", help="cases whose name contains this")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also write a plot, a PNG")
    given = parser.parse_args(arguments)
    groups = latest([r for file in given.files for r in load(file)], given.commit, given.case)
    if not groups:
        print("no such rows", file=sys.stderr)
        return 1
    for title, rows in groups.items():
        print("\n".join(table(title, rows) + exponents(title, rows)))
    if given.plot:
        plot(groups, given.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
