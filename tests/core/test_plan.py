"""Chunks from free memory: what is planned, and that the bytes predicted are those that are used."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

import adgan_fast
from adgan_fast.core import cgroups, plan
from adgan_fast.core.job import Job, Plan
from tests.support.engines import NEEDS_EXTENSION
from tests.support.jobs import make_job
from tests.support.small import CASE

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


@pytest.mark.parametrize(
    ("free", "cores", "threads"),
    [(10**9, 1, 1), (10**9, 3, 3), (3 * 10**4, 3, 2), (15000, 3, 1)],
    ids=["one thread", "memory enough", "room for two", "room for one"],
)
def test_on_a_cpu_as_many_threads_work_as_there_is_memory_for(free, cores, threads, monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda device: free)
    torch.set_num_threads(cores)
    found = plan.planned(FakeEngine(), make_job(CASE, chunk=3), 100)
    assert found == Plan(10, threads)  # the chunk is the engine's own, whatever the config's


@pytest.mark.parametrize(
    ("free", "n_images", "settings", "chunk"),
    [
        (10**9, 100, {}, 10),  # memory enough: the engine's own
        (10**4, 100, {}, 7),  # less
        (10**9, 1, {}, 4),  # no more than there are pairs
        (10**9, 3, {"weights": "per_sample"}, 3),  # or images
        (10**3, 100, {"chunk": 50}, 50),  # the user knows
    ],
)
def test_on_a_gpu_the_chunk_is_the_engines_own_where_that_fits_and_else_what_fits(
    free, n_images, settings, chunk, monkeypatch
):
    monkeypatch.setattr(plan, "free_bytes", lambda device: free)
    assert plan.planned(FakeEngine(), make_job(CASE, device="cuda", **settings), n_images) == Plan(chunk, 1)


def test_on_a_gpu_out_of_memory_halves_the_chunk_says_so_and_goes_on(monkeypatch, caplog):
    chunks, restarts = [], []

    class Short(FakeEngine):
        def run(self, job, plan, block):
            chunks.append(plan.chunk)
            if plan.chunk > 2:
                raise torch.OutOfMemoryError("no memory, on purpose")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    job, block = make_job(CASE, device="cuda"), SimpleNamespace(restart=lambda: restarts.append(1))
    caplog.set_level(logging.WARNING, "adgan_fast")
    assert plan.run(Short(), job, Plan(9), block) == Plan(2)
    assert chunks == [9, 4, 2]
    assert len(restarts) == 2
    assert [r.getMessage() for r in caplog.records] == [
        "out of memory on cuda: chunk halved to 4",
        "out of memory on cuda: chunk halved to 2",
    ]


def test_one_pair_that_does_not_fit_is_refused_with_both_sizes(monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"'fake'.*MiB.*MiB.*cpu"):
        plan.planned(FakeEngine(), make_job(CASE), 1)


def test_free_bytes_are_some_of_the_machines():
    assert 0 < plan.free_bytes(torch.device("cpu")) <= psutil.virtual_memory().total


def test_a_containers_limit_is_respected(monkeypatch):
    monkeypatch.setattr(cgroups, "bytes_left", lambda: [5000, 3000])
    assert plan.free_bytes(torch.device("cpu")) == 3000


# -- predicted against measured ------------------------------------------------------------------------------------

CHILD = """
import ctypes, json, os, sys
from pathlib import Path
import torch
import adgan_fast
from adgan_fast.core import plan
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
    found = planned(engine, job, n)
    predicted.append(found.chunk * engine.bytes_of_pair(job))
    return found
plan.planned = spy

gen = DCGANGenerator(28, 1, 64, 192, generator=torch.Generator().manual_seed(0))
images = torch.zeros(2, 1, 28, 28)
own = sum(p.nbytes for p in gen.parameters())  # the run's copy of the generator, whatever the chunk
for engine, weights in json.loads(sys.argv[1]):
    if os.fork():  # a process for each: memory that a dead thread freed is used again
        assert os.wait()[1] == 0
        continue
    def run(steps):
        adgan_fast.score(gen, images, n_seed=2, steps=steps, weights=weights, engine=engine, verify=False)
    run(0)
    grown = growth(lambda: run(2)) - own
    print(json.dumps([engine, weights, predicted[-1], grown]), flush=True)
    os._exit(0)
"""
)

FLAT = (
    CHILD
    + """
gen = DCGANGenerator(8, 1, 8, 4, generator=torch.Generator().manual_seed(0))
images = torch.zeros(600, 1, 8, 8)
for engine in json.loads(sys.argv[1]):
    run = lambda n: adgan_fast.score(gen, images[:n], n_seed=1, steps=1, engine=engine, verify=False)
    run(100)
    print(json.dumps([engine, growth(lambda: run(100)), growth(lambda: run(600))]))
"""
)


def child(code: str, argument: object) -> list[list]:
    if not Path("/proc/self/clear_refs").exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the peak of a process is measured through Linux's /proc, and glibc's malloc_trim")
    command = [sys.executable, "-c", code, json.dumps(argument)]
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # what is freed is given back
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | at_once)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_bytes_predicted_are_those_used():
    """Within a half of what the process grew by: BLAS's own scratch memory and the allocator's gaps come on top; for
    native, which knows, within a quarter. One thread, so that one chunk is in work.
    """
    engines = [e.name for e in adgan_fast.engines() if e.available and e.name not in ("reference", "triton")]
    cases = [(engine, weights) for engine in engines for weights in ("per_seed", "per_sample")]
    cases += [("native", "frozen")] if "native" in engines else []
    rows = child(PEAK, cases)
    assert [tuple(row[:2]) for row in rows] == cases
    wrong = [
        f"{engine}, {weights}: {predicted / 2**20:.1f} MiB predicted, {grown / 2**20:.1f} MiB used"
        for engine, weights, predicted, grown in rows
        if abs(predicted / grown - 1) > (0.25 if engine == "native" else 0.5)
    ]
    assert not wrong, "; ".join(wrong)


NATIVE = (
    CHILD
    + """
threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
gen = DCGANGenerator(32, 1, 256, 64, generator=torch.Generator().manual_seed(0))
images = torch.zeros(4, 1, 32, 32)
weights = sum(p.nbytes for p in gen.parameters())
run = lambda steps: adgan_fast.score(gen, images, n_seed=64, steps=steps, engine="native", verify=False)
torch.set_num_threads(1)
run(0)
torch.set_num_threads(threads)
print(json.dumps([growth(lambda: run(2)), weights]))
"""
)


@NEEDS_EXTENSION
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_native_holds_one_state_for_each_thread(threads):
    """In the paper's setting: weights and both moments of one pair a thread, and the weights twice more (the run's
    copy of the generator, and θ₀ as the kernels want it). First layers have no moments, which pays for the rest.
    """
    ((grown, weights),) = child(NATIVE, threads)
    assert grown < 1.1 * threads * 3 * weights + 2 * weights
    assert grown > 2 * weights  # else nothing was measured


def test_memory_does_not_grow_with_the_number_of_images():
    engines = [e.name for e in adgan_fast.engines() if e.available and e.name not in ("reference", "triton")]
    for engine, few, many in child(FLAT, engines):
        assert many - few < 8 * 2**20, f"{engine}: {few / 2**20:.1f} MiB for 100 images, {many / 2**20:.1f} for 600"
