"""One part of bench.gpu, in a process of its own: ``python -m bench.gpu.part MODULE:FUNCTION ORDER``.

A CUDA error stays with a process until its end, and a hang or a crash is its end: so no part can take another with it.
The function gets a `Part` and says what it finds by `Part.add`, row by row; rows are on disk at once, so that a part
that is stopped has kept what it had found by then.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..race import rows
from .clock import Clock


@dataclasses.dataclass(frozen=True)
class Part:
    """What a part is told, and where its findings go.

    Attributes:
        device: "cuda", or "cpu" where Triton's interpreter runs the kernels.
        smoke: everything as small as can be; the figures mean nothing.
        quick: fewer settings.
        generator: a trained generator's file, or "".
        data: the folder of MNIST's idx files, or "".
        rows_file: JSON lines of what was found.
        results_file: what earlier parts found (see run.py), for the machine's own rates.
        work: a folder for files that parts hand on.
        out: where files for the user go.
        deadline: time.time() at which the process will be stopped.
    """

    device: str
    smoke: bool
    quick: bool
    generator: str
    data: str
    rows_file: str
    results_file: str
    work: str
    out: str
    deadline: float

    @property
    def clock(self) -> Clock:
        return Clock(torch.device(self.device))

    def left(self) -> float:
        """Seconds until the process will be stopped."""
        return self.deadline - time.time()

    def say(self, line: str) -> None:
        """A line for the log."""
        print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)

    def add(
        self, case: str, name: str, metric: str, value: float, unit: str, kind: str = "engine", **more: Any
    ) -> None:
        """Keep a figure."""
        self.say(f"{case} {name} {metric} {value:.6g} {unit} {more or ''}".rstrip())
        self._put(rows.row(case, name, kind, metric, value, unit, self.device, **more))

    def add_times(self, case: str, name: str, times: Sequence[float], kind: str = "engine", **more: Any) -> float:
        """Keep times as one row of their median, with least, most and count; returns the median, in seconds."""
        median = statistics.median(times)
        spread = {"low": min(times), "high": max(times), "rounds": len(times)}
        self.add(case, name, "seconds", median, "s", kind, **spread, **more)
        return median

    def fail(self, case: str, name: str, reason: str) -> None:
        """Keep that something has no figure, and why."""
        self.say(f"{case} {name} NO FIGURE: {reason}")
        self._put({"case": case, "engine": name, "failed": reason})

    def _put(self, row: dict[str, Any]) -> None:
        with open(self.rows_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rates(self) -> dict[str, float]:
        """What the part "machine" measured: "copy" (bytes/s), "bf16", "tf32", "float32" (FLOP/s); {} if it did not."""
        path = Path(self.results_file)
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.is_file() else {}
        found = parts.get("machine", {}).get("rows", [])
        return {row["engine"]: row["value"] for row in found if row.get("metric") == "rate"}


def main(arguments: Sequence[str]) -> None:
    target, order = arguments
    told = json.loads(order)
    keywords = told.pop("arguments")
    part = Part(**told)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)  # which engine, and why not with graphs
    signal.alarm(max(1, int(part.left()) + 15))  # should the process that limits this one be gone
    if part.device == "cpu":
        torch.set_num_threads(1)  # what is this small gains nothing by more
    module, _, function = target.partition(":")
    getattr(importlib.import_module(module), function)(part, **keywords)


if __name__ == "__main__":
    main(sys.argv[1:])
