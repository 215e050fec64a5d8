"""Peak memory of one search, in a process of its own.

In this process an allocator that keeps what it once had would hide a contender behind the one before it. So a fresh
process loads generator and images, notes its resident size, searches once, and reports by how much the peak lies above:
all that this way of searching costs, compilers and libraries that it loads included (not child processes that it
starts). On a GPU it is torch's own peak on the device, beyond generator and images; JAX has an allocator of its own, so
that nothing is reported for it there.

``python -m bench.race.memory FILE CONTENDER THREADS`` is that process: FILE holds the case, and JSON on stdout is the
answer.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from .cases import Case

ROOT = Path(__file__).resolve().parents[2]
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_of_search(case: Case, contender: str, images: int, starts: int) -> int | None:
    """Bytes of the peak of `contender` searching the first `images` × `starts` of `case`; None if nobody can tell."""
    if case.starts.device.type == "cuda" and contender.startswith("jax"):
        return None
    part = Case(case.name, case.gen, case.images[:images], case.starts[:starts], case.config, case.open_shares)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.pt"
        torch.save(part, path)
        command = [sys.executable, "-m", "bench.race.memory", str(path), contender, str(torch.get_num_threads())]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {contender} failed:\n{done.stderr}")
    return int(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])


def measure(case: Case, contender: str) -> int:
    """Bytes of the peak of one search of `case` in this process, above what it holds now."""
    from .contenders import contenders

    start = contenders()[contender].start
    device = case.starts.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        start(case)(case.images, case.starts)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")  # Linux: the peak so far becomes the present size
    before = _resident()
    start(case)(case.images, case.starts)
    return max(0, _peak() - before)


def _peak() -> int:
    if _STATUS.is_file():
        # Not ru_maxrss: on Linux it survives exec, so that it would be the peak of the process that started this one.
        return _linux("VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _resident() -> int:
    return _linux("VmRSS") if _STATUS.is_file() else _peak()


def _linux(field: str) -> int:
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    # The file was written by peak_of_search a moment ago.
    print(json.dumps({"peak_bytes": measure(torch.load(sys.argv[1], weights_only=False), sys.argv[2])}))
