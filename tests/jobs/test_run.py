"""A job's rows are those of `search`, in manifest order, whatever the shard, the device and what was there before."""

from __future__ import annotations

import json
import logging
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import adgan_fast
from adgan_fast import Scorer, SearchConfig, jobs
from adgan_fast.jobs import ScoreBatch, Unreadable, decoding, parts, prepare
from adgan_fast.jobs.finished import Finished
from adgan_fast.jobs.sources import open_source
from tests.support.runs import Listed, column, columns_by_search, listed
from tests.support.small import CASE, FAST, small
from tests.support.sources import encoded, write_tar

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SearchConfig(**FAST)
NUMBERS = ("score", "score_std", "score_min", "initial_loss")


def run(source: Listed, out: Path, **settings) -> jobs.JobResult:
    return jobs.run(CASE.module, source, out, **{"config": CONFIG, "shard": 4, **settings})


@pytest.mark.parametrize("shard", [1, 3, 10, 4096])
def test_the_rows_are_those_of_search_in_order(tmp_path, shard):
    want = columns_by_search(CASE, 10, **FAST)
    result = run(listed(CASE, 10), tmp_path / "out", shard=shard, keep=["reconstructions"])
    found = jobs.read(tmp_path / "out")
    for name in NUMBERS:
        assert np.array_equal(column(found, name), want[name])
    kept = found["reconstructions"].combine_chunks().to_numpy_ndarray()
    assert np.array_equal(kept, want["reconstructions"])
    assert found["id"].to_pylist() == [f"{row:03d}.png" for row in range(10)]
    assert found["label"].to_pylist() == [None, "odd"] * 5
    assert set(found["status"].to_pylist()) == {"ok"} and set(found["error"].to_pylist()) == {""}
    assert (result.counts, result.parts, result.resumed, result.images) == ({"ok": 10}, -(-10 // shard), 0, 10)
    assert result.engine is not None and result.images_per_second > 0
    assert set(result.seconds) == {"manifest", "prepare", "wait", "search", "write", "total"}


def test_reconstructions_are_written_in_groups_of_few_bytes_and_read_again_by_groups(tmp_path, monkeypatch):
    want = columns_by_search(CASE, 10, **FAST)
    monkeypatch.setattr(parts, "GROUP_BYTES", 3 * want["reconstructions"][0].nbytes)
    monkeypatch.setattr(decoding, "BLOCK_IMAGES", 4)
    held, write = [], parts.Writer._write
    monkeypatch.setattr(
        parts.Writer, "_write", lambda self, count: (held.append(self._rows_waiting), write(self, count))[1]
    )
    run(listed(CASE, 10), tmp_path, shard=7, keep=["reconstructions"])
    groups = [pq.read_metadata(tmp_path / f"part-0000{part}.parquet") for part in (0, 1)]
    assert [[found.row_group(n).num_rows for n in range(found.num_row_groups)] for found in groups] == [[3, 3, 1], [3]]
    assert max(held) < 3 + 4
    found = jobs.read(tmp_path)
    assert np.array_equal(found["reconstructions"].combine_chunks().to_numpy_ndarray(), want["reconstructions"])
    assert np.array_equal(column(found, "score"), want["score"]) and found["id"].to_pylist()[9] == "009.png"
    assert [table.num_rows for table in jobs.tables(tmp_path, pieces=True)] == [3, 3, 1, 3]
    rows, read = [2, 3, 6, 9], []
    monkeypatch.setattr(
        parts.pq.ParquetFile, "read_row_group",
        lambda self, number, *more, right=parts.pq.ParquetFile.read_row_group: (
            read.append(number), right(self, number, *more)
        )[1],
    )  # fmt: skip
    assert np.array_equal(Finished(tmp_path).reconstructions(rows), want["reconstructions"][rows])
    assert read[-4:] == [0, 1, 2, 0]


class TestAFileThatChangesUnderItsReader:
    """It is seen by its stamp before a part is written, whatever its reader has mapped or holds open."""

    @pytest.mark.parametrize("kind", ["npy", "parquet", "tar"])
    def test_ends_the_job_and_the_part_is_not_written(self, tmp_path, monkeypatch, kind):
        images = np.arange(8 * 64, dtype=np.uint8).reshape(8, 8, 8)
        path = tmp_path / f"in.{kind}"
        if kind == "npy":
            np.save(path, images)
        elif kind == "tar":
            write_tar(path, {f"{row}.png": encoded(image) for row, image in enumerate(images)})
        else:
            pq.write_table(pa.table({"image": [encoded(image) for image in images]}), path)
        search = ScoreBatch.__call__

        def changing(self, batch):
            found = search(self, batch)
            if batch["index"][0] == 4:  # the second shard of two
                with open(path, "r+b") as file:
                    file.write(path.read_bytes()[:1])
                os.utime(path, ns=(0, 0))
            return found

        monkeypatch.setattr(ScoreBatch, "__call__", changing)
        with pytest.raises(jobs.InputsChanged, match=rf"in\.{kind}: has changed since the job began to read it"):
            run(open_source(path), tmp_path / "out")
        assert sorted(found.name for found in (tmp_path / "out").iterdir()) == [
            "job.json", "job.lock", "part-00000.parquet"
        ]  # fmt: skip


def test_without_being_asked_parts_hold_no_reconstructions(tmp_path):
    run(listed(CASE, 3), tmp_path)
    assert jobs.read(tmp_path).column_names == ["id", "label", *NUMBERS, "status", "error"]


def test_a_broken_image_is_a_row_with_its_error_and_no_other_row_changes(tmp_path):
    want, source = columns_by_search(CASE, 9, **FAST), listed(CASE, 9)
    source.images[0] = Unreadable("no picture at all")
    source.images[2] = source.images[2][:, 1:]
    source.images[4] = np.full_like(source.images[4], np.nan)
    source.images[5] = source.images[5] + 7
    source.images[6] = source.images[6].astype(np.float64)
    result = run(source, tmp_path)
    found = jobs.read(tmp_path)
    status = ["unreadable", "ok", "unreadable", "ok", "not_finite", "unreadable", "unreadable", "ok", "ok"]
    assert found["status"].to_pylist() == status
    assert result.counts == {"ok": 4, "unreadable": 4, "not_finite": 1}
    errors = found["error"].to_pylist()
    assert errors[0] == "no picture at all"
    for row, words in (
        (2, r"shape is (1, 7, 8), the generator makes (1, 8, 8)"),
        (4, "NaN"),
        (5, "[-1, 1]"),
        (6, "64"),
    ):
        assert words in errors[row]
    for name in NUMBERS:
        values = found[name].to_pylist()
        for row, one in enumerate(status):
            assert values[row] == (want[name][row] if one == "ok" else None)


def test_bytes_and_floats_in_one_batch_score_as_each_does_alone(tmp_path):
    source = listed(CASE, 4)
    source.images[1] = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    source.images[3] = source.images[1]
    run(source, tmp_path)
    want = [float(adgan_fast.score(CASE.module, image[None], config=CONFIG)[0]) for image in source.images]
    assert jobs.read(tmp_path)["score"].to_pylist() == want


def test_a_diverged_search_is_a_row_that_says_so(tmp_path):
    config = CONFIG.replace(lr_z=1e38, lr_weights=1e30, verify=False)
    jobs.run(small(), Listed([np.zeros((2, 2, 2), np.float32)] * 2), tmp_path, config=config)
    found = jobs.read(tmp_path)
    assert found["status"].to_pylist() == ["diverged"] * 2 and found["score"].null_count == 2
    assert "lower lr_z" in found["error"][0].as_py()


def test_where_no_image_can_be_read_there_are_rows_all_the_same(tmp_path):
    result = run(Listed([Unreadable("empty")] * 5), tmp_path)
    assert (result.counts, result.engine) == ({"unreadable": 5}, None)
    assert jobs.read(tmp_path)["error"].to_pylist() == ["empty"] * 5


def test_no_inputs_are_a_finished_job_without_parts(tmp_path):
    assert run(Listed([]), tmp_path).parts == 0
    assert jobs.read(tmp_path).num_rows == 0


@pytest.mark.parametrize("kind", ["independent", "given"])
def test_starts_of_each_image_count_by_the_manifest(tmp_path, kind):
    each = torch.randn(7, 2, *CASE.latent_shape, generator=torch.Generator().manual_seed(1))
    config = CONFIG.replace(starts=each if kind == "given" else kind)
    want = adgan_fast.score(CASE.module, CASE.images(7), config=config)
    source = listed(CASE, 7)
    source.images[1] = Unreadable("gone")
    run(source, tmp_path, shard=3, config=config)
    found = jobs.read(tmp_path)["score"].to_pylist()
    assert found == [None if row == 1 else float(value) for row, value in enumerate(want)]


def test_a_scorer_serves_as_a_generator_and_serves_again(tmp_path):
    scorer = Scorer(CASE.module, config=CONFIG)
    for name in ("a", "b"):
        jobs.run(scorer, listed(CASE, 5), tmp_path / name, shard=2)
    assert jobs.read(tmp_path / "a").equals(jobs.read(tmp_path / "b"))
    with pytest.raises(TypeError, match="a Scorer has its config"):
        jobs.run(scorer, listed(CASE, 5), tmp_path / "c", config=CONFIG)


@pytest.mark.parametrize(
    "settings", [{"keep": ["latents"]}, {"shard": 0}, {"shard": 2.5}, {"devices": ["cpu", "abacus"]}]
)
def test_a_wrong_setting_is_named_and_is_no_fault_of_the_images(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings)).removesuffix("s")) as caught:
        run(listed(CASE, 1), tmp_path, **settings)
    assert not isinstance(caught.value, jobs.JobError)


def test_progress_tells_how_many_are_done(tmp_path):
    told: list[tuple[int, int]] = []
    run(listed(CASE, 10), tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)]


# -- gone on with ---------------------------------------------------------------------------------------------------


def test_run_again_what_is_finished_is_not_computed(tmp_path, monkeypatch, caplog):
    want = run(listed(CASE, 10), tmp_path)
    before = jobs.read(tmp_path)
    (tmp_path / "part-00001.parquet").unlink()
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("part-*")}
    seen: list[int] = []
    search = ScoreBatch.__call__
    monkeypatch.setattr(
        ScoreBatch, "__call__", lambda self, batch: (seen.extend(batch["index"]), search(self, batch))[1]
    )
    caplog.set_level(logging.INFO, "adgan_fast")
    found = run(listed(CASE, 10), tmp_path, shard=None)
    assert seen == [4, 5, 6, 7] and (found.resumed, found.images, found.counts) == (2, 4, want.counts)
    assert jobs.read(tmp_path).equals(before)
    assert all(tmp_path.joinpath(name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    assert "2 of 3 parts are finished" in caplog.text


def with_label(source: Listed) -> Listed:
    class Relabelled(Listed):
        def items(self):
            return (item._replace(label="new") for item in super().items())

    return Relabelled(source.images)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": CONFIG.replace(steps=2)}, "config.steps is 1 there and 2 here"),
        (
            {"config": CONFIG.replace(engine="eager")},
            r"(?s)^(?!.*generator\.sha256).*engine is .* there and 'eager' here",
        ),
        ({"config": CONFIG.replace(starts=torch.zeros(2, *CASE.latent_shape))}, "config.starts is 'shared' there"),
        ({"shard": 5}, "shard is 4 there and 5 here"),
        ({"keep": ["reconstructions"]}, "keep is"),
        ({"source": listed(CASE, 11)}, "manifest.items is 10 there and 11 here"),
        ({"source": with_label(listed(CASE, 10))}, "manifest.sha256"),
        ({"gen": "other"}, "generator.sha256"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("left", ["all", "parts alone"])
def test_another_job_in_the_folder_is_refused_with_the_difference(tmp_path, change, named, left):
    run(listed(CASE, 10), tmp_path)
    if left == "parts alone":
        (tmp_path / "job.json").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.glob("[jp]*[nt]")}
    given = {"gen": CASE.module, "source": listed(CASE, 10), "config": CONFIG, "shard": 4, **change}
    if given["gen"] == "other":
        given["gen"] = torch.nn.Sequential(CASE.module, torch.nn.Identity())
    source, gen = given.pop("source"), given.pop("gen")
    with pytest.raises(jobs.OtherJob, match=named) as caught:
        jobs.run(gen, source, tmp_path, **given)
    assert "--overwrite" in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("[jp]*[nt]")} == before
    jobs.run(gen, source, tmp_path, overwrite=True, **given)
    assert jobs.read(tmp_path).num_rows == len(source.images)


def test_a_verified_progress_shown_or_chunked_run_is_the_same_job(tmp_path):
    run(listed(CASE, 5), tmp_path)
    config = CONFIG.replace(verify=False, progress=True, chunk=3, strict=True, device="cpu", engine="auto")
    assert run(listed(CASE, 5), tmp_path, config=config).images == 0


def test_inputs_that_change_while_the_job_runs_end_it(tmp_path):
    source = listed(CASE, 6)

    class Changing(Listed):
        asked = 0

        def items(self):
            self.asked += 1
            for item in super().items():
                yield item._replace(stamp=item.stamp + str(self.asked))

    class Shrinking(Changing):
        def items(self):
            return (item for row, item in enumerate(super().items()) if self.asked < 2 or row < 3)

    for number, kind in enumerate((Changing, Shrinking)):
        with pytest.raises(jobs.InputsChanged, match="overwrite"):
            run(kind(source.images), tmp_path / str(number))
        with pytest.raises(jobs.JobDamaged, match="the job is not finished"):
            jobs.read(tmp_path / str(number))


def test_each_part_knows_its_job(tmp_path):
    run(listed(CASE, 5), tmp_path)
    meta = json.loads(pq.read_metadata(tmp_path / "part-00001.parquet").metadata[b"adgan_fast"])
    assert meta["job"] == json.loads((tmp_path / "job.json").read_text())
    assert (meta["shard"], meta["counts"]) == ([1, 4, 5], {"ok": 1})


# -- how it is done -------------------------------------------------------------------------------------------------


def test_images_are_read_while_others_are_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK_IMAGES", 2)
    read_on = threading.Event()

    class Waiting(Listed):
        def read(self, first, stop):
            if first >= 4:
                read_on.set()
            return super().read(first, stop)

    search = ScoreBatch.__call__

    def slow(self, batch):
        if batch["index"][0] == 0:
            assert read_on.wait(10), "nothing was read while the first images were searched"
        return search(self, batch)

    monkeypatch.setattr(ScoreBatch, "__call__", slow)
    source = Waiting(listed(CASE, 8).images)
    monkeypatch.setattr(prepare, "first_image", lambda source, items: prepare.First(0, source.images[0]))
    assert run(source, tmp_path, shard=2).counts == {"ok": 8}


def test_no_more_is_read_ahead_than_a_few_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "BLOCK_IMAGES", 2)
    furthest: list[tuple[int, int]] = []

    class Told(Listed):
        last = 0

        def read(self, first, stop):
            Told.last = max(Told.last, stop)
            return super().read(first, stop)

    search = ScoreBatch.__call__
    monkeypatch.setattr(
        ScoreBatch, "__call__",
        lambda self, batch: (furthest.append((int(batch["index"][0]), Told.last)), search(self, batch))[1],
    )  # fmt: skip
    monkeypatch.setattr(prepare, "first_image", lambda source, items: prepare.First(0, source.images[0]))
    run(Told(listed(CASE, 40).images), tmp_path, shard=8)
    assert len(furthest) == 20 and all(ahead - at <= 2 * (decoding.AHEAD + 1) for at, ahead in furthest)


def test_the_size_of_a_shard_goes_by_the_time_of_an_image(tmp_path, monkeypatch):
    class Slow:
        total, seconds = 10**6, 0.0

        def __call__(self, batch):
            clock[0] += self.seconds

    clock = [0.0]
    monkeypatch.setattr(prepare.time, "perf_counter", lambda: clock[0])
    sizes = []
    for Slow.seconds in (1e-3, 0.1, 1.0, 100.0):
        sizes.append(prepare.shard_size(Slow(), np.zeros((1, 8, 8))))
    assert sizes == [4096, 512, 32, 16]


def test_what_every_runner_calls_can_be_pickled_and_asks_for_a_part_of_the_run():
    score = ScoreBatch(Scorer(CASE.module, config=CONFIG), CASE.image_shape, 5, ("reconstructions",))
    batch = {"image": CASE.images(5).numpy()[1:4], "index": np.array([1, 2, 3])}
    found, again = score(batch), pickle.loads(pickle.dumps(score))(batch)
    assert found.keys() == {*NUMBERS, "status", "error", "reconstructions"}
    assert all(np.array_equal(found[name], again[name]) for name in found)
    assert np.array_equal(found["score"], columns_by_search(CASE, 5, **FAST)["score"][1:4])
    with pytest.raises(ValueError, match="consecutive"):
        score({**batch, "index": np.array([1, 3, 4])})


def test_a_table_of_parts_is_a_stream(tmp_path):
    run(listed(CASE, 10), tmp_path)
    assert [table.num_rows for table in jobs.tables(tmp_path)] == [4, 4, 2]
    assert isinstance(jobs.read(tmp_path), pa.Table)
    with pytest.raises(FileNotFoundError, match="holds no job"):
        jobs.read(tmp_path / "nowhere")
