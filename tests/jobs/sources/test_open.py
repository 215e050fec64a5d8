"""What a user names, as the source that it stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from adgan_fast.jobs.sources import ArraySource, Files, Table, Tar, open_source
from tests.support.pictures import random_bytes, write_picture
from tests.support.sources import encoded, read_all, write_tar

PIXELS = random_bytes(4, 4)


def test_every_kind_by_its_name(tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures" / "a.png", PIXELS)
    parquet.write_table(pa.table({"image": [encoded(PIXELS)]}), tmp_path / "a.parquet")
    (tmp_path / "tables").mkdir()
    parquet.write_table(pa.table({"image": [encoded(PIXELS)]}), tmp_path / "tables" / "a.parquet")
    parquet.write_table(pa.table({"file": ["a.png"]}), tmp_path / "pictures" / "about.parquet")
    write_tar(tmp_path / "a.tar", {"a.png": encoded(PIXELS)})
    np.save(tmp_path / "a.npy", PIXELS[None])
    (tmp_path / "images").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 4]) + PIXELS.tobytes())
    for name, kind in {
        "pictures": Files, "pictures/a.png": Files, "pictures/*.png": Files, "a.parquet": Table, "tables": Table,
        "a.tar": Tar, "a.npy": ArraySource, "images": ArraySource,
    }.items():  # fmt: skip
        source = open_source(tmp_path / name)
        assert isinstance(source, kind) and source.name == str(tmp_path / name)
        (image,) = read_all(source)
        assert np.array_equal(image[0], PIXELS), name
    assert len(list(open_source("sklearn:digits").read(0, 2))) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [("nowhere", "no such file"), ("nowhere.parquet", "no parquet"), ("nowhere.tar", "no such file"), ("", "no such")],
)
def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=words):
        open_source(name)


def test_a_packed_tar_is_told_from_an_array(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "a.tgz"):
        write_tar(tmp_path / name, {"a.png": encoded(PIXELS)}, "w:gz")
        with pytest.raises(ValueError, match="unpack it"):
            list(open_source(tmp_path / name).items())


def test_what_is_nothing_known_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("some words")
    with pytest.raises(ValueError, match=r"notes\.txt: .*not an idx file.* Images are a folder.*\.png.*\.npz, an idx"):
        open_source(tmp_path / "notes.txt")
    write_picture(tmp_path / "p" / "a.png", PIXELS)
    with pytest.raises(ValueError, match=r"a column is of parquet and \.npz files alone"):
        open_source(tmp_path / "p", column="image")
