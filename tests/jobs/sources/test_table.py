"""Images in parquet files."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from adgan_fast.jobs.errors import InputsChanged
from adgan_fast.jobs.sources import Shaping, Table, table
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
