"""Folders of pictures: their order, classes and sizes, and pictures that are damaged."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adgan_fast.data import (
    load_folder,
)
from tests.support.pictures import random_bytes, write_picture


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    grey = {name: random_bytes(5, 6, seed=seed) for seed, name in enumerate(["b.png", "a.bmp", "c.PNG"])}
    for name, pixels in grey.items():
        write_picture(tmp_path / name, pixels, format=name[-3:].upper())
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")
    loaded = load_folder(tmp_path)
    assert loaded.names == ("a.bmp", "b.png", "c.PNG")
    assert loaded.labels is None
    assert np.array_equal(loaded.images, np.stack([grey[name] for name in loaded.names])[:, None])
    assert np.array_equal(load_folder(tmp_path, channels=3).images, loaded.images.repeat(3, 1))


def test_subfolders_are_classes(tmp_path: Path) -> None:
    colour = {f"{kind}/{i}.png": random_bytes(4, 4, 3, seed=i) for i, kind in enumerate(["dog", "cat", "dog", "ant"])}
    for name, pixels in colour.items():
        write_picture(tmp_path / name, pixels)
    (tmp_path / "empty").mkdir()
    loaded = load_folder(tmp_path)
    assert loaded.classes == ("ant", "cat", "dog")
    assert loaded.names == ("ant/3.png", "cat/1.png", "dog/0.png", "dog/2.png")
    assert loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1, 2, 2]
    expected = np.stack([colour[name] for name in loaded.names]).transpose(0, 3, 1, 2)
    assert np.array_equal(loaded.images, expected)
    write_picture(tmp_path / "stray.png", random_bytes(4, 4, 3))
    with pytest.raises(ValueError, match="1 pictures lie beside class folders"):
        load_folder(tmp_path)


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", np.full((4, 6), 10, np.uint8))
    write_picture(tmp_path / "b.png", np.full((8, 8, 3), 200, np.uint8))
    with pytest.raises(ValueError, match=r"b\.png: 8x8 pixels, a\.png has 4x6; load_folder\(\.\.\., size=\)"):
        load_folder(tmp_path)
    loaded = load_folder(tmp_path, size=(5, 7))
    assert loaded.images.shape == (2, 3, 5, 7)
    assert (loaded.images[0] == 10).all()
    assert (loaded.images[1] == 200).all()
    assert load_folder(tmp_path, size=8, channels=1).images.shape == (2, 1, 8, 8)
    for bad in (0, (4, 4, 4)):
        with pytest.raises(ValueError, match="size must be"):
            load_folder(tmp_path, size=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        load_folder(tmp_path, channels=4)


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures"):
        load_folder(tmp_path)
    write_picture(tmp_path / "a.png", random_bytes(32, 32))
    sound = (tmp_path / "a.png").read_bytes()
    for data in (b"", b"no picture", sound[: len(sound) // 2]):
        (tmp_path / "b.png").write_bytes(data)
        with pytest.raises(ValueError, match=r"b\.png: not a picture, or a damaged one"):
            load_folder(tmp_path)
    write_picture(tmp_path / "b.png", np.full((32, 32), 3000, np.uint16))
    with pytest.raises(ValueError, match=r"b\.png: more than 8 bits"):
        load_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_folder(tmp_path / "nowhere")


def test_what_systems_and_editors_leave_behind_is_passed_over(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "dog/more/2.png"):
        write_picture(tmp_path / name, random_bytes(4, 4))
    expected = load_folder(tmp_path)
    for name in (
        ".hidden/1.png", "__MACOSX/dog/1.png", "dog/__MACOSX/1.png", "dog/.ipynb_checkpoints/1-checkpoint.png",
        "dog/more/.x/y/3.png", "dog/.3.png",
    ):  # fmt: skip
        write_picture(tmp_path / name, random_bytes(9, 9))
    for name in (".DS_Store", "dog/.DS_Store", "dog/._1.png", "dog/Thumbs.db"):
        (tmp_path / name).write_bytes(b"no picture")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_folder(tmp_path)
    assert loaded.names == expected.names == ("cat/1.png", "dog/1.png", "dog/more/2.png")
    assert np.array_equal(loaded.images, expected.images)


def test_links_are_followed_or_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "elsewhere/1.png", random_bytes(4, 4))
    root = tmp_path / "root"
    write_picture(root / "cat/1.png", random_bytes(4, 4))
    (root / "cat/2.png").symlink_to(tmp_path / "elsewhere/1.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_folder(root).names == ("cat/1.png", "cat/2.png", "dog/1.png")
    (root / "cat/gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "cat/more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "cat/round").symlink_to(root / "cat", target_is_directory=True)
    (root / "cat/.gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "owl").symlink_to(root / "owl")
    with pytest.warns(UserWarning, match="links that lead nowhere or to folders") as caught:
        loaded = load_folder(root)
    assert loaded.names == ("cat/1.png", "cat/2.png", "dog/1.png")
    assert f"{root}: passed over 4 links" in str(caught[0].message)
    assert "cat/gone.png, cat/more, cat/round, owl: copy" in str(caught[0].message)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="passed over 1 links"), pytest.raises(ValueError, match="no pictures"):
        (tmp_path / "flat").mkdir()
        (tmp_path / "flat/a.png").symlink_to("nowhere")
        load_folder(tmp_path / "flat")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "ppm", "tif", "webp"])
def test_a_picture_cut_short_anywhere_is_named_or_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    write_picture(path, random_bytes(6, 7, 3))
    data = path.read_bytes()
    refused = 0
    for length in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:length])
        try:
            load_folder(tmp_path)  # what is missing may be an end mark alone
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 20


def test_a_decompression_bomb_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "big.png", random_bytes(10, 30))
    for limit in (200, 100):  # between this and twice this Pillow but warns, without a name
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=r"big\.png: too many pixels .*MAX_IMAGE_PIXELS"):
            load_folder(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert len(load_folder(tmp_path)) == 1


def test_an_empty_file_and_a_program_in_a_pictures_name_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    for data, message in [(b"", "the file is empty"), (script, "none of BMP")]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{path}: not a picture, .*{message}"):
            load_folder(tmp_path)


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of a user whom permissions bind: root is not bound, so the effective user changes meanwhile."""
    if not hasattr(os, "geteuid"):
        pytest.skip("Windows has no such permissions")
    with tempfile.TemporaryDirectory() as name:
        before = os.geteuid()
        if before == 0:
            os.chmod(name, 0o777)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(before)


def test_what_may_not_be_read_is_named(nobody: Path) -> None:
    write_picture(nobody / "cat/1.png", random_bytes(4, 4))
    (nobody / "cat/1.png").chmod(0)
    with pytest.raises(ValueError, match=r"cat/1\.png: cannot be read \(Permission denied\)"):
        load_folder(nobody)
    (nobody / "cat/1.png").chmod(0o600)
    (nobody / "cat/more").mkdir(mode=0)
    with pytest.raises(ValueError, match=r"cat/more: cannot be read \(Permission denied\)"):
        load_folder(nobody)


def test_sizes_and_channels_may_be_numpys_numbers(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", random_bytes(4, 4))
    for size in (np.int64(8), [np.int32(8), 8]):
        assert load_folder(tmp_path, size=size, channels=np.int64(3)).images.shape == (1, 3, 8, 8)  # type: ignore[arg-type]
    for name, value in (("size", 8.0), ("size", (True, 8)), ("channels", True), ("channels", 1.0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            load_folder(tmp_path, **{name: value})  # type: ignore[arg-type]
