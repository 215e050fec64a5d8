"""Images in parquet files."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from adgan_fast.jobs.errors import InputsChanged
from adgan_fast.jobs.manifest import manifest_of
from adgan_fast.jobs.sources import Shaping, Table, open_source, reopened, table
from adgan_fast.jobs.sources.table import Opened
from tests.support.pictures import random_bytes, write_picture
from tests.support.sources import encoded, ids, labels, read_all

IMAGES = [random_bytes(4, 5, seed=seed) for seed in range(30)]
DATA = [encoded(image) for image in IMAGES]


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_encoded_pictures_in_groups_of_rows_of_any_size(tmp_path: Path, rows: int) -> None:
    path = write(tmp_path / "a.parquet", {"label": [n % 3 for n in range(30)], "image": DATA}, row_group_size=rows)
    source = Table(path, labels=True)
    assert ids(source) == [str(n) for n in range(30)] and labels(source) == [str(n % 3) for n in range(30)]
    assert np.array_equal(read_all(source), np.array(IMAGES)[:, None])
    for first, stop in ((0, 1), (6, 8), (7, 14), (29, 30), (29, 99), (30, 40), (5, 5)):
        assert [image[0].tolist() for image in source.read(first, stop)] == [i.tolist() for i in IMAGES[first:stop]]


def test_a_folder_of_files_is_one_table(tmp_path: Path) -> None:
    for number, part in enumerate((slice(0, 4), slice(4, 5), slice(5, 30))):
        write(tmp_path / f"part-{number}.parquet", {"image": DATA[part]})
    write(tmp_path / "part-1a.parquet", {"image": pa.array([], pa.binary())})
    (tmp_path / "_SUCCESS").write_bytes(b"")
    source = Table(tmp_path)
    assert ids(source) == [str(n) for n in range(30)] and np.array_equal(read_all(source), np.array(IMAGES)[:, None])
    assert [image[0].tolist() for image in source.read(3, 7)] == [i.tolist() for i in IMAGES[3:7]]
    assert next(pickle.loads(pickle.dumps(source)).read(4, 5)).shape == (1, 4, 5)


def test_the_struct_of_hugging_face(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.png", IMAGES[1])
    cells = [{"bytes": DATA[0], "path": "gone.png"}, {"bytes": None, "path": "x.png"}, {"bytes": None, "path": None}]
    found = read_all(Table(write(tmp_path / "a.parquet", {"image": cells})))
    assert np.array_equal(found[0][0], IMAGES[0]) and np.array_equal(found[1][0], IMAGES[1])
    assert found[2] == "the row holds no image"


def test_paths_are_relative_to_the_table_and_have_stamps(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "x.png", IMAGES[0])
    paths = ["in/x.png", str(tmp_path / "in" / "x.png"), "in/gone.png", None, "a\0b"]
    source = Table(write(tmp_path / "a.parquet", {"path": paths}))
    found = read_all(source)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0][0], IMAGES[0])
    assert "No such file" in found[2] and found[3] == "the row holds no image" and found[4] == "the row holds no path"
    stamps = [item.stamp for item in source.items()]
    assert stamps[0] == stamps[1] != "" and stamps[2:] == ["", "", ""]


def test_paths_may_not_leave_their_folder_unless_another_is_given(tmp_path: Path) -> None:
    inside, beside = tmp_path / "lake" / "tables", tmp_path / "lake" / "shots"
    write_picture(beside / "x.png", IMAGES[0])
    write_picture(inside / "in.png", IMAGES[1])
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    paths = ["in.png", "../shots/x.png", str(beside / "x.png"), "a/../../shots/x.png", str(inside / "in.png"), ".."]
    path = write(inside / "a.parquet", {"path": paths})
    source = Table(path)
    found, stamps = read_all(source), [item.stamp for item in source.items()]
    for row in (1, 2, 3, 5):
        assert f"leads out of {inside}: --within DIR" in found[row] and stamps[row] == ""
    for row in (0, 4):
        assert np.array_equal(found[row][0], IMAGES[1]) and stamps[row]
    for within in (tmp_path / "lake", tmp_path / "link", "/"):
        wider = open_source(path, within=within)
        assert [isinstance(each, str) for each in read_all(wider)] == [False] * 5 + [True]
        again = reopened(wider.fingerprint())
        assert ids(again) == ids(wider) and np.array_equal(read_all(again)[1][0], IMAGES[0])
    assert wider.fingerprint() != source.fingerprint()
    assert read_all(Table(tmp_path / "link" / "tables" / "a.parquet"))[4].shape == (1, 4, 5)  # by its other name
    with pytest.raises(ValueError, match="of parquet files alone, got '/'"):
        open_source(beside, within="/")


def test_paths_beside_bytes_have_stamps_where_they_count_and_bytes_are_not_read_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "x.png", IMAGES[1])
    held = [{"bytes": DATA[0], "path": "x.png"}] * 3
    source = Table(
        write(tmp_path / "a.parquet", {"image": [*held, {"bytes": None, "path": "x.png"}]}, row_group_size=2)
    )
    wanted, read = [], parquet.ParquetFile.iter_batches
    monkeypatch.setattr(
        parquet.ParquetFile, "iter_batches",
        lambda self, *some, **more: (wanted.append(more["row_groups"]), read(self, *some, **more))[1],
    )  # fmt: skip
    assert [bool(item.stamp) for item in source.items()] == [False, False, False, True] and wanted == [[1]]
    before = manifest_of(source)
    write_picture(tmp_path / "x.png", IMAGES[2])
    os.utime(tmp_path / "x.png", ns=(0, 0))
    assert manifest_of(source) != before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_what_is_no_regular_file_is_told_by_its_kind_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    paths = ["x.png", "/dev/zero", "/dev"]
    found = read_all(Table(write(tmp_path / "a.parquet", {"path": paths}), within="/"))
    assert found == [f"cannot be read ({kind}, no regular file)" for kind in ("a FIFO", "a device", "a folder")]
    os.mkfifo(tmp_path / "b.parquet")
    with pytest.raises(FileNotFoundError, match=r"b\.parquet: cannot be read \(a FIFO, no regular file\)"):
        Table(tmp_path)


def test_a_column_of_any_name_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"scan": DATA[:2], "n": [1, 2]})
    assert len(read_all(Table(path, column="scan"))) == 2
    for options, words in (
        ({}, "no column is known to hold images: name it by --column; its columns are scan, n"),
        ({"column": "x"}, "no column 'x', but scan, n"),
        ({"column": "n"}, "column 'n' is of int64, expected encoded pictures"),
        ({"column": "scan", "labels": True}, "no column is known to hold labels"),
    ):
        with pytest.raises(ValueError, match=words.replace("(", r"\(")):
            Table(path, **options)  # type: ignore[arg-type]


def test_bad_rows_spoil_no_other(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": [DATA[0], b"", None, b"no picture", DATA[1]]})
    found = read_all(Table(path, Shaping(expected=(1, 4, 5))))
    assert [isinstance(each, str) for each in found] == [False, True, True, True, False]
    assert found[1] == found[2] == "the row holds no image" and "its head is damaged" in found[3]


def test_threads_that_read_small_parts_in_turns_read_each_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(Opened, "__enter__", lambda self, right=Opened.__enter__: opened.append(1) or right(self))
    monkeypatch.setattr(table, "KEPT", 20)  # 1280 rows: so far a thread may stay behind
    path = write(tmp_path / "a.parquet", {"image": [DATA[n % 30] for n in range(2000)]})
    source = pickle.loads(pickle.dumps(Table(path)))
    opened.clear()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda first: list(source.read(first, first + 7)), range(0, 2000, 7)))
    found = [image[0].tolist() for part in parts for image in part]
    assert found == [IMAGES[n % 30].tolist() for n in range(2000)] and opened == [1]
    assert next(source.read(3, 4))[0].tolist() == IMAGES[3].tolist() and opened == [1, 1]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": DATA}, compression="none")
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:-10], whole[: len(whole) // 2], b"text" * 100):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.parquet: not a parquet file, or a damaged one"):
            Table(path)
    path.write_bytes(b"PAR1" + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])  # the end is sound
    with pytest.raises(ValueError, match=r"a\.parquet: damaged"):
        read_all(Table(path))


def test_nothing_there_and_what_changes(tmp_path: Path) -> None:
    for name in (tmp_path / "b.parquet", tmp_path):
        with pytest.raises(FileNotFoundError, match=tmp_path.name):
            Table(name)
    source = Table(write(tmp_path / "a.parquet", {"image": DATA}))
    write(tmp_path / "a.parquet", {"image": DATA[:3]})
    with pytest.raises(InputsChanged, match="has changed"):
        list(source.read(0, 1))
