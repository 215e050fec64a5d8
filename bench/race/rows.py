"""Results as rows: one JSON object a line, keyed by (case, engine, metric, device, versions, commit)."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import adgan_fast

ROOT = Path(__file__).resolve().parents[2]
KEY = ("case", "engine", "metric", "device", "versions", "commit")
Row = dict[str, Any]


def row(case: str, engine: str, kind: str, metric: str, value: float, unit: str, device: str, **more: Any) -> Row:
    """One result of `engine` (of kind "engine" or "peer") on this machine; `more` is stored beside it.

    Torch's version counts for everybody, JAX's for its own peers.
    """
    key: Row = {"case": case, "engine": engine, "metric": metric, "device": device_name(device)}
    packages = ("jax",) if engine.startswith("jax") else ()
    key |= {"versions": versions(packages), "commit": commit()}
    return key | {"kind": kind, "value": value, "unit": unit, "measured": _now()} | more


def save(path: str | os.PathLike[str], rows: Iterable[Row]) -> Path:
    """Put `rows` into the file at `path`, each in place of the one with its key; the file is sorted by key."""
    path = Path(path)
    known = {_key(r): r for r in (load(path) if path.exists() else [])}
    known |= {_key(r): r for r in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("".join(json.dumps(known[key], ensure_ascii=False) + "\n" for key in sorted(known)))
    temporary.replace(path)
    return path


def load(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a file; ValueError names file and line of one that is not a row."""
    found = []
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            read = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(read, dict) or not {*KEY, "value"} <= read.keys():
            raise ValueError(f"{path}, line {number}: a row needs {', '.join(KEY)} and value")
        found.append(read)
    return found


@functools.cache
def device_name(device: str) -> str:
    """ "NVIDIA H200", or "AMD EPYC 9254, 2 cores, AVX512": what the time depends on."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    isa = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    used = "" if threads == cores() else f", {threads} thread{'s'[: threads != 1]}"
    return f"{_cpu_model()}, {cores()} core{'s'[: cores() != 1]}{used}, {isa}"


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def results_file(device: str) -> Path:
    """bench/results/<machine>.jsonl."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    return ROOT / "bench" / "results" / f"{slug}.jsonl"


@functools.cache
def versions(also: tuple[str, ...] = ()) -> dict[str, str]:
    """Versions of adgan_fast, numpy, Python and torch, and of the packages in `also`."""
    found = {"python": platform.python_version(), "adgan_fast": adgan_fast.__version__}
    for package in ("numpy", "torch", *also):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return dict(sorted(found.items()))


@functools.cache
def commit() -> str:
    """``git describe`` of this tree, "-dirty" with changes; "unknown" where there is no history."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--tags"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


@functools.cache
def _now() -> str:
    """Start of this run, so that a table can take the latest of several commits."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _key(r: Row) -> tuple[str, ...]:
    return tuple(json.dumps(r[name], sort_keys=True) if name == "versions" else str(r[name]) for name in KEY)


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return re.sub(r"\((R|TM)\)|\s+CPU|\s*@.*$|\s+Processor", "", found.group(1)).strip()
    return platform.processor() or platform.machine()
