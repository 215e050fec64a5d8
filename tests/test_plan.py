"""Chunks from free memory: what is planned, and that the bytes predicted are those that are used."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from generators import FAMILIES

import adgan_fast
from adgan_fast import plan
from adgan_fast.engines import Job
from adgan_fast.losses import Loss
from adgan_fast.starts import Starts

pytestmark = pytest.mark.usefixtures("threads", "one_thread")


@dataclasses.dataclass
class FakeEngine:
    """Takes a thousand bytes for a pair, and would like ten pairs at once."""

    name: str = "fake"
    default: int = 10

    def bytes_of_pair(self, job: Job) -> int:
        return 1000

    def default_chunk(self, job: Job) -> int:
        return self.default


def make_job(n_seed: int = 4, **settings) -> Job:
    case = FAMILIES["DCGAN of 8"]
    cpu, config = torch.device("cpu"), adgan_fast.SearchConfig(n_seed=n_seed, **settings)
    starts = Starts(
        "shared", seed=0, prior="normal", n_seed=n_seed, latent_shape=case.latent_shape, n_images=1, device=cpu,
        dtype=torch.float32,
    )  # fmt: skip
    return Job(
        case.module, None, "", config, Loss("l2"), starts, case.latent_shape, case.image_shape, cpu, torch.float32
    )


@pytest.mark.parametrize(
    ("free", "threads", "n_images", "settings", "chunk"),
    [
        (10**9, 1, 100, {}, 10),  # memory enough: the engine's own
        (10**4, 1, 100, {}, 7),  # less
        (10**4, 2, 100, {}, 3),  # two chunks at the same time
        (2000, 2, 100, {}, 1),  # room for one at a time
        (10**9, 1, 1, {}, 4),  # no more than there are pairs
        (10**9, 1, 3, {"weights": "per_sample"}, 3),  # or images
        (10**3, 1, 100, {"chunk": 50}, 50),  # the user knows
    ],
)
def test_the_chunk_is_the_engines_own_where_that_fits_and_else_what_fits(
    free, threads, n_images, settings, chunk, monkeypatch
):
    monkeypatch.setattr(plan, "free_bytes", lambda device: free)
    torch.set_num_threads(threads)
    assert plan.planned(FakeEngine(), make_job(**settings), n_images).chunk == chunk


def test_one_pair_that_does_not_fit_is_refused_with_both_sizes(monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"(?s)MiB.*'fake'.*MiB.*cpu"):
        plan.planned(FakeEngine(), make_job(), 1)


def test_free_bytes_are_some_of_the_machines():
    assert 0 < plan.free_bytes(torch.device("cpu")) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("limit", "used", "left"), [("5000", "2000", [3000]), ("max", "2000", []), ("5000", "9000", [0])]
)
def test_a_containers_limit_is_respected(limit, used, left, tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(used + "\n")
    monkeypatch.setattr(plan, "Path", lambda path: tmp_path)
    assert plan._container_bytes() == left
    if left:
        assert plan.free_bytes(torch.device("cpu")) == left[0]


# -- predicted against measured ------------------------------------------------------------------------------------

CHILD = """
import ctypes, json, sys
from pathlib import Path
import torch
import adgan_fast
from adgan_fast import plan
from adgan_fast.models import DCGANGenerator

torch.set_num_threads(1)

def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

def growth(work):
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not there to be used again
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = status("VmRSS")
    work()
    return status("VmHWM") - before
"""

PEAK = (
    CHILD
    + """
predicted = []
planned = plan.planned
def spy(engine, job, n):
    job = planned(engine, job, n)
    predicted.append(job.chunk * engine.bytes_of_pair(job))
    return job
plan.planned = spy

gen = DCGANGenerator(28, 1, 64, 96, generator=torch.Generator().manual_seed(0))
images = torch.zeros(2, 1, 28, 28)
for engine, weights in json.loads(sys.argv[1]):
    def run(steps):
        adgan_fast.score(gen, images, n_seed=3, steps=steps, weights=weights, engine=engine)
    run(0)
    grown = growth(lambda: run(2))
    print(json.dumps([engine, weights, predicted[-1], grown]))
"""
)

FLAT = (
    CHILD
    + """
gen = DCGANGenerator(8, 1, 8, 4, generator=torch.Generator().manual_seed(0))
images = torch.zeros(600, 1, 8, 8)
for engine in json.loads(sys.argv[1]):
    run = lambda n: adgan_fast.score(gen, images[:n], n_seed=1, steps=1, engine=engine)
    run(100)
    print(json.dumps([engine, growth(lambda: run(100)), growth(lambda: run(600))]))
"""
)


def child(code: str, argument: object) -> list[list]:
    if not Path("/proc/self/clear_refs").exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the peak of a process is measured through Linux's /proc, and glibc's malloc_trim")
    command = [sys.executable, "-c", code, json.dumps(argument)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_bytes_predicted_are_those_used():
    """Never under two thirds of what the process grew by, which would run out of memory (a plan takes 0.7 of what is
    free); and not far above it, which would make chunks small for nothing. One thread, so that one chunk is in work.
    """
    cases = [(engine, weights) for engine in ("grouped", "eager") for weights in ("per_seed", "per_sample")]
    rows = child(PEAK, cases)
    assert [tuple(row[:2]) for row in rows] == cases
    wrong = [
        f"{engine}, {weights}: {predicted / 2**20:.1f} MiB predicted, {grown / 2**20:.1f} MiB used"
        for engine, weights, predicted, grown in rows
        if not 2 / 3 * grown <= predicted <= 1.5 * grown
    ]
    assert not wrong, "; ".join(wrong)


def test_memory_does_not_grow_with_the_number_of_images():
    engines = [e.name for e in adgan_fast.engines() if e.available and e.name != "reference"]
    for engine, few, many in child(FLAT, engines):
        assert many - few < 8 * 2**20, f"{engine}: {few / 2**20:.1f} MiB for 100 images, {many / 2**20:.1f} for 600"
