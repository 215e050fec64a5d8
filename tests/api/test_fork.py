"""A process that was forked while another thread scored can score."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch
import torch.utils.checkpoint

import adgan_fast
from tests.support.engines import FAST
from tests.support.families import FAMILIES

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("one_thread")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("engine", FAST)
def test_a_fork_while_another_thread_scores_can_score(engine, threads):
    torch.set_num_threads(2)
    case = FAMILIES["DCGAN of 16"]
    images = case.images(2)
    wanted = adgan_fast.score(case.module, images, engine=engine, n_seed=2)
    switches = adgan_fast.core.precision._settings()
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            adgan_fast.score(case.module, case.images(40), engine=engine, n_seed=8)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        while not adgan_fast.core.precision._asked:
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            good = adgan_fast.core.precision._settings() == switches
            same = torch.equal(adgan_fast.score(case.module, images, engine=engine, n_seed=2), wanted)
            os._exit(0 if good and same else 1)
        until = time.monotonic() + 60
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
            time.sleep(0.05)
        if ended == (0, 0):
            os.kill(child, 9)
            os.waitpid(child, 0)
    finally:
        stop.set()
        thread.join()
    assert ended == (child, 0)
