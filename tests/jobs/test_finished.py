"""A finished job read again, and two of them compared."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adgan_fast
from adgan_fast import SearchConfig, jobs
from adgan_fast.jobs.comparison import compare, ranks
from adgan_fast.jobs.finished import Finished, SourceGone
from adgan_fast.jobs.sources import ArraySource, Files, Held, Table, Tar, open_source, reopened
from tests.support import reported
from tests.support.pictures import random_bytes
from tests.support.sources import encoded, read_all, write_tar

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reported.pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def job(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(reported.scored(images, tmp_path_factory.mktemp("job")))


# -- one job --------------------------------------------------------------------------------------------------------


def test_pixels_of_any_rows_are_those_that_were_searched(job: Finished, images: Path) -> None:
    rows, ids = [0, 9, 10, 23], job.texts("id")
    given = job.images(rows)
    for row, image in zip(rows, given, strict=True):
        with Image.open(images / ids[row]) as picture:
            np.testing.assert_allclose(image[0], np.asarray(picture) / 127.5 - 1, atol=1e-6)
    config = SearchConfig(n_seed=2, steps=1)
    found = adgan_fast.search(reported.generator(), np.stack(given), config=config)
    assert np.array_equal(job.reconstructions(rows), found.reconstructions.numpy())
    assert job.images([11, 12])[1] is None  # the one that is no picture
    assert job.reconstructions([]).shape == (0, 1, 8, 8)


def test_rows_far_apart_are_read_without_all_that_lie_between(job: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    from adgan_fast.jobs import finished

    monkeypatch.setattr(finished, "_GAP", 3)
    assert list(finished._runs([1, 2, 5, 20])) == [(1, 6, {1, 2, 5}), (20, 21, {20})]
    assert len(job.images([1, 2, 20])) == 3


def test_numbers_are_nan_and_texts_none_where_there_are_none(job: Finished) -> None:
    assert np.isnan(job.numbers("score")).sum() == 1 and np.isnan(job.numbers("no such column")).all()
    assert job.texts("no such column") == [None] * 25 and len(job) == 25


def test_a_folder_without_a_job_and_one_without_reconstructions_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no job"):
        Finished(tmp_path)
    found = Finished(reported.scored(images, tmp_path / "job", keep=()))
    with pytest.raises(ValueError, match="holds no reconstructions"):
        found.reconstructions([0])
    (tmp_path / "job/part-00001.parquet").unlink()
    with pytest.raises(jobs.JobDamaged, match="is not there"):
        Finished(tmp_path / "job")


def test_images_that_are_not_those_of_the_job_are_not_given(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    found = Finished(reported.scored(tmp_path / "images", tmp_path / "job"))
    (tmp_path / "images/good/00.png").unlink()
    with pytest.raises(SourceGone, match="not those of the job"):
        found.images([0])
    held = Held(random_bytes(2, 1, 8, 8), "held")
    jobs.run(reported.generator(), held, tmp_path / "held", config=SearchConfig(n_seed=2, steps=1))
    with pytest.raises(SourceGone, match="'held' cannot be opened again"):
        Finished(tmp_path / "held").images([0])


def test_an_array_with_other_pixels_is_not_the_job_s(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", random_bytes(3, 1, 8, 8))
    source = open_source(tmp_path / "a.npy")
    jobs.run(reported.generator(), source, tmp_path / "job", config=SearchConfig(n_seed=2, steps=1))
    opened = Finished(tmp_path / "job")
    assert opened.images([0])[0] is not None
    np.save(tmp_path / "a.npy", 255 - random_bytes(3, 1, 8, 8))
    os.utime(tmp_path / "a.npy", ns=(1, 1))
    with pytest.raises(SourceGone, match="not those of the job"):
        Finished(tmp_path / "job").images([0])
    with pytest.raises(SourceGone, match="has changed since"):
        opened.images([0])


def test_every_source_that_has_a_name_is_opened_again_as_it_was(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    from adgan_fast.jobs.sources import Shaping

    pixels = random_bytes(3, 1, 10, 12)
    pngs = [encoded(image[0]) for image in pixels]
    np.save(tmp_path / "a.npy", pixels)
    write_tar(tmp_path / "a.tar", {f"{i}.png": png for i, png in enumerate(pngs)})
    parquet.write_table(pa.table({"image": pngs, "pic": pngs[::-1], "label": ["a", "b", "a"]}), tmp_path / "a.parquet")
    reported.pictures(tmp_path / "folder", 2)
    shaping = Shaping((8, 8), 1, "crop")
    cases = [
        ("a.npy", {}, ArraySource),
        ("a.tar", {}, Tar),
        ("a.parquet", {"column": "pic", "labels": True}, Table),
        ("folder", {"labels": True}, Files),
        ("folder/**/0*.png", {}, Files),
        ("folder/good/00.png", {}, Files),
    ]
    for name, options, kind in cases:
        source = open_source(tmp_path / name, shaping, **options)
        again = reopened(source.fingerprint())
        assert again.fingerprint() == source.fingerprint() and isinstance(again, kind)
        assert list(again.items()) == list(source.items())
        for x, y in zip(read_all(source), read_all(again), strict=True):
            np.testing.assert_array_equal(x, y)
    assert reopened({"kind": "digits", "path": "sklearn:digits"}).name == "sklearn:digits"


# -- two jobs -------------------------------------------------------------------------------------------------------


def test_ranks_are_those_of_spearman() -> None:
    from scipy.stats import rankdata

    scores = np.array([3.0, 1.0, 3.0, 2.0, 7.0])
    np.testing.assert_allclose(ranks(scores), (rankdata(scores) - 0.5) / 5)


def test_a_job_compared_with_itself_differs_in_nothing(job: Finished) -> None:
    found = compare(job, job, normal=["good"], most=3)
    assert (found.images, found.only_a, found.only_b, found.differences) == (24, 0, 0, [])
    assert found.rank_correlation == pytest.approx(1) and found.flips == found.moved == []
    assert found.auc is not None and found.auc[0] == found.auc[1]


def test_another_generator_is_seen_in_ranks_and_decisions(job: Finished, images: Path, tmp_path: Path) -> None:
    from scipy.stats import spearmanr

    other = Finished(reported.scored(images, tmp_path / "other", seed=5, keep=()))
    found = compare(job, other, flagged=0.75, most=4)
    x, y = job.numbers("score"), other.numbers("score")
    ok = np.isfinite(x)
    assert found.rank_correlation == pytest.approx(spearmanr(x[ok], y[ok]).statistic)
    assert [name for name, _, _ in found.differences] == ["generator.sha256"]
    cuts = tuple(np.quantile(values[ok], 0.25) for values in (x, y))
    assert found.thresholds == pytest.approx(cuts) and found.decided == "threshold"
    flags = [values[ok] > cut for values, cut in zip((x, y), cuts, strict=True)]
    ids = np.array(job.texts("id"))[ok]
    assert {change.id for change in found.flips} == set(ids[flags[0] != flags[1]]) != set()
    counts = {"both": flags[0] & flags[1], "a": flags[0] & ~flags[1], "b": ~flags[0] & flags[1]}
    assert found.decisions == {name: mask.sum() for name, mask in counts.items()} | {
        "neither": (~flags[0] & ~flags[1]).sum()
    }
    changes = np.abs(ranks(x[ok]) - ranks(y[ok]))
    assert found.moved[0].id == ids[changes.argmax()]
    assert [abs(change.rank_a - change.rank_b) for change in found.moved] == sorted(changes, reverse=True)[:4]


def test_images_of_other_folders_are_found_by_their_ids(job: Finished, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "some")
    for gone in ("good/00.png", "bad/05.png"):
        (tmp_path / "some" / gone).unlink()
    some = Finished(reported.scored(tmp_path / "some", tmp_path / "job"))
    found = compare(some, job)
    assert (found.images, found.only_a, found.only_b) == (22, 0, 2)
    assert found.rank_correlation == pytest.approx(1) and found.moved == []
    with pytest.raises(ValueError, match="share no id"):
        compare(job, Finished(reported.evil(tmp_path / "evil")))
    with pytest.raises(ValueError, match="flagged must be"):
        compare(job, job, flagged=1.0)


def test_rows_of_one_number_in_other_files_are_not_taken_for_one_image(tmp_path: Path) -> None:
    found = {}
    for name in ("a", "b"):
        pixels = random_bytes(3, 1, 8, 8, seed=ord(name))
        np.savez(tmp_path / f"{name}.npz", images=pixels, y=np.arange(3))
        for labels in (False, True):
            source, out = open_source(tmp_path / f"{name}.npz", labels=labels), tmp_path / f"{name}{labels}"
            jobs.run(reported.generator(), source, out, config=SearchConfig(n_seed=2, steps=1))
            found[name, labels] = Finished(out)
    with pytest.raises(ValueError, match=r"are over other files \(.*a\.npz and .*b\.npz\).*--by-number"):
        compare(found["a", False], found["b", False])
    assert compare(found["a", False], found["b", False], by_number=True).images == 3
    assert compare(found["a", False], found["a", True]).rank_correlation == pytest.approx(1)  # one file


def test_a_wrong_share_is_refused(job: Finished) -> None:
    with pytest.raises(ValueError, match="flagged must be"):
        compare(job, job, flagged=1.0)
