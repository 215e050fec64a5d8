"""What the processor is called."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """As /proc/cpuinfo has it, else as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
