"""LSUN's lmdbs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from adgan_fast.data import load_lsun
from tests.support.lsun import database, encoded, picture


def test_pictures_come_by_key_as_they_were_stored(tmp_path: Path) -> None:
    shown = {"b": picture(16, 16, 1), "a": picture(16, 16, 2)}
    found = load_lsun(database(tmp_path / "x_val_lmdb", {k: encoded(v, "WEBP") for k, v in shown.items()}), 16)
    assert found.names == ("a", "b")
    assert found.images.shape == (2, 3, 16, 16) and found.images.dtype == np.uint8
    np.testing.assert_array_equal(found.images[0], shown["a"].transpose(2, 0, 1))
    np.testing.assert_array_equal(found.images[1], shown["b"].transpose(2, 0, 1))


def test_a_wide_picture_is_cut_to_its_middle_square(tmp_path: Path) -> None:
    wide = picture(8, 24)
    found = load_lsun(database(tmp_path / "db", {"k": encoded(wide)}), 8)
    np.testing.assert_array_equal(found.images[0], wide[:, 8:16].transpose(2, 0, 1))


def test_a_picture_is_resized(tmp_path: Path) -> None:
    flat = np.full((40, 40, 3), 77, np.uint8)
    found = load_lsun(database(tmp_path / "db", {"k": encoded(flat)}), 8)
    assert found.images.shape == (1, 3, 8, 8) and (found.images == 77).all()


def test_most_reads_the_first_alone(tmp_path: Path) -> None:
    folder = database(tmp_path / "db", {f"{i:03d}": encoded(picture(8, 8, i)) for i in range(5)})
    assert load_lsun(folder, 8, most=3).names == ("000", "001", "002")
    assert len(load_lsun(folder, 8, most=50)) == 5


def test_what_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_lsun(tmp_path / "nowhere", 8)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"data\.mdb"):
        load_lsun(tmp_path / "folder", 8)
    (tmp_path / "folder" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(ValueError, match="not an lmdb"):
        load_lsun(tmp_path / "folder", 8)
    with pytest.raises(ValueError, match="no pictures"):
        load_lsun(database(tmp_path / "empty", {}), 8)
    damaged = database(tmp_path / "damaged", {"good": encoded(picture(8, 8)), "ill": encoded(picture(8, 8))[:60]})
    with pytest.raises(ValueError, match=r"damaged/ill: .*damaged"):
        load_lsun(damaged, 8)
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ImportError, match=r"adgan-fast\[lsun\]"):
        load_lsun(damaged, 8)
