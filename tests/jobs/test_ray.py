"""Jobs on a Ray cluster: the local runner's folder, bit for bit, whoever dies on the way."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adgan_fast import SearchConfig, jobs
from adgan_fast.calibration import Calibration
from adgan_fast.jobs.manifest import Shard, manifest_of
from adgan_fast.jobs.ray import DatasetSource, cluster, crew, dataset, worker
from adgan_fast.jobs.ray import score_dataset as scored
from adgan_fast.windows import Windows
from tests.support.paths import ROOT
from tests.support.ray_sources import Deadly, Wrong
from tests.support.runs import listed
from tests.support.small import CASE, FAST
from tests.support.sources import encoded

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SearchConfig(**FAST)


@pytest.fixture(scope="module")
def ray():
    """A cluster of two processors on this machine."""
    ray = (
        pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'adgan-fast[ray]'")
        and sys.modules["ray"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
        yield ray
        ray.shutdown()


def score_dataset(data, out, **settings):
    return scored(data, CASE.module, out, CONFIG, **settings)


@pytest.mark.alone
def test_with_one_of_two_workers_killed_the_files_are_those_of_the_local_runner_which_began_them(ray, tmp_path):
    source = Deadly(listed(CASE, 23).images, folder=str(tmp_path))
    source.images[5] = jobs.Unreadable("no picture at all")
    settings = {"shard": 2, "keep": ["reconstructions"]}
    here = jobs.run(CASE.module, listed_as(source), tmp_path / "here", config=CONFIG, **settings)
    begin(tmp_path / "there", tmp_path / "here", "job.json", "part-00001.parquet", "part-00009.parquet")
    seen = []
    result = score_dataset(source, tmp_path / "there", progress=lambda *done: seen.append(done), **settings)
    assert len(source.killed()) == 1 and len(source.read_by()) >= 2
    assert (result.counts, result.parts, result.resumed, result.images) == ({"ok": 22, "unreadable": 1}, 12, 2, 19)
    assert files(tmp_path / "there") == files(tmp_path / "here")
    assert seen[-1] == (23, 23) and result.seconds["search"] > 0 and result.engine == here.engine
    again = jobs.run(CASE.module, listed_as(source), tmp_path / "there", config=CONFIG, keep=["reconstructions"])
    assert (again.images, again.resumed) == (0, 12)


def begin(folder, other, *names):
    folder.mkdir()
    for name in names:
        shutil.copy(other / name, folder)


def files(folder):
    """Of each part the bytes of its rows, and its footer but for what tells when it was made; job.json as it is."""
    found: dict[str, object] = {"job.json": (folder / "job.json").read_bytes()}
    for path in folder.glob("part*"):
        table = pq.read_table(path)
        footer = json.loads(pq.read_metadata(path).metadata[b"adgan_fast"])
        assert footer.pop("made")["at"]
        rows = io.BytesIO()
        with pa.ipc.new_stream(rows, table.schema.remove_metadata()) as stream:
            stream.write_table(table.replace_schema_metadata(None).combine_chunks())
        found[path.name] = (footer, rows.getvalue())
    assert len(found) > 1
    return found


def listed_as(source):
    return dataclasses.replace(listed(CASE, 0), images=source.images)


@pytest.mark.alone
def test_images_by_windows_have_the_files_of_the_local_runner(ray, tmp_path):
    random = np.random.default_rng(0)
    sides = [(8, 8), (20, 31), (7, 30), (13, 13), (24, 9)]  # the third is too small for a window
    source = dataclasses.replace(listed(CASE, 0), images=[random.uniform(-1, 1, (1, *s)).astype("f4") for s in sides])
    known = Calibration(random.uniform(0, 50, 40))
    decision = jobs.Decision(Calibration(random.uniform(0, 5, 30)), 0.1, known)
    settings = {"windows": Windows(8, 4), "keep": ["windows"], "shard": 2, "decision": decision}
    jobs.run(CASE.module, source, tmp_path / "here", config=CONFIG, **settings)
    result = score_dataset(source, tmp_path / "there", **settings)
    assert result.counts == {"ok": 4, "unreadable": 1} and result.parts == 3
    assert files(tmp_path / "there") == files(tmp_path / "here")
    kept = jobs.read(tmp_path / "there")["windows"].to_pylist()
    assert [len(each) for each in kept] == [1, 28, 0, 9, 10]


@pytest.mark.alone
def test_a_data_set_of_ray_is_a_source(ray, tmp_path):
    images = CASE.images(7).numpy()
    pictures = [encoded((127 * np.ones((8, 8))).astype(np.uint8))]
    rows = [{"id": f"row {row}", "image": image, "label": row % 3} for row, image in enumerate(images)]
    ds = ray.data.from_items(rows, override_num_blocks=3)
    result = score_dataset(ds, tmp_path / "there", shard=2, labels=True, workers=1)
    jobs.run(CASE.module, dataclasses.replace(listed(CASE, 7), images=list(images)), tmp_path / "here", config=CONFIG)
    found, want = jobs.read(tmp_path / "there"), jobs.read(tmp_path / "here")
    assert found["id"].to_pylist() == [row["id"] for row in rows]
    assert found["label"].to_pylist() == [str(row["label"]) for row in rows]
    assert found["score"].equals(want["score"]) and result.counts == {"ok": 7}

    again = DatasetSource(ds, labels=True)
    described = json.loads((tmp_path / "there" / "job.json").read_text())
    assert described["manifest"] == manifest_of(again)._asdict()
    assert described["source"] == {"name": again.name, **again.fingerprint()}
    assert np.array_equal(np.stack(list(again.read(1, 6))), images[1:6])

    source = DatasetSource(ray.data.from_items([{"id": 1, "bytes": pictures[0]}, {"id": 2, "bytes": b""}]))
    grey, none = source.read(0, 2)
    assert grey.shape == (1, 8, 8) and (grey == 127).all() and isinstance(none, jobs.Unreadable)
    for columns, said in (({"image": 1}, "no column of the ids"), ({"id": 1}, "no column of images")):
        with pytest.raises(ValueError, match=said):
            DatasetSource(ray.data.from_items([columns]))


@pytest.mark.alone
def test_an_error_of_an_actor_is_raised_here(ray, tmp_path):
    with pytest.raises(OSError, match="the disk is gone"):
        score_dataset(Wrong(listed(CASE, 6).images), tmp_path, shard=2, workers=1)


@pytest.mark.alone
def test_a_shard_that_ends_every_actor_ends_the_job_and_finished_parts_are_kept(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "ATTEMPTS", 2)
    source = Deadly(listed(CASE, 12).images, folder=str(tmp_path), times=99, readers=1)
    with pytest.raises(jobs.WorkerDied, match="images 8 to 9 have ended their worker"):
        score_dataset(source, tmp_path / "out", shard=2, workers=1)
    assert len(source.killed()) == 2
    result = jobs.run(CASE.module, listed_as(source), tmp_path / "out", config=CONFIG)
    assert result.counts == {"ok": 12} and result.resumed >= 1


@pytest.mark.alone
def test_no_address_where_ray_runs_already(ray, tmp_path):
    with pytest.raises(ValueError, match="leave address out"):
        score_dataset(listed(CASE, 1), tmp_path, address="auto")
    with pytest.raises(ValueError, match="no GPU"):
        cluster.shared_out("cuda", None, 1)
    assert cluster.shared_out(None, None, 1) == cluster.Share("cpu", 2, 1, 0)


# -- without a cluster ---------------------------------------------------------------------------------------------


def block(number: int, *rows: int) -> dict:
    n = len(rows)
    return {
        "score": np.array(rows, float),
        "shard": np.full(n, number),
        "row": np.array(rows),
        "seconds_wait": np.array([1.0] + [0.0] * (n - 1)),
    }


def test_pieces_of_shards_come_in_order_of_blocks_in_any_order_cut_anywhere_and_twice():
    of = [Shard(0, 0, 3), Shard(1, 3, 5)]
    both = {name: np.concatenate([block(0, 2)[name], block(1, 3)[name]]) for name in block(0, 2)}
    blocks = [block(0, 1), both, block(0, 2, 1), block(1, 4), block(1, 3, 4), block(0, 0)]
    blocks = [{**each, "status": each["row"]} for each in blocks]
    found = list(crew.gathered(iter(blocks), of))
    assert [(piece.shard.number, piece.first, piece.stop, piece.last) for piece in found] == [
        (1, 3, 4, False), (1, 4, 5, True), (0, 0, 3, True),
    ]  # fmt: skip
    assert [piece.rows["score"].tolist() for piece in found] == [[3], [4], [0, 1, 2]]
    assert all(set(piece.rows) == {"score", "status"} for piece in found)
    assert [piece.seconds["wait"] for piece in found] == [1, 1, 3]  # as much as the blocks say that were taken
    with pytest.raises(jobs.WorkerDied, match="1 shards"):
        list(crew.gathered(iter(blocks[:-1]), of))


def test_of_a_device_the_kind_alone_counts_and_this_machine_need_not_have_it(monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": 8, "GPU": gpus}} for gpus in (1, 2)]
    monkeypatch.setattr(cluster, "imported", lambda: types.SimpleNamespace(nodes=lambda: nodes))
    for device in ("cuda:7", "cuda", None):
        assert cluster.shared_out(device, None, 4) == cluster.Share("cuda", 3, 4, 1)
    assert cluster.shared_out("cpu", None, 4) == cluster.Share("cpu", 4, 4, 0)
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda' on a cluster, got 'meta'"):
        cluster.shared_out("meta", None, 1)


def test_cells_of_a_data_set(tmp_path):
    def cell(value):
        return dataset._cell(value)

    pixels = np.arange(30, dtype=np.uint8)
    assert cell(pixels.reshape(5, 6)) == ("uint8 1 5 6", pixels.tobytes())
    assert cell(pixels.reshape(1, 5, 6)) == cell(pixels.reshape(5, 6, 1)) == cell(pixels.reshape(5, 6))
    colours = pixels.reshape(2, 5, 3)
    assert cell(colours) == ("uint8 3 2 5", np.moveaxis(colours, 2, 0).tobytes())
    assert cell(np.ones((1, 2, 2)))[0] == "float32 1 2 2"
    assert cell({"bytes": None, "path": "a.png"}) == cell("a.png") == ("path", b"a.png")
    assert cell(b"...") == ("picture", b"...") and cell(None) == cell("") == ("none", b"")
    with pytest.raises(ValueError, match=r"no image \(C, H, W\)"):
        cell(np.zeros((2, 2, 2, 2)))
    with pytest.raises(ValueError, match="without an id"):
        dataset._packed({"id": np.array(["a", None], object), "image": np.zeros((2, 1, 2, 2))}, "image", None, None)
    (tmp_path / "a").write_bytes(b"12")
    paths = {"id": np.arange(4), "path": np.array([str(tmp_path / "a"), "b", "a", __file__])}
    stamps = dataset._packed(paths, "path", None, dataset.Places.of(str(tmp_path), None))["stamp"].to_pylist()
    assert stamps[0] == stamps[2] and stamps[0].startswith("2:") and stamps[1] == stamps[3] == ""


def test_a_machine_that_sees_other_images_or_has_another_version_says_so():
    source = listed(CASE, 3)
    probe = worker.Probe(1, source.images[1].shape, worker.digest(source.images[1]))
    worker._same_inputs(source, probe)
    for other in (source.images[0], jobs.Unreadable("no such file")):
        source.images[1] = other
        with pytest.raises(jobs.JobError, match="same path"):
            worker._same_inputs(source, probe)
    with pytest.raises(jobs.JobError, match="one version"):
        worker.Place("cpu", 1, "0.0.0", "").enter()


def test_jobs_do_without_ray_and_where_it_is_missing_the_remedy_is_named(monkeypatch, tmp_path):
    told = subprocess.run(
        [sys.executable, "-c", "import sys, adgan_fast.jobs.ray; print('ray' in sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == "False\n"
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"adgan-fast\[ray\]"):
        score_dataset(listed(CASE, 1), tmp_path)
