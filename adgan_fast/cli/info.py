"""``adgan-fast info``: what is installed, what this machine has, and which engines run on it."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from .. import __version__, engines, ops
from ..core import plan
from .table import columns


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Versions, processor, memory, GPU, and each engine: whether it runs here, or why not."""
    found = facts()
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found)))


def facts() -> dict[str, Any]:
    """What `info` prints."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "processor": _processor(),
        "instruction_set": _instruction_set(),
        "threads": torch.get_num_threads(),
        "memory_free_bytes": plan.free_bytes(torch.device("cpu")),
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "engines": [
            {"name": e.name, "available": e.available, "why_not": e.why_not, "exact": e.exact} for e in engines()
        ],
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


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _instruction_set() -> str | None:
    """Of the kernels that `native` takes here; None without the C++ extension."""
    if ops.load_extension() is not None:
        return None
    return ops.best_instruction_set()


def _lines(found: dict[str, Any]) -> list[str]:
    versions = [(name, version or "not installed") for name, version in found["versions"].items()]
    machine = [
        ("processor", f"{found['processor']}, {found['threads']} threads"),
        ("kernels", found["instruction_set"] or "no C++ extension"),
        ("memory free", f"{found['memory_free_bytes'] / 2**30:.1f} GiB"),
        ("CUDA device", found["cuda_device"] or "none"),
    ]
    engines = [(e["name"], "runs here" if e["available"] else f"no: {e['why_not']}") for e in found["engines"]]
    return [*columns([*versions, *machine]), "", "engines, fastest first:", *columns(engines)]
