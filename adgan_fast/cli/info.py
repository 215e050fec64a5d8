"""``adgan-fast info``: what is installed, what this machine has, and which engines run on it."""

from __future__ import annotations

import json
import platform
from typing import Annotated, Any

import torch
import typer

from .. import __version__, engines, ops
from ..admission import ADMITTED, Verdict
from ..core import plan
from ..core.processor import processor
from . import machine
from .table import columns


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Versions, processor, memory, GPU, and each engine: whether it runs here, or why not."""
    found = facts()
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found)))


def facts() -> dict[str, Any]:
    """What `info` prints."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "processor": processor(),
        "instruction_set": _instruction_set(),
        "threads": torch.get_num_threads(),
        "memory_free_bytes": plan.free_bytes(torch.device("cpu")),
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "engines": [
            {"name": e.name, "available": e.available, "why_not": e.why_not, "exact": e.exact} for e in engines()
        ],
        "tried_on_gpu": machine.known(),
    }


PACKAGES = ("adgan_fast", "torch", "triton", "numpy")


def _version(package: str) -> str | None:
    """None where it is not installed."""
    from importlib import metadata

    if package == "adgan_fast":
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _instruction_set() -> str | None:
    """Of the kernels that `native` takes here; None without the C++ extension."""
    if ops.load_extension() is not None:
        return None
    return ops.best_instruction_set()


def _lines(found: dict[str, Any]) -> list[str]:
    versions = [(name, version or "not installed") for name, version in found["versions"].items()]
    facts = [
        ("processor", f"{found['processor']}, {found['threads']} threads"),
        ("kernels", found["instruction_set"] or "no C++ extension"),
        ("memory free", f"{found['memory_free_bytes'] / 2**30:.1f} GiB"),
        ("CUDA device", found["cuda_device"] or "none"),
    ]
    engines = [(e["name"], "runs here" if e["available"] else f"no: {e['why_not']}") for e in found["engines"]]
    lines = [*columns([*versions, *facts]), "", "engines, fastest first:", *columns(engines)]
    return lines if found["tried_on_gpu"] is None else [*lines, "", *_tried(found["tried_on_gpu"])]


def _tried(verdicts: list[dict[str, Any]]) -> list[str]:
    """What is known of the engines on this GPU (adgan_fast/admission)."""
    rows: list[tuple[str, str]] = []
    for name in ADMITTED:
        mine = [v for v in verdicts if v["engine"].startswith(name)]
        rows += [(v["engine"], f"{v['precision']}, {v['weights']}: {_said(v)}") for v in mine] or [
            (name, "not yet checked: it will be before its first use")
        ]
    return ["tried on this GPU (`adgan-fast check` tries anew):", *columns(rows)]


def _said(verdict: dict[str, Any]) -> str:
    return str(Verdict(*(verdict[field] for field in Verdict._fields)))
