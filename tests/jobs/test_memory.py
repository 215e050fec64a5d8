"""The memory of a job does not grow with its images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from adgan_fast import jobs
from adgan_fast.jobs import Item
from tests.support.paths import ROOT

ALLOWED = 300 * 10**6  # bytes


class Endless:
    """As many images as asked for, made when they are read."""

    name = "endless"

    def __init__(self, number: int) -> None:
        self.number = number

    def items(self):
        return (Item(f"folder/image-{row:08d}.png", "good", f"{row}:{row}") for row in range(self.number))

    def read(self, first, stop):
        return (np.full((1, 8, 8), row % 255, np.uint8) for row in range(first, stop))

    def fingerprint(self):
        return {"kind": "endless"}


def main(number: int, out: str) -> None:
    """A job of so many images, through one layer and no step; the peak of this process, as JSON."""
    gen = nn.Sequential(nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)))
    config = jobs.runner.SearchConfig(n_seed=1, steps=0, latent_shape=(4,))
    result = jobs.run(gen, Endless(number), out, config=config, shard=4096)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak": peak, "rows": sum(result.counts.values()), "seconds": result.seconds}))


def peak_of(number: int, out: Path) -> int:
    program = f"from tests.jobs.test_memory import main; main({number}, {str(out)!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    print(done.stdout)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == number
    return found["peak"]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_a_million_images_take_the_memory_of_ten_thousand(tmp_path):
    few, many = peak_of(10**4, tmp_path / "few"), peak_of(10**6, tmp_path / "many")
    assert many <= few + ALLOWED, f"{many / 1e6:.0f} MB at 10^6, {few / 1e6:.0f} MB at 10^4"
