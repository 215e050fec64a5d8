"""What may befall a job: it is killed, interrupted, short of disk or memory, or finds its folder damaged."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from adgan_fast import SearchConfig, files, jobs
from adgan_fast.engine import named
from adgan_fast.jobs import ScoreBatch, decoding, lock, manifest, parts
from tests.support.engines import on_cpu
from tests.support.forked import ended, forked, until_there
from tests.support.runs import listed
from tests.support.small import CASE, FAST

forks = [
    pytest.mark.alone,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SearchConfig(**FAST)
SOURCE = listed(CASE, 24)
PARTS = 12


def run(out: Path, **settings) -> jobs.JobResult:
    return jobs.run(CASE.module, SOURCE, out, **{"config": CONFIG, "shard": 2, **settings})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return jobs.read(folder)


def assert_whole(folder: Path, undisturbed: pa.Table) -> None:
    """Rows as of an undisturbed run: none lost, none twice, nothing left over."""
    assert jobs.read(folder).equals(undisturbed)
    assert sorted(path.name for path in folder.iterdir()) == [
        "job.json", "job.lock", *(f"part-{number:05d}.parquet" for number in range(PARTS))
    ]  # fmt: skip


# -- killed -----------------------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(owner: object, name: str, count: int, after: bool = False) -> None:
    """Have the process killed at one call of a function: before it is run, or after."""
    function, calls = getattr(owner, name), itertools.count()

    def call(*args, **kwargs):
        mine = next(calls) == count
        if mine and not after:
            die()
        found = function(*args, **kwargs)
        if mine:
            die()
        return found

    setattr(owner, name, call)


def die_while_writing(count: int) -> None:
    """... with the part of this number half written."""
    close, calls = parts.Writer.close, itertools.count()

    def half(self: parts.Writer) -> parts.Counts:
        if next(calls) == count:
            self._file.flush()
            self._file.truncate(self._file.tell() * (count + 1) // (PARTS + 1))
            die()
        return close(self)

    parts.Writer.close = half


MOMENTS: dict[str, Callable[[int], None]] = {
    "manifest": lambda count: die_at(manifest.Digest, "add", 4 * count),  # from the 24th on: the second pass
    "decoding": lambda count: die_at(decoding, "_read", count),
    "computing": lambda count: die_at(ScoreBatch, "__call__", count, after=count % 2 == 1),
    "writing": lambda count: die_while_writing(count) if count % 3 else die_at(files.os, "fsync", 2 * count),
    "renaming": lambda count: die_at(files.os, "replace", count, after=count % 2 == 1),
}
"""Of a run, phase by phase: what kills it there, at ten moments of each."""


def killed(folder: Path, phase: str, count: int) -> None:
    def work() -> None:
        MOMENTS[phase](count)
        run(folder)

    assert ended(forked(work)) == -signal.SIGKILL, f"{phase} {count} was never reached"


class TestKilled:
    pytestmark = forks

    @pytest.mark.parametrize(
        ("phase", "count"), [("manifest", 9), ("decoding", 4), ("computing", 5), ("writing", 7), ("renaming", 6)]
    )
    def test_killed_once_and_gone_on_with_the_rows_are_those_of_an_undisturbed_run(
        self, tmp_path, undisturbed, phase, count
    ):
        killed(tmp_path, phase, count)
        before = {path.name for path in tmp_path.glob(parts.PATTERN)}
        result = run(tmp_path)
        assert result.resumed == len(before) > 0
        assert_whole(tmp_path, undisturbed)

    @pytest.mark.long
    @pytest.mark.parametrize("phase", MOMENTS)
    def test_killed_at_fifty_moments(self, tmp_path, undisturbed, phase):
        for count in range(10):
            folder = tmp_path / str(count)
            killed(folder, phase, count)
            result = run(folder)
            assert result.images + 2 * result.resumed == 24
            assert_whole(folder, undisturbed)

    @pytest.mark.long
    def test_killed_over_and_over_in_one_folder(self, tmp_path, undisturbed):
        for count, phase in itertools.product((1, 0, 1, 0), ("writing", "renaming", "computing", "manifest")):
            killed(tmp_path, phase, count)
        run(tmp_path)
        assert_whole(tmp_path, undisturbed)

    def test_killed_while_it_begins_anew_the_folder_holds_one_job(self, tmp_path, undisturbed):
        run(tmp_path, config=CONFIG.replace(seed=1))

        def work() -> None:
            die_at(Path, "unlink", 5)
            run(tmp_path, overwrite=True)

        assert ended(forked(work)) == -signal.SIGKILL
        with pytest.raises(jobs.OtherJob, match=r"config\.seed"):
            run(tmp_path)
        run(tmp_path, overwrite=True)
        assert_whole(tmp_path, undisturbed)


# -- interrupted ------------------------------------------------------------------------------------------------------


class TestSignals:
    pytestmark = forks

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("devices", [None, ["cpu"]])
    def test_a_signal_ends_it_soon_with_word_how_to_go_on(self, tmp_path, undisturbed, number, devices):
        search, told = ScoreBatch.__call__, tmp_path / "told"

        def slow(self: ScoreBatch, batch: dict) -> dict:
            time.sleep(0.1)
            return search(self, batch)

        def work() -> None:
            ScoreBatch.__call__ = slow
            close = parts.Writer.close
            parts.Writer.close = lambda self: (time.sleep(0.1), close(self))[1]
            try:
                run(tmp_path / "out", devices=devices)
            except jobs.JobInterrupted as error:
                told.write_text(f"{error.signal} {isinstance(error, KeyboardInterrupt)} {error}")

        child = forked(work)
        until_there(tmp_path / "out" / "part-00002.parquet")
        began = time.monotonic()
        os.kill(child, number)
        assert ended(child) == 0 and time.monotonic() - began < 3
        found = told.read_text()
        assert found.startswith(f"{number.value} True {number.name} ended the job") and "run it again to go on" in found
        result = run(tmp_path / "out")
        assert 3 <= result.resumed < PARTS
        assert_whole(tmp_path / "out", undisturbed)


# -- two at once ------------------------------------------------------------------------------------------------------


class TestLock:
    pytestmark = forks

    def test_a_second_run_is_refused_and_the_lock_of_a_dead_one_taken_over(self, tmp_path, undisturbed, caplog):
        def work() -> None:
            search = ScoreBatch.__call__
            ScoreBatch.__call__ = lambda self, batch: (time.sleep(0.5), search(self, batch))[1]
            run(tmp_path)

        child = forked(work)
        try:
            until_there(tmp_path / "job.json")
            with pytest.raises(jobs.JobLocked, match=f"in use by process {child} on .*another folder"):
                run(tmp_path)
            with pytest.raises(jobs.JobLocked):
                run(tmp_path, overwrite=True)
        finally:
            os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        run(tmp_path)
        assert f"process {child} on" in caplog.text and "taken over" in caplog.text
        assert_whole(tmp_path, undisturbed)
        caplog.clear()
        run(tmp_path)
        assert "taken over" not in caplog.text


def test_a_second_run_in_the_same_process_is_refused_too(tmp_path):
    with lock.locked(tmp_path), pytest.raises(jobs.JobLocked, match=f"process {os.getpid()}"):
        run(tmp_path)


# -- the folder -------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_it_and_finished_parts_are_kept(tmp_path, undisturbed, monkeypatch):
    write, calls = parts.pq.ParquetWriter.write_table, itertools.count()

    def full(self, table, **settings):
        if next(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, table, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(parts.pq.ParquetWriter, "write_table", full)
        with pytest.raises(jobs.FolderUnusable, match=r"No space left on device.*kept.*run again to go on"):
            run(tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert run(tmp_path).resumed == 4
    assert_whole(tmp_path, undisturbed)


@pytest.mark.parametrize("left", [0, 3, 100, -1])
def test_a_part_that_was_cut_off_is_computed_anew_and_the_log_says_so(tmp_path, undisturbed, left, caplog):
    run(tmp_path)
    path = tmp_path / "part-00003.parquet"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(jobs.JobDamaged, match=r"part-00003.parquet is damaged.*Remove it and run the job again"):
        jobs.read(tmp_path)
    assert run(tmp_path).images == 2
    assert "part-00003.parquet is damaged and is computed anew" in caplog.text
    assert_whole(tmp_path, undisturbed)


def test_a_part_in_the_place_of_another_is_computed_anew(tmp_path, undisturbed):
    run(tmp_path)
    (tmp_path / "part-00002.parquet").write_bytes((tmp_path / "part-00001.parquet").read_bytes())
    assert run(tmp_path).images == 2
    assert_whole(tmp_path, undisturbed)


def test_a_flipped_bit_in_a_part_is_found_when_it_is_read(tmp_path, monkeypatch):
    plain = {"compression": "none", "use_dictionary": False}  # where nothing but the checksum tells
    writer = parts.pq.ParquetWriter
    monkeypatch.setattr(parts.pq, "ParquetWriter", lambda *given, **more: writer(*given, **{**more, **plain}))
    run(tmp_path)
    path, scores = tmp_path / "part-00001.parquet", jobs.read(tmp_path)["score"].to_numpy()[2:4].tobytes()
    data = path.read_bytes()
    assert data.count(scores) == 1
    path.write_bytes(data.replace(scores, bytes([scores[0] ^ 1, *scores[1:]])))
    with pytest.raises(jobs.JobDamaged, match=r"part-00001\.parquet is damaged"):
        jobs.read(tmp_path)


def test_a_part_that_is_missing_is_told_when_the_job_is_read(tmp_path):
    run(tmp_path)
    (tmp_path / "part-00011.parquet").unlink()
    with pytest.raises(jobs.JobDamaged, match=r"part-00011\.parquet is not there: the job is not finished"):
        jobs.read(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 9}', '{"format": 1, "shard": 0, "manifest": 3}']
)
def test_a_damaged_description_is_refused_and_may_be_removed(tmp_path, undisturbed, content):
    run(tmp_path)
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(jobs.JobDamaged, match=r"job.json") as caught:
        run(tmp_path)
    assert "Remove that file and run again" in str(caught.value) or "format 9" in str(caught.value)
    (tmp_path / "job.json").unlink()
    assert run(tmp_path, shard=None).images == 0
    assert_whole(tmp_path, undisturbed)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(jobs.FolderUnusable, match="out is a file, or lies below one"):
        run(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


class TestReadOnly:
    pytestmark = forks

    def test_a_read_only_folder_is_refused_with_the_remedy(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "out").mkdir()
            os.chmod(folder / "out", 0o555)
            os.chmod(folder, 0o755)

            def work() -> None:
                if os.geteuid() == 0:  # who may write everywhere
                    os.seteuid(65534)
                with pytest.raises(jobs.FolderUnusable, match=r"Permission denied.*permissions.*another folder"):
                    run(folder / "out")

            assert ended(forked(work)) == 0
            os.chmod(folder / "out", 0o755)


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fails_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Counter[str]]]:
    """Has an engine run out of memory from its `count`-th block on, while more threads than `enough` are at work."""

    def patch(engine: str, count: int, enough: int) -> Counter[str]:
        kind, calls = type(named(engine)), Counter[str]()
        search = kind.run

        def run(self, job, plan, block) -> None:
            calls["all"] += 1
            if calls["all"] > count and plan.threads > enough:
                calls["failed"] += 1
                raise torch.OutOfMemoryError("out of memory, on purpose")
            search(self, job, plan, block)

        monkeypatch.setattr(kind, "run", run)
        return calls

    yield patch


@on_cpu
def test_short_of_memory_it_goes_on_with_less(tmp_path, engine, fails_at, threads):
    torch.set_num_threads(2)
    run(tmp_path / "want", config=CONFIG.replace(engine=engine))
    calls = fails_at(engine, 2, enough=1)
    assert run(tmp_path / "found", config=CONFIG.replace(engine=engine)).counts == {"ok": 24}
    assert calls["failed"] == PARTS - 2
    assert jobs.read(tmp_path / "found").equals(jobs.read(tmp_path / "want"))


@on_cpu
def test_out_of_memory_it_ends_and_goes_on_where_there_is_more(tmp_path, engine, fails_at, monkeypatch):
    settings = {"config": CONFIG.replace(engine=engine)}
    run(tmp_path / "want", **settings)
    with monkeypatch.context():
        fails_at(engine, 3, enough=0)
        with pytest.raises(torch.OutOfMemoryError):
            run(tmp_path / "found", **settings)
    monkeypatch.undo()
    torch.set_num_threads(1)
    assert run(tmp_path / "found", **settings).resumed == 3
    assert jobs.read(tmp_path / "found").equals(jobs.read(tmp_path / "want"))


# -- what is not the job's --------------------------------------------------------------------------------------------


def test_a_parquet_file_of_something_else_is_neither_replaced_nor_removed(tmp_path: Path) -> None:
    theirs = tmp_path / "part-00000.parquet"
    parquet.write_table(pa.table({"a": [1]}), theirs)
    before = theirs.read_bytes()
    for overwrite in (False, True):
        with pytest.raises(jobs.OtherJob, match=r"part-00000.parquet is a parquet file of something else"):
            run(tmp_path, overwrite=overwrite)
    assert theirs.read_bytes() == before


def test_a_job_is_overwritten_once_the_new_one_can_run_and_not_before(tmp_path: Path, undisturbed: pa.Table) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="latent"):
        jobs.run(CASE.module, SOURCE, tmp_path, config=CONFIG.replace(latent_shape=(7, 7)), overwrite=True)
    assert_whole(tmp_path, undisturbed)


class Shifted(torch.nn.Module):
    """A generator with a number that its state_dict does not hold."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 16)
        torch.nn.init.constant_(self.layer.weight, 0.1)
        torch.nn.init.zeros_(self.layer.bias)
        self.register_buffer("by", torch.tensor(by), persistent=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return (self.layer(z) + self.by).tanh().reshape(-1, 1, 4, 4)


def test_a_generator_with_another_number_anywhere_is_another_job(tmp_path: Path) -> None:
    source = dataclasses.replace(SOURCE, images=[torch.zeros(1, 4, 4).numpy()] * 2)
    config = SearchConfig(n_seed=1, steps=1, engine="reference", latent_shape=(3,))
    jobs.run(Shifted(0.1), source, tmp_path, config=config)
    with pytest.raises(jobs.OtherJob, match=r"generator\.sha256"):
        jobs.run(Shifted(0.2), source, tmp_path, config=config)
