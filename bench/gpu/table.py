"""The short table of a run of bench.gpu, from what its parts found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..race.report import text
from ..race.rows import Row


def lines(results: Mapping[str, Any]) -> list[str]:
    """Most important last, since a terminal shows the end."""
    parts: Mapping[str, Any] = results["parts"]
    rows = [row for part in parts.values() for row in part["rows"]]
    figures = [row for row in rows if "metric" in row]
    found: list[str] = []
    for title, table in (
        ("kernels, by call: the slowest", _kernels(figures)),
        ("GPU time of a search, by kernel", _profile(figures)),
        ("tuned", _tuned(figures)),
        ("precision", _precision(figures)),
        ("peers, each beside the engine in the same process", _peers(figures)),
        ("a call of score(), all of it", _plain(figures, "scores_per_second")),
        ("peak memory, GB", _plain(figures, "peak_memory", 1e-9)),
        ("images/s beyond the first chunks", _plain(figures, "images_per_second")),
        ("the machine's rates, T(FLOP or bytes)/s", _plain(figures, "rate", 1e-12)),
    ):
        if len(table) > 1:
            found += [title, *(f"  {line}" for line in text(table)), ""]
    admitted = [row["value"] for row in figures if row["metric"] == "admitted_after"]
    if admitted:
        found.append(f"admission: {len(admitted)} times right, after at most {max(admitted):.1f} s")
    gates = [row for row in figures if row["metric"] == "gate_rms"]
    if gates:
        worst = max(gates, key=lambda row: row["value"])
        found.append(f"gates: {len(gates)}, worst rms {worst['value']:.1e} ({worst['engine']}, {worst['case']})")
    for row in figures:
        if row["case"] in ("tests", "memcheck", "racecheck"):
            found.append(f"{row['case']}: {row['value']:.0f} {row['metric']}")
    failed = [row for row in rows if "failed" in row]
    found += [f"NO FIGURE: {row['case']} {row['engine']}: {row['failed'][:160]}" for row in failed[:20]]
    if len(failed) > 20:
        found.append(f"NO FIGURE: {len(failed) - 20} more, in gpu.json")
    for name, part in parts.items():
        if part["status"] != "ok":
            found.append(f"PART {name} {part['status'].upper()}: {part['error'].splitlines()[-1][:200]}")
    fine = sum(part["status"] == "ok" for part in parts.values())
    seconds = sum(part["seconds"] for part in parts.values())
    smoke = " SMOKE RUN: the figures mean nothing" if results["smoke"] else ""
    return [*found, f"{fine} of {len(parts)} parts done in {seconds:.0f} s.{smoke}"]


def _plain(figures: Iterable[Row], metric: str, scale: float = 1.0) -> list[tuple[str, ...]]:
    chosen = [row for row in figures if row["metric"] == metric]
    return [
        ("case", "of", "images", metric),
        *(
            (row["case"], row["engine"], str(row.get("images", "")), f"{row['value'] * scale:.3g}")
            for row in chosen
        ),
    ]  # fmt: skip


def _kernels(figures: Iterable[Row]) -> list[tuple[str, ...]]:
    chosen = [row for row in figures if row["metric"] == "seconds" and "call" in row]
    slowest = sorted(chosen, key=lambda row: -row["value"] / row["pairs"])[:24]
    return [
        ("layer", "call", "ns a pair", "of copy", "of matrix"),
        *(
            (row["layer"], row["call"], f"{1e9 * row['value'] / row['pairs']:.0f}", *_shares(row))
            for row in slowest
        ),
    ]  # fmt: skip


def _shares(row: Row) -> Iterator[str]:
    for of in ("copy", "matrix"):
        share = row.get(f"share_of_{of}")
        yield "" if share is None else f"{share:.0%}"


def _profile(figures: Iterable[Row]) -> list[tuple[str, ...]]:
    chosen = [row for row in figures if row["metric"] == "share"]
    return [
        ("case", "kernel", "share", "us an image", "launches"),
        *(
            (row["case"], row["engine"][:50], f"{row['value']:.1%}", f"{row['us_an_image']:.0f}", str(row["launches"]))
            for row in chosen
            if row["value"] > 0.01
        ),
    ]


def _tuned(figures: Iterable[Row]) -> list[tuple[str, ...]]:
    chosen = [row for row in figures if row["metric"] == "speedup"]
    return [
        ("kernel", "x", "tiles"),
        *(
            (row["key"], f"{row['value']:.2f}", " ".join(f"{k}{v}" for k, v in row["tiles"].items()))
            for row in chosen
        ),
    ]  # fmt: skip


def _precision(figures: Iterable[Row]) -> list[tuple[str, ...]]:
    metrics = ("rms", "mean", "score", "auc", "off", "spearman")
    by_name: dict[tuple[str, str], dict[str, float]] = {}
    for row in figures:
        if row["metric"] in metrics:
            by_name.setdefault((row["case"], row["engine"]), {})[row["metric"]] = row["value"]
    return [
        ("case", "engine and precision", *metrics),
        *((*name, *(f"{found[m]:.5g}" if m in found else "" for m in metrics)) for name, found in by_name.items()),
    ]


def _peers(figures: Iterable[Row]) -> list[tuple[str, ...]]:
    ratios = {
        (row["case"], row["metric"].removeprefix("ratio_to_")): row["value"]
        for row in figures
        if row["metric"].startswith("ratio_to_")
    }
    chosen = [row for row in figures if row["metric"] == "seconds_per_image" and row["kind"] == "peer"]
    return [
        ("case", "peer", "s/image", "images/s", "engine x faster"),
        *(
            (
                row["case"], row["engine"], f"{row['value']:.4g}", f"{1 / row['value']:.3g}",
                f"{ratios.get((row['case'], row['engine']), float('nan')):.3g}",
            )
            for row in chosen
        ),
    ]  # fmt: skip
