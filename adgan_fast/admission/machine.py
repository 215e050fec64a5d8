"""What a verdict of an admission holds for: a GPU, its driver, and all software between it and a score."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/sys/module/amdgpu/version"))
"""Where a kernel module says its version, in the first line."""
SOURCES = ("kernels", "engine", "ops", "core", "generator", "admission")
"""The packages of adgan_fast whose code, and tuned tiles, decide what an engine computes there, and how it is tried."""


class Machine(NamedTuple):
    """A GPU and the software on it; `sources` tells checkouts of one version apart."""

    gpu: str
    driver: str
    torch: str
    triton: str
    adgan_fast: str
    sources: str

    def __str__(self) -> str:
        return (
            f"{self.gpu} (driver {self.driver}, torch {self.torch}, triton {self.triton}, "
            f"adgan_fast {self.adgan_fast} {self.sources[:8]})"
        )


def of(device: torch.device) -> Machine:
    """The machine of a device; of the CPU, which runs kernels under Triton's interpreter, too."""
    from .. import __version__

    on_gpu = device.type == "cuda"
    gpu = torch.cuda.get_device_name(device) if on_gpu else "Triton's interpreter"
    return Machine(gpu, driver() if on_gpu else "none", str(torch.__version__), _triton(), __version__, sources())


@functools.cache
def driver() -> str:
    """The version of the GPU's driver as its kernel module says it, else the CUDA version that it serves."""
    for file in DRIVERS:
        try:
            line = file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        except OSError:
            continue
        found = re.search(r"\d+\.[\d.]+", line)
        return found[0] if found else line.strip()
    served = getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")
    return f"of CUDA {served()}"


def _triton() -> str:
    """Its version, without importing it."""
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return "unknown" if importlib.util.find_spec("triton") else "none"


@functools.cache
def sources() -> str:
    """SHA-256 of the files in SOURCES, their names and contents, in hexadecimal."""
    digest = hashlib.sha256()
    for name in SOURCES:
        spec = importlib.util.find_spec(f"adgan_fast.{name}")
        assert spec is not None
        for folder in map(Path, spec.submodule_search_locations or ()):
            for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".json")):
                content = path.read_bytes()
                digest.update(f"{name}/{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()
