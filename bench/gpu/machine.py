"""Part "machine": what the figures were made on, and its own rates of copying and of multiplying."""

from __future__ import annotations

import functools
import importlib.metadata
import shutil
import statistics
import subprocess

import torch

from adgan_fast.core.precision import arithmetic

from .part import Part

CASE = "machine"


def machine(part: Part) -> None:
    """Rows "rate": "copy", in bytes read and written a second; bf16, tf32, float32, in FLOP/s of a large product."""
    _describe(part)
    _copy(part)
    device = torch.device(part.device)
    side = 128 if part.smoke else 8192
    for name, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32), ("float32", torch.float32)):
        with arithmetic(name):
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            times = part.clock.whole(functools.partial(torch.matmul, a, b), about=0.5, least=10, warm=3)
        part.add(CASE, name, "rate", 2 * side**3 / statistics.median(times), "FLOP/s", "machine")


def _copy(part: Part) -> None:
    source = torch.randn(2**16 if part.smoke else 2**30, device=part.device)
    target = torch.empty_like(source)
    times = part.clock.whole(lambda: target.copy_(source), about=0.5, least=10, warm=3)
    part.add(CASE, "copy", "rate", 2 * source.nbytes / statistics.median(times), "bytes/s", "machine")


def _describe(part: Part) -> None:
    versions = {}
    for package in ("torch", "triton", "jax", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "-"
    part.say(f"versions {versions}")
    if not part.clock.cuda:
        return
    found = torch.cuda.get_device_properties(0)
    part.add(CASE, "memory", "bytes", found.total_memory, "bytes", "machine", versions=versions)
    part.add(CASE, "multiprocessors", "count", found.multi_processor_count, "", "machine")
    part.add(CASE, "cache", "bytes", getattr(found, "L2_cache_size", 0), "bytes", "machine")
    part.say(f"{found.name}, capability {found.major}.{found.minor}, CUDA {torch.version.cuda}")
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu"
        said = subprocess.run(["nvidia-smi", query, "--format=csv"], capture_output=True, text=True, check=False)
        part.say(said.stdout.strip())
