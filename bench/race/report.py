"""A race as rows, and rows as a table: the one printed by ``pytest bench/`` and the one in the README are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .cases import Case
from .contenders import BASELINE
from .race import Entry, best_peer, ratio
from .rows import Row, row

HEADS = ("engine or peer", "s/image", "images/s", "x plain loop", "x best peer", "peak MB", "rms error", "timed on")


def rows_of(case: Case, entries: dict[str, Entry], device: str) -> list[Row]:
    """Rows of every entry whose speed may be shown."""
    best = best_peer(entries)
    found: list[Row] = []
    for name, entry in entries.items():
        if not entry.valid:
            continue

        assert entry.load is not None and entry.gate is not None
        seconds = entry.seconds
        spread = {"low": min(seconds), "high": max(seconds), "rounds": len(seconds)}
        load = {"images": entry.load.images, "starts": entry.load.starts, "of_starts": len(case.starts)}
        metrics: list[tuple[str, float | None, str, dict[str, Any]]] = [
            ("seconds_per_image", entry.median, "s", spread | load),
            ("ratio_to_plain_loop", ratio(entries, name, BASELINE), "times faster", {}),
            ("ratio_to_best_peer", ratio(entries, name, best), "times faster", {"best_peer": best}),
            ("peak_memory", entry.peak_bytes, "bytes", {}),
            ("gate_rms", entry.gate.rms, "relative", {}),
            ("seconds_per_call", entry.setup if entry.contender.kind == "engine" else None, "s", {}),
        ]
        for metric, value, unit, more in metrics:
            if value is not None:
                found.append(row(case.key, name, entry.contender.kind, metric, value, unit, device, **more))
    return found


def cells(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """The table of one case on one machine: HEADS, then engines, then peers, each fastest first."""
    by_name: dict[str, dict[str, Row]] = {}
    for r in rows:
        by_name.setdefault(r["engine"], {})[r["metric"]] = r
    timed = [metrics for metrics in by_name.values() if "seconds_per_image" in metrics]

    def order(metrics: dict[str, Row]) -> tuple[bool, float]:
        seconds = metrics["seconds_per_image"]
        return seconds["kind"] != "engine", seconds["value"]

    return [HEADS, *(_line(metrics) for metrics in sorted(timed, key=order))]


def _line(metrics: dict[str, Row]) -> tuple[str, ...]:
    def shown(metric: str, form: str, scale: float = 1.0) -> str:
        return form.format(metrics[metric]["value"] * scale) if metric in metrics else "-"

    seconds = metrics["seconds_per_image"]
    digits = _digits(seconds["value"])
    spread = f"{seconds['value']:.{digits}f} ({seconds['low']:.{digits}f}-{seconds['high']:.{digits}f})"
    best = metrics.get("ratio_to_best_peer", {}).get("best_peer")
    return (
        seconds["engine"] + ("" if seconds["kind"] == "engine" else " (peer)"),
        spread,
        f"{1 / seconds['value']:.3g}",
        shown("ratio_to_plain_loop", "{:.2f}"),
        shown("ratio_to_best_peer", "{:.2f}") + (" (best)" if best == seconds["engine"] else ""),
        shown("peak_memory", "{:.0f}", 1e-6),
        shown("gate_rms", "{:.0e}"),
        _load(seconds),
    )


def _load(seconds: Row) -> str:
    if seconds["starts"] < seconds["of_starts"]:
        return f"{seconds['starts']} of {seconds['of_starts']} starts"
    return f"{seconds['images']} image{'s'[: seconds['images'] != 1]}"


def _digits(seconds: float) -> int:
    """Decimals that leave three figures."""
    digits, value = 2, seconds
    while value < 1 and digits < 6:
        value, digits = value * 10, digits + 1
    return digits


def text(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines in columns: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """The same as a Markdown table."""
    head, *body = ("| " + " | ".join(line) + " |" for line in table)
    return [head, "| --- |" + " ---: |" * (len(table[0]) - 1), *body]


def missing(entries: dict[str, Entry]) -> list[str]:
    """A line for each contender without a speed, and why."""
    lines = []
    for name, entry in entries.items():
        if entry.why_not is not None:
            lines.append(f"{name}: did not run: {entry.why_not}")
        elif entry.error is not None:
            lines.append(f"{name}: FAILED: {type(entry.error).__name__}: {str(entry.error).splitlines()[:1]}")
        elif entry.gate is not None and not entry.gate.green:
            lines.append(f"{name}: GATE RED, no speed: {entry.gate.failures}")
    return lines
