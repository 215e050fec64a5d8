"""Several devices share the shards, a process each: the same rows."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import time

import psutil
import pytest

from adgan_fast import SearchConfig, jobs
from adgan_fast.jobs import devices
from tests.support.forked import ended, forked, until_there
from tests.support.runs import Listed, listed
from tests.support.small import CASE, FAST

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SearchConfig(**FAST)


def test_two_processes_give_the_rows_of_one(tmp_path):
    source = listed(CASE, 23)
    jobs.run(CASE.module, source, tmp_path / "one", config=CONFIG, shard=2)
    result = jobs.run(CASE.module, source, tmp_path / "two", config=CONFIG, shard=2, devices=["cpu", "cpu"])
    assert (result.counts, result.images) == ({"ok": 23}, 23)
    assert jobs.read(tmp_path / "two").equals(jobs.read(tmp_path / "one"))


class Deadly(Listed):
    """Reading it ends the process, but that of its maker."""

    maker: int

    def read(self, first, stop):
        if os.getpid() != self.maker and first >= 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(first, stop)


class Wrong(Listed):
    def read(self, first, stop):
        if first >= 4:
            raise OSError("the disk is gone")
        return super().read(first, stop)


def test_a_process_that_is_killed_ends_the_job_and_finished_parts_are_kept(tmp_path):
    source = Deadly(listed(CASE, 20).images)
    source.maker = os.getpid()
    with pytest.raises(jobs.WorkerDied, match=r"cpu ended with exit code -9.*run again to go on"):
        jobs.run(CASE.module, source, tmp_path, config=CONFIG, shard=2, devices=["cpu"])
    result = jobs.run(CASE.module, source, tmp_path, config=CONFIG, shard=2)
    assert result.counts == {"ok": 20} and result.resumed >= 1


def test_an_error_in_a_process_is_raised_here(tmp_path):
    with pytest.raises(OSError, match="the disk is gone"):
        jobs.run(CASE.module, Wrong(listed(CASE, 9).images), tmp_path, config=CONFIG, shard=2, devices=["cpu"])


class Slow(Listed):
    def read(self, first, stop):
        time.sleep(0.2)
        return super().read(first, stop)


@pytest.mark.alone
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_end_where_the_job_is_killed(tmp_path):
    source = Slow(listed(CASE, 60).images)

    def work() -> None:
        jobs.run(CASE.module, source, tmp_path, config=CONFIG, shard=1, devices=["cpu"])

    child = forked(work)
    until_there(tmp_path / "part-00001.parquet")
    workers = psutil.Process(child).children(recursive=True)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL and workers
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


def _dies_in_the_middle_of_a_word(done) -> None:
    """Says that 50 MB will follow, and is killed after some of them."""
    os.write(done.fileno(), struct.pack("!i", 50 * 10**6) + bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_process_that_is_killed_while_it_sends_is_seen_and_waited_for_no_longer():
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_dies_in_the_middle_of_a_word, args=(sender,), name="adgan_fast cpu", daemon=True)
    worker.start()
    sender.close()
    with pytest.raises(jobs.WorkerDied, match="exit code -9"):
        devices._took({receiver: 0}, [worker])
