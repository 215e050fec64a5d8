"""Ctrl-C: the search stops soon, and leaves neither threads nor settings behind."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

import adgan_fast
from adgan_fast.models import DCGANGenerator
from tests.support.engines import NEEDS_EXTENSION, ON_CPU
from tests.support.families import FAMILIES
from tests.support.losses import Failing, squares

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("threads", "sigint_heard")]

SOON = 2.0  # seconds
CASE = FAMILIES["DCGAN of 28"]
LONG = {"n_seed": 64, "steps": 50}  # many seconds of work


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("adgan_fast")]


def assert_clean(threads: int) -> None:
    assert workers() == []
    assert torch.get_num_threads() == threads
    found = adgan_fast.score(FAMILIES["DCGAN of 8"].module, FAMILIES["DCGAN of 8"].images(1), n_seed=2, steps=1)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("engine", ON_CPU)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loss", ["l2", squares])
def test_an_interrupt_stops_the_search_soon(engine, threads, loss):
    torch.set_num_threads(threads)
    adgan_fast.score(CASE.module, CASE.images(1), engine=engine, n_seed=1, steps=1)  # what is loaded once is loaded
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)  # as the keyboard does: to the process, which hands it to its main thread

    timer = threading.Timer(0.8, send)
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            adgan_fast.score(CASE.module, CASE.images(200), engine=engine, loss=loss, **LONG)
        assert time.monotonic() - sent[0] < SOON
    finally:
        timer.cancel()
    assert_clean(threads)


@NEEDS_EXTENSION
@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
def test_an_interrupt_stops_native_within_a_second_at_64_pixels(weights):
    """Calls of C++ are cut by time or ask whether to go on, so that large generators wait no longer than small ones."""
    torch.set_num_threads(2)
    gen = DCGANGenerator(64, 3, 256, 64, generator=torch.Generator().manual_seed(0))
    images, sent = torch.zeros(64, 3, 64, 64), 0.0
    adgan_fast.score(gen, images[:1], engine="native", n_seed=1, steps=1)  # what is loaded once is loaded

    def send() -> None:
        nonlocal sent
        sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(2.0, send)
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            adgan_fast.score(gen, images, engine="native", weights=weights)
        assert time.monotonic() - sent < 1.0
    finally:
        timer.cancel()
    assert_clean(2)


@pytest.mark.parametrize("engine", ON_CPU)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_the_midst_of_the_work_stops_the_rest(engine, error):
    torch.set_num_threads(2)
    loss = Failing(error, at=25)
    before = time.monotonic()
    with pytest.raises(error):
        adgan_fast.score(CASE.module, CASE.images(200), engine=engine, loss=loss, **LONG)
    assert time.monotonic() - before < 10  # of hundreds of seconds
    stopped = loss.calls
    time.sleep(0.05)
    assert loss.calls == stopped
    assert_clean(2)
