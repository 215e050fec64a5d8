"""Pictures in folders, by patterns, alone: what is found, in which order, and every fault named."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adgan_fast.data import load_folder
from adgan_fast.jobs.errors import InputsChanged
from adgan_fast.jobs.source import Unreadable
from adgan_fast.jobs.sources import Files, Shaping
from tests.support.pictures import random_bytes, write_picture
from tests.support.sources import encoded, ids, labels, read_all

GREY = random_bytes(6, 5)
COLOUR = random_bytes(6, 5, 3)


def test_a_folder_is_read_with_its_subfolders_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a/2.PNG", "a/1.png", "c/d/e.JPG", "a.png"):
        write_picture(tmp_path / name, COLOUR)
    (tmp_path / "notes.txt").write_text("no picture")
    source = Files(tmp_path)
    assert ids(source) == ["a/1.png", "a/2.PNG", "a.png", "b.png", "c/d/e.JPG"] == ids(source)
    assert all(np.array_equal(image, COLOUR.transpose(2, 0, 1)) for image in read_all(source)[:4])
    assert [image.shape for image in source.read(1, 3)] == [(3, 6, 5)] * 2 and list(source.read(5, 9)) == []


def test_pictures_are_the_same_as_those_of_load_folder(tmp_path: Path) -> None:
    for index in range(4):
        write_picture(tmp_path / f"{index}.png", random_bytes(9 + index, 7, 3, seed=index))
    for channels in (1, 3):
        found = read_all(Files(tmp_path, Shaping(size=(6, 5), channels=channels)))
        assert np.array_equal(found, load_folder(tmp_path, size=(6, 5), channels=channels).images)


def test_labels_are_the_first_folders_below_the_root(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/young/2.png", "dog/3.png", "4.png"):
        write_picture(tmp_path / name, GREY)
    assert labels(Files(tmp_path, labels=True)) == [None, "cat", "cat", "dog"]
    assert labels(Files(tmp_path)) == [None] * 4


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", GREY)
    (before,) = Files(tmp_path).items()
    os.utime(tmp_path / "a.png", ns=(1, 1))
    (touched,) = Files(tmp_path).items()
    size = (tmp_path / "a.png").stat().st_size
    assert before.stamp != touched.stamp == f"{size}:1"


def test_a_pattern_takes_files_of_any_name_and_no_folder(tmp_path: Path) -> None:
    for name in ("x/a.png", "x/y/b.png", "x.png/c.png"):
        write_picture(tmp_path / name, GREY)
    (tmp_path / "x" / "raw").write_bytes(encoded(GREY))
    assert ids(Files(tmp_path / "x" / "*")) == ["a.png", "raw"]
    assert ids(Files(f"{tmp_path}/**/*.png")) == ["x/a.png", "x/y/b.png", "x.png/c.png"]
    assert ids(Files(tmp_path / "z*")) == []
    assert all(np.array_equal(image[0], GREY) for image in read_all(Files(tmp_path / "x" / "*")))


def test_a_pattern_of_the_current_folder_and_a_folder_named_like_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "[a]" / "b.png", GREY)
    monkeypatch.chdir(tmp_path)
    assert ids(Files("*/*.png")) == ["[a]/b.png"] and ids(Files("[a]")) == ["b.png"]
    assert len(read_all(Files("*/*.png"))[0]) == 1


def test_a_single_picture(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", GREY)
    write_picture(tmp_path / "b.png", GREY)
    assert ids(Files(tmp_path / "a.png")) == ["a.png"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", b"", "the file is empty"),
        ("cut.png", encoded(COLOUR)[:-30], "damaged"),
        ("cut.jpg", encoded(random_bytes(64, 64), "JPEG")[:-300], "damaged"),
        ("text.png", b"no picture at all", "its head is damaged, or none of BMP"),
        ("eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of BMP"),
        ("deep.png", encoded(np.full((4, 4), 40000, np.uint16)), "more than 8 bits a channel"),
        ("float.tiff", encoded(np.ones((4, 4), np.float32), "TIFF"), "more than 8 bits a channel"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_is_no_picture_is_named_and_the_others_are_read(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    write_picture(tmp_path / "a.png", GREY)
    (tmp_path / name).write_bytes(content)
    write_picture(tmp_path / "z.png", GREY)
    first, bad, last = read_all(Files(tmp_path))
    assert words in bad and str(tmp_path) not in bad
    assert np.array_equal(first[0], GREY) and np.array_equal(last[0], GREY)


def test_a_decompression_bomb_is_refused_with_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "a.png", np.zeros((40, 40), np.uint8))
    for limit in (1000, 100):  # which Pillow warns of, and refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        (reason,) = read_all(Files(tmp_path))
        assert "too many pixels" in reason and "1600 pixels" in reason and "MAX_IMAGE_PIXELS" in reason
        assert str(limit) in reason or str(2 * limit) in reason


def animated() -> bytes:
    data = io.BytesIO()
    Image.fromarray(GREY).save(data, "GIF", save_all=True, append_images=[Image.fromarray(GREY[::-1].copy())])
    return data.getvalue()


def test_pictures_of_every_kind_are_read_right(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(200)
    cmyk = Image.fromarray(COLOUR).convert("CMYK")
    turned = Image.Exif()
    turned[0x0112] = 6
    palette.save(tmp_path / "palette.png")
    cmyk.save(tmp_path / "cmyk.tiff")
    write_picture(tmp_path / "turned.png", GREY, exif=turned)
    (tmp_path / "animated.gif").write_bytes(animated())
    write_picture(tmp_path / "alpha.png", random_bytes(6, 5, 4))
    Image.fromarray(GREY > 99).save(tmp_path / "bits.png")
    found = dict(zip(ids(source := Files(tmp_path)), read_all(source), strict=True))
    assert np.array_equal(found["palette.png"], np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    assert np.array_equal(found["cmyk.tiff"], np.asarray(cmyk.convert("RGB")).transpose(2, 0, 1))
    assert np.array_equal(found["turned.png"][0], np.rot90(GREY, -1))
    assert np.array_equal(found["animated.gif"][0], GREY)
    assert np.array_equal(found["alpha.png"], random_bytes(6, 5, 4)[..., :3].transpose(2, 0, 1))
    assert np.array_equal(found["bits.png"][0], 255 * (GREY > 99))


def test_a_folder_named_like_a_picture_is_a_folder(tmp_path: Path) -> None:
    write_picture(tmp_path / "x.png" / "a.png", GREY)
    (tmp_path / "empty.png").mkdir()
    assert ids(Files(tmp_path)) == ["x.png/a.png"]


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    for name in ("._a.png", ".thumbs/a.png", "__MACOSX/a.png", "a.png"):
        write_picture(tmp_path / name, GREY)
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assert ids(Files(tmp_path)) == ["a.png"]


def test_links(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_picture(tmp_path / "real" / "a.png", GREY)
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "file.png").symlink_to(tmp_path / "real" / "a.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "gone").symlink_to("nowhere")
    (folder / "round").symlink_to(folder)
    (folder / "self.png").symlink_to("self.png")
    items = list(Files(folder).items())
    assert [item.id for item in items] == ["file.png", "gone.png", "self.png"]
    assert [bool(item.stamp) for item in items] == [True, False, False]
    good, gone, itself = read_all(Files(folder))
    assert np.array_equal(good[0], GREY) and "No such file" in gone and "cannot be read" in itself
    assert "round: passed over, a link to a folder" in caplog.text and "gone:" not in caplog.text
    (tmp_path / "linked").symlink_to(folder)
    assert len(ids(Files(tmp_path / "linked"))) == 3  # the root itself may be a link


@pytest.mark.skipif(sys.platform != "linux", reason="a name that is not UTF-8 needs a file system that takes it")
def test_names_may_hold_anything(tmp_path: Path) -> None:
    for name in ("line\nbreak.png", 'quote",.png', "größe.png", os.fsdecode(b"\xff\xfe.png"), "  .png"):
        (tmp_path / name).write_bytes(encoded(GREY))
    source = Files(tmp_path)
    found = ids(source)
    assert set(found) == {"line\nbreak.png", 'quote",.png', "größe.png", "\\xff\\xfe.png", "  .png"}
    assert all(each.encode() for each in found) and all(np.array_equal(i[0], GREY) for i in read_all(source))
    assert ids(pickle.loads(pickle.dumps(source))) == found
    for name in ("\\xff\\xfe.png", "\\x5cxff\\xfe.png", "\\\\xff.png", "\\xf.png"):  # none looks like another
        (tmp_path / name).write_bytes(encoded(GREY))
    assert set(ids(Files(tmp_path))) == {
        *found, "\\x5cxff\\x5cxfe.png", "\\x5cx5cxff\\x5cxfe.png", "\\\\x5cxff.png", "\\xf.png"
    }  # fmt: skip


def test_ten_thousand_files_are_listed_at_once_and_read_from_the_middle(tmp_path: Path) -> None:
    data = encoded(random_bytes(2, 2))
    for index in range(10_000):
        (tmp_path / f"{index:05d}.png").write_bytes(data)
    began = time.process_time()
    source = Files(tmp_path)
    assert [item.id for item in source.items()] == [f"{index:05d}.png" for index in range(10_000)]
    assert len(list(source.read(7_000, 7_010))) == 10
    assert len(pickle.dumps(source)) < 1000  # cheap to send
    assert time.process_time() - began < 5


def test_files_that_come_while_a_job_runs_are_noticed_by_its_workers(tmp_path: Path) -> None:
    write_picture(tmp_path / "b.png", GREY)
    source = Files(tmp_path)
    assert ids(source) == ["b.png"]
    worker = pickle.loads(pickle.dumps(source))
    write_picture(tmp_path / "a.png", GREY)
    assert ids(source) == ["b.png"]
    with pytest.raises(InputsChanged, match="files have come or gone"):
        list(worker.read(0, 1))


def test_a_file_that_goes_is_unreadable(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", GREY)
    source = Files(tmp_path)
    assert ids(source) == ["a.png"]
    (tmp_path / "a.png").unlink()
    (found,) = source.read(0, 1)
    assert isinstance(found, Unreadable) and "No such file" in str(found)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        Files(tmp_path / "nowhere")
    assert ids(Files(tmp_path)) == []


def test_threads_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Image.open

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(random.random() / 50)  # so that others come between
        return right(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow)
    for index in range(40):
        write_picture(tmp_path / f"{index:02d}.png", random_bytes(5, 5, seed=index))
    source, found, before = Files(tmp_path), {}, list(warnings.filters)

    def read(first: int) -> None:
        found[first] = list(source.read(first, first + 5))

    workers = [threading.Thread(target=read, args=(first,)) for first in range(0, 40, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    images: list[Any] = [image for first in sorted(found) for image in found[first]]
    assert all(np.array_equal(image[0], random_bytes(5, 5, seed=index)) for index, image in enumerate(images))
    assert list(warnings.filters) == before


def test_a_fingerprint_is_json_and_knows_what_decides_the_pixels(tmp_path: Path) -> None:
    about = Files(tmp_path, Shaping(size=(4, 5), channels=3, resize="pad"), labels=True).fingerprint()
    assert json.loads(json.dumps(about)) == about
    assert about == {
        "kind": "folder", "path": f"{tmp_path}", "labels": True, "size": [4, 5], "channels": 3, "resize": "pad",
    }  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
def test_what_is_no_regular_file_is_a_picture_that_cannot_be_read_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "c")
    for name, kinds in ((tmp_path, ["a FIFO", "a device"]), (tmp_path / "*", ["a FIFO", "a device", "a FIFO"])):
        assert read_all(Files(name)) == [f"cannot be read ({kind}, no regular file)" for kind in kinds]
    with pytest.raises(ValueError, match=r"a\.png: a FIFO, no file or folder of pictures"):
        Files(tmp_path / "a.png")
