"""``adgan-fast check`` without a generator: the engines of a GPU, tried anew on this machine (adgan_fast/admission)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
import typer

from .. import admission
from ..admission import Verdict, kept, machine
from ..config import WEIGHTS, SearchConfig
from ..engine import named
from .given import Mistake
from .table import columns


def check(asked: Sequence[str] | None, weights: str | None, precision: str, device: str | None, as_json: bool) -> int:
    """Try engines, print the verdicts, and keep them; the exit status.

    Args:
        asked: names of engines; None: all that are tried so.
        weights: the way of owning weights; None: all.
    """
    where = _gpu(device)
    names = list(dict.fromkeys(asked or admission.ADMITTED))
    for name in names:
        if name not in admission.ADMITTED:
            raise Mistake(f"without a generator --engine must be one of {', '.join(admission.ADMITTED)}, got {name!r}")
    try:
        configs = [SearchConfig(weights=way, precision=precision) for way in ([weights] if weights else WEIGHTS)]  # type: ignore[arg-type]
    except ValueError as error:
        raise Mistake(str(error)) from error
    rows = [_row(name, config, where) for name in names for config in configs]
    typer.echo(_json(rows, where) if as_json else "\n".join(_lines(rows, where)))
    ran = [found for _, _, found in rows if isinstance(found, Verdict)]
    return 0 if ran and not any(found.wrong for found in ran) else 1


Row = tuple[str, SearchConfig, Verdict | str]
"""An engine, how it was asked, and what was found, or why nothing was."""


def _gpu(device: str | None) -> torch.device:
    if not torch.cuda.is_available():
        raise Mistake(
            "there is no CUDA device, and without a generator it is a GPU that is checked; "
            "name a generator to check the engines of this machine: adgan-fast check GENERATOR"
        )
    try:
        found = torch.device(device or "cuda")
    except RuntimeError as error:
        raise Mistake(f"--device: {error}") from error
    if found.type != "cuda":
        raise Mistake(f"without a generator it is a GPU that is checked, got --device {device}")
    return found


def _row(name: str, config: SearchConfig, device: torch.device) -> Row:
    try:
        found = admission.anew(named(name), config, device)
    except ValueError as error:
        return name, config, str(error)
    return name, config, found or "not tried, for want of memory"


def _lines(rows: list[Row], device: torch.device) -> list[str]:
    table = [
        (name, config.precision, config.weights, *_cells(found)) for name, config, found in rows
    ]  # fmt: skip
    notes = [
        f"{name} ({config.precision}, {config.weights}): {said}"
        for name, config, found in rows
        if (said := found if isinstance(found, str) else found.wrong or found.note)
    ]
    return [str(machine.of(device)), *columns([("engine", "", "", "", "seconds"), *table]), *notes]


def _cells(found: Verdict | str) -> tuple[str, str]:
    return ("not tried", "") if isinstance(found, str) else (found.word, f"{found.seconds:.1f}")


def _json(rows: list[Row], device: torch.device) -> str:
    def of(name: str, config: SearchConfig, found: Verdict | str) -> dict[str, Any]:
        what = {"why_not": found} if isinstance(found, str) else found._asdict()
        return {"engine": name, "precision": config.precision, "weights": config.weights, **what}

    return json.dumps({"machine": machine.of(device)._asdict(), "verdicts": [of(*row) for row in rows]}, indent=1)


def known() -> list[dict[str, Any]] | None:
    """The kept verdicts on the current GPU, oldest first; None where there is no GPU."""
    if not torch.cuda.is_available():
        return None
    here = machine.of(torch.device("cuda"))
    return [{**of._asdict(), **found._asdict()} for seen, of, found in kept.read() if seen == here]
