"""Everything that is to be measured on a GPU, in one command and less than nine minutes.

    python -m bench.gpu [--out DIR] [--parts gate,speed] [--quick]      on a GPU
    python -m bench.gpu --smoke                                         all of it on the CPU, tiny: does it run?
    python -m bench.gpu --model                                         what is predicted; needs no GPU

It wants a checkout and no installation. Each part runs in a process of its own with a time limit (part.py); one
that fails, hangs or crashes is reported and the others go on. DIR gets gpu.json, written after every part, gpu.txt, the
short table that is printed last, gpu.log, and <gpu>.json, the tuned tiles, which also go into kernels/configs/.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]
LEAST = 8.0  # seconds: a part is not begun with less
GRACE = 5.0  # seconds between asking a process to end and ending it
PATIENCE = 4.0  # times the limit of a part, in a smoke run


@dataclasses.dataclass(frozen=True)
class PartEntry:
    """A part.

    Attributes:
        target: "module:function", called with a part.Part and `arguments`.
        seconds: most it may take.
        arguments: JSON.
    """

    target: str
    seconds: float
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _by_precision(name: str, target: str, *seconds: float) -> dict[str, PartEntry]:
    return {
        f"{name}-{precision}": PartEntry(target, limit, {"precision": precision})
        for precision, limit in zip(("float32", "bf16", "tf32"), seconds, strict=True)
    }


def _peer(name: str, seconds: float, pairs: Sequence[int] = (), precision: str = "float32") -> PartEntry:
    return PartEntry("bench.gpu.peers:against", seconds, {"name": name, "pairs": list(pairs), "precision": precision})


GATES = "bench.gpu.engine:gates"
REFERENCES = PartEntry("bench.gpu.engine:references", 0)
"""Beside the others where there are gates: on the CPU, which has nothing else to do."""

PARTS: dict[str, PartEntry] = {
    "admission": PartEntry("bench.gpu.checks:admitted", 60),
    "machine": PartEntry("bench.gpu.machine:machine", 30),
    **_by_precision("gate", GATES, 90, 60, 45),
    **_by_precision("speed", "bench.gpu.engine:speed", 60, 60, 20),
    "profile": PartEntry("bench.gpu.engine:profile", 40),
    "growth": PartEntry("bench.gpu.engine:growth", 60),
    "tune": PartEntry("bench.gpu.tune:tune", 90),
    **{
        f"again-{precision}": PartEntry("bench.gpu.engine:speed", 25, {"precision": precision, "again": True})
        for precision in ("float32", "bf16")
    },
    "peer-plain_loop": _peer("plain_loop", 30),
    "peer-compiled_vmap": _peer("compiled_vmap", 70, (64,)),
    "peer-bmm_fold": _peer("bmm_fold", 40, (64, 512)),
    "peer-vmap": _peer("vmap", 25, (64,)),
    "peer-grouped_conv": _peer("grouped_conv", 30, (16, 64)),
    "peer-jax_vmap": _peer("jax_vmap", 50, (64,)),
    "kernels": PartEntry("bench.gpu.kernels:kernels", 50),
    "tests": PartEntry("bench.gpu.checks:tests", 150),
    "precision": PartEntry("bench.gpu.precision:precision_table", 60),
    "memcheck": PartEntry("bench.gpu.checks:sanitize", 60, {"tool": "memcheck"}),
    "memory": PartEntry("bench.gpu.engine:peaks", 50),
    "racecheck": PartEntry("bench.gpu.checks:sanitize", 60, {"tool": "racecheck"}),
    "tf32-bmm_fold": _peer("bmm_fold", 40, (64, 512), "tf32"),
    "tf32-compiled_vmap": _peer("compiled_vmap", 70, (64, 256), "tf32"),
}
"""In the order of their worth: is it right, how fast is it, where does the time go, does it stay fast as a job grows;
then what tuning gains, and the speed with it, the peers, and all else. The limits come to more than all may take, and
few parts reach theirs: the last ones are left out if time runs short, and can be asked for alone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the parts; returns 0 if all of them did what they should."""
    given = _parse(argv)
    if given.model:
        return _model(given)
    names = chosen(given.parts)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by the way of `finally`
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, open(out / "gpu.log", "w", encoding="utf-8") as log:
        results = run(names, given, out, Path(work), log)
    from . import table

    text = "\n".join(table.lines(results)) + "\n"
    (out / "gpu.txt").write_text(text, encoding="utf-8")
    print(text, flush=True)
    return 0 if all(part["status"] == "ok" for part in results["parts"].values()) else 1


def run(names: Sequence[str], given: argparse.Namespace, out: Path, work: Path, log: TextIO) -> dict[str, Any]:
    """The parts, one after the other; gpu.json is written after each."""
    began = time.time()
    end = began + 60 * given.minutes
    results: dict[str, Any] = {"began": began, "smoke": given.smoke, "parts": {}}
    order = {
        "device": "cpu" if given.smoke else "cuda", "smoke": given.smoke, "quick": given.quick,
        "generator": given.generator, "data": given.data, "results_file": str(out / "gpu.json"), "work": str(work),
        "out": str(out),
    }  # fmt: skip
    with contextlib.ExitStack() as beside:
        if any(PARTS[name].target == GATES for name in names):
            process = _start("references", REFERENCES, {**order, "device": "cpu"}, end - began, work, log)
            beside.callback(_end, process)
        for name in names:
            entry = PARTS[name]
            limit = min(entry.seconds * (PATIENCE if given.smoke else 1), end - time.time())
            if limit < min(LEAST, entry.seconds):
                results["parts"][name] = {"status": "skipped", "error": "no time left", "seconds": 0.0, "rows": []}
            else:
                print(f"{time.time() - began:6.1f} s  {name}, at most {limit:.0f} s", flush=True)
                results["parts"][name] = one(name, entry, order, limit, work, log)
            temporary = out / "gpu.json.part"
            temporary.write_text(json.dumps(results, indent=1), encoding="utf-8")
            temporary.replace(out / "gpu.json")
    return results


def one(name: str, entry: PartEntry, order: Mapping[str, Any], limit: float, work: Path, log: TextIO) -> dict[str, Any]:
    """Run a part: its status ("ok", "failed" or "timed out"), seconds, rows, and what it said last if it failed."""
    began = time.monotonic()
    before = log.tell()
    process = _start(name, entry, order, limit, work, log)
    try:
        status = "ok" if process.wait(limit) == 0 else "failed"
    except subprocess.TimeoutExpired:
        status = "timed out"
    finally:
        _end(process)
    found: dict[str, Any] = {
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
        "rows": _rows(_rows_file(work, name)),
    }
    if status != "ok":
        log.flush()
        said = Path(log.name).read_bytes()[before:].decode("utf-8", errors="replace").splitlines()
        found["error"] = f"exit {process.returncode}: " + "\n".join(said[-12:])
    return found


def _start(
    name: str, entry: PartEntry, order: Mapping[str, Any], limit: float, work: Path, log: TextIO
) -> subprocess.Popen[bytes]:
    told = {
        **order, "rows_file": str(_rows_file(work, name)), "deadline": time.time() + limit,
        "arguments": dict(entry.arguments),
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.gpu.part", entry.target, json.dumps(told)]
    print(f"\n===== {name}", file=log, flush=True)
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(order["device"]), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        preexec_fn=os.setpgrp,  # so that what it starts can be ended with it
    )  # fmt: skip


def _rows_file(work: Path, name: str) -> Path:
    return work / f"{name}.rows"


def environment(device: str) -> dict[str, str]:
    """Of the parts: this checkout's packages, and what JAX and Triton read from nowhere else."""
    env = dict(os.environ)
    checkout = [str(ROOT), str(ROOT / "bench" / "gpu" / "checkout")]
    env["PYTHONPATH"] = os.pathsep.join([*checkout, *filter(None, [env.get("PYTHONPATH")])])
    env["PYTHONUNBUFFERED"] = "1"
    env["TRITON_INTERPRET"] = "1" if device == "cpu" else "0"
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else JAX takes three quarters of the GPU's memory
    return env


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part and all that it started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def _rows(path: Path) -> list[dict[str, Any]]:
    """What a part has found; a line that it was stopped in is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def chosen(names: str) -> list[str]:
    """Names of parts, or how they begin ("gate" for all gates), in the order of PARTS.

    Raises ValueError for what is neither.
    """
    wanted = names.split(",") if names else [""]
    for name in wanted:
        if not any(known.startswith(name) for known in PARTS):
            raise ValueError(f"no part is called {name!r}; there are {', '.join(PARTS)}")
    return [known for known in PARTS if any(known.startswith(name) for name in wanted)]


def _model(given: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "bench.gpu.model", "--case", given.case]
    return subprocess.run(command, cwd=ROOT, env=environment("cuda"), check=False).returncode


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="", metavar="A,B", help=f"of {', '.join(PARTS)}, or how they begin")
    parser.add_argument("--minutes", type=float, default=8.5, help="most of all parts together (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("gpu-output"), help="folder of what is written (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer settings in each part")
    parser.add_argument("--smoke", action="store_true", help="tiny, on the CPU, by Triton's interpreter")
    parser.add_argument("--generator", default="", metavar="FILE", help="trained generator for the part 'precision'")
    parser.add_argument("--data", default="", metavar="DIR", help="MNIST's idx files, for the part 'precision'")
    parser.add_argument("--model", action="store_true", help="print the predicted bytes and times and measure nothing")
    parser.add_argument("--case", default="dcgan32x1", help="of --model (default: %(default)s)")
    given = parser.parse_args(argv)
    try:
        chosen(given.parts)
    except ValueError as error:
        parser.error(str(error))
    given.out = given.out.resolve()
    for name in ("generator", "data"):
        if getattr(given, name):
            setattr(given, name, str(Path(getattr(given, name)).resolve()))
    return given
