"""Memory that runs out: less at once, or an error with the bytes."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time

import pytest
import torch

import adgan_fast
from adgan_fast.core import plan
from adgan_fast.engine.eager import Eager
from adgan_fast.engine.grouped import Grouped
from tests.support.engines import on_cpu
from tests.support.families import FAMILIES
from tests.support.small import CASE, FAST

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("engine", [Grouped, Eager], ids=["grouped", "eager"])
@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("no memory, on purpose"),
        lambda: MemoryError("no memory, on purpose"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["torch", "python", "torch on a CPU"],
)
def test_out_of_memory_on_a_cpu_halves_the_threads_says_so_and_goes_on(engine, error, monkeypatch, caplog, threads):
    case, images = FAMILIES["VAE decoder"], FAMILIES["VAE decoder"].images(3)
    want = adgan_fast.search(case.module, images, engine=engine.name, n_seed=4, steps=1)
    run, at_work = engine.run, []
    torch.set_num_threads(4)

    def short_of_memory(self, job, plan, block):
        at_work.append(plan.threads)
        run(self, job, plan, block)  # the work is done already, and is done again
        if plan.threads > 1:
            raise error()

    monkeypatch.setattr(engine, "run", short_of_memory)
    caplog.set_level(logging.WARNING, "adgan_fast")
    found = adgan_fast.search(case.module, images, engine=engine.name, n_seed=4, steps=1)
    assert at_work == [4, 2, 1]
    assert [r.getMessage() for r in caplog.records if "memory" in r.getMessage()] == [
        "out of memory on cpu: 2 threads at work instead of 4",
        "out of memory on cpu: 1 threads at work instead of 2",
    ]
    assert torch.equal(found.losses, want.losses)
    assert torch.equal(found.reconstructions, want.reconstructions)


@pytest.mark.alone
@pytest.mark.parametrize("engine", [Grouped, Eager], ids=["grouped", "eager"])
def test_no_more_threads_are_at_work_than_were_planned(engine, monkeypatch, threads):
    at_once, most, lock = 0, 0, threading.Lock()

    def loss(reconstruction, image):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.005)
        with lock:
            at_once -= 1
        return (reconstruction - image).square().flatten(1).sum(1)

    case = FAMILIES["DCGAN of 8"]
    planned = plan.planned
    monkeypatch.setattr(plan, "planned", lambda *given: dataclasses.replace(planned(*given), threads=2))
    torch.set_num_threads(4)
    adgan_fast.score(
        case.module, case.images(8), engine=engine.name, n_seed=2, steps=2, starts="independent", loss=loss
    )
    assert most == 2


def test_out_of_memory_at_one_pair_is_raised(monkeypatch):
    def short_of_memory(self, job, plan, block):
        raise torch.OutOfMemoryError("no memory, on purpose")

    monkeypatch.setattr(Grouped, "run", short_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="on purpose"):
        adgan_fast.score(CASE.module, CASE.images(2), engine="grouped", **FAST)


def test_an_error_that_is_not_about_memory_is_raised_at_once(monkeypatch):
    calls = []

    def broken(self, job, plan, block):
        calls.append(plan.threads)
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Grouped, "run", broken)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        adgan_fast.score(CASE.module, CASE.images(2), engine="grouped", **FAST)
    assert len(calls) == 1


@on_cpu
def test_what_cannot_fit_is_refused_before_the_work_with_the_bytes_it_would_take(engine, monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda device: 100)
    with pytest.raises(MemoryError, match=rf"{engine}.*MiB"):
        adgan_fast.score(CASE.module, CASE.images(1), engine=engine, **FAST)
