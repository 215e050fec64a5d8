"""Parts that only say yes or no: the admission, the GPU's tests, and the kernels under compute-sanitizer."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch

import adgan_fast
from adgan_fast import admission
from adgan_fast.admission import trial
from adgan_fast.config import PRECISIONS, WEIGHTS, SearchConfig
from adgan_fast.core.precision import arithmetic
from adgan_fast.engine import named
from adgan_fast.models import DCGANGenerator

from ..race import cases
from .kernels import BOUNDS, largest_error, layer_settings, program_of
from .part import Part
from .run import ROOT, environment

TESTS = ("tests/kernels", "tests/engine/triton", "tests/admission", "tests/training")


def admitted(part: Part) -> None:
    """Rows "admitted_after" of the engines as they are tried before their first use on a machine, in seconds."""
    asked = [("triton", precision, "per_seed") for precision in PRECISIONS]
    asked += [("triton", "float32", weights) for weights in WEIGHTS[1:]]
    asked += [("grouped", "float32", weights) for weights in WEIGHTS]
    if part.smoke:  # the interpreter takes its time
        trial.STARTS, trial.SUBJECTS = 1, {"tiny": trial.Subject(lambda: DCGANGenerator(8, 1, 8, 2), 8, (1, 8, 8), 1)}
    for name, precision, weights in (
        [("triton", "float32", "frozen")] if part.smoke else asked[: 3 if part.quick else None]
    ):
        title = f"{name} {precision} {weights}"
        if part.left() < 8:
            part.fail("admission", title, "no time left")
            continue
        found = admission.anew(
            named(name), SearchConfig(precision=precision, weights=weights), torch.device(part.device)
        )
        if found is None or found.wrong:
            part.fail("admission", title, found.wrong if found else "no memory")
        else:
            part.add("admission", title, "admitted_after", found.seconds, "s", note=found.note)


def tests(part: Part) -> None:
    """Rows "count" of the tests that passed, failed, ...; what there was no time for is not among them."""
    where = [path for path in TESTS if (ROOT / path).exists()]
    # In a smoke run one file's tests that take a moment; else all that run on the GPU.
    which = [str(ROOT / "tests/kernels/test_geometry.py")] if part.smoke else [*where, "-k", "cuda"]
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "--no-header", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist") and not part.smoke:
        command += ["-n", str(min(8, os.cpu_count() or 1)), "--dist", "worksteal"]  # most of the time goes to compiling
    command += which
    log = Path(part.work) / "tests.log"
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment(part.device)
        )
        try:
            process.wait(max(1.0, part.left() - 4))
        except subprocess.TimeoutExpired:
            part.fail("tests", "pytest", "stopped before its end: no time left")
            process.kill()
            process.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    part.say(said)
    found = outcomes(said)
    for outcome, count in Counter(outcome for _, outcome in found).items():
        part.add("tests", "pytest", outcome.lower(), count, "tests")
    for name, outcome in found:
        if outcome in ("FAILED", "ERROR"):
            part.fail("tests", "pytest", name)
    if process.returncode not in (0, -9):
        raise SystemExit(f"pytest ended with {process.returncode}")


def outcomes(said: str) -> list[tuple[str, str]]:
    """Tests and their outcomes in what `pytest -v` has printed by now, with pytest-xdist or without."""
    outcome = "(PASSED|FAILED|ERROR|SKIPPED)"
    spread = re.findall(rf"^\[gw\d+\] \[ *\d+%\] {outcome} (\S.*?) *$", said, re.MULTILINE)
    alone = re.findall(rf"^(\S+::.*?) {outcome}\b", said, re.MULTILINE)
    return [(name, how) for how, name in spread] + alone


def sanitize(part: Part, tool: str) -> None:
    """A row "errors" of the tool's count, over every kernel on small maps; each tensor has memory of its own."""
    small = [sys.executable, "-m", "bench.gpu.checks", part.device]
    if part.smoke:
        subprocess.run(small, cwd=ROOT, check=True, env=environment(part.device))
        return
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).is_file():
        part.fail(tool, "compute-sanitizer", "not on this machine")
        return
    env = {**environment(part.device), "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(
        [program, "--tool", tool, "--print-limit", "20", *small], cwd=ROOT, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    part.say(done.stdout[-20000:] + done.stderr[-4000:])
    # memcheck: "ERROR SUMMARY: 0 errors"; racecheck: "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    found = re.findall(r"SUMMARY: (\d+) (?:errors?|hazards?)", done.stdout)
    if not found or "all kernels ran" not in done.stdout:
        raise SystemExit(f"{tool} came to no end: exit {done.returncode}")
    part.add(tool, "compute-sanitizer", "errors", int(found[-1]), "errors")


def every_kernel(device: str) -> None:
    """Every kernel once, on small maps, held to float64; then a search in one chunk, which needs no graph."""
    part = Part(device, True, True, "", "", os.devnull, "", "", "", float("inf"))  # smoke: small maps, two steps
    config = SearchConfig(n_seed=2, steps=2)
    case = cases.build("dcgan8x1", config, images=2, device=device, width=16, latent=32)
    program = program_of(part, "dcgan8x1")
    for precision in PRECISIONS[:1] if device == "cpu" else PRECISIONS:
        with arithmetic(precision):
            for setting in layer_settings(part, program, precision):
                error = largest_error(setting)
                if not error <= BOUNDS[precision]:
                    raise SystemExit(f"{setting.name}: error {error:.1e}")
        found = adgan_fast.search(
            case.gen, case.images, config=config.replace(engine="triton", precision=precision, starts=case.starts)
        )
        if not bool(torch.isfinite(found.losses).all()):
            raise SystemExit(f"{precision}: losses that are not finite")
    print("all kernels ran", flush=True)


if __name__ == "__main__":
    every_kernel(sys.argv[1])
