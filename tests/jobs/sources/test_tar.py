"""Pictures in tar files: webdataset's shards, and hostile ones."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from adgan_fast.jobs.errors import InputsChanged
from adgan_fast.jobs.sources import Tar
from tests.support.pictures import random_bytes
from tests.support.sources import encoded, ids, labels, read_all, write_tar

IMAGES = [random_bytes(4, 5, 3, seed=seed) for seed in range(3)]


def test_a_shard_of_webdataset(tmp_path: Path) -> None:
    members = {}
    for number, image in enumerate(IMAGES):
        members |= {f"d/{number:03}.png": encoded(image), f"d/{number:03}.cls": str(number % 2).encode()}
        members[f"d/{number:03}.json"] = b"{}"
    source = Tar(write_tar(tmp_path / "a.tar", members), labels=True)
    assert ids(source) == ["d/000.png", "d/001.png", "d/002.png"] and labels(source) == ["0", "1", "0"]
    assert np.array_equal(read_all(source), [image.transpose(2, 0, 1) for image in IMAGES])
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(next(again.read(2, 3)), IMAGES[2].transpose(2, 0, 1)) and len(pickle.dumps(source)) < 1000
    assert labels(Tar(tmp_path / "a.tar")) == [None] * 3


def test_ids_are_those_of_the_folder_that_was_packed(tmp_path: Path) -> None:
    data = encoded(IMAGES[0])
    members = {"./a/b.png": data, "./a/b.cls": b"1", "c.png": data}
    hidden = dict.fromkeys(("./._c.png", "./.x/c.png", "a/.thumbs/b.png", "__MACOSX/c.png", "./.c.cls"), data)
    source = Tar(write_tar(tmp_path / "a.tar", members | hidden), labels=True)
    assert ids(source) == ["a/b.png", "c.png"] and labels(source) == ["1", None] and len(read_all(source)) == 2


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_names_are_names_alone_and_links_are_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(IMAGES[0])
    members = {
        "../../evil.png": data, "/etc/evil.png": data, "link.png": link("link.png", "/etc/passwd"),
        "hard.png": link("hard.png", "../../evil.png", tarfile.LNKTYPE), "line\nbreak.png": data,
        "folder.png": link("folder.png", "", tarfile.DIRTYPE), "x" * 300 + ".png": data,
    }  # fmt: skip
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    source = Tar(write_tar(tmp_path / "a.tar", members))
    assert ids(source) == ["../../evil.png", "/etc/evil.png", "line\nbreak.png", "x" * 300 + ".png"]
    assert all(isinstance(image, np.ndarray) for image in read_all(source))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "a.tar", "b"]  # nothing was written
    assert "passed over link.png, which is no file" in caplog.text and "hard.png" in caplog.text


def test_a_damaged_picture_in_it_spoils_no_other(tmp_path: Path) -> None:
    members = {"a.png": encoded(IMAGES[0]), "b.png": encoded(IMAGES[1])[:60], "c.png": b"", "d.png": encoded(IMAGES[2])}
    first, damaged, empty, last = read_all(Tar(write_tar(tmp_path / "a.tar", members)))
    assert "damaged" in damaged and "the file is empty" in empty
    assert np.array_equal([first, last], [IMAGES[0].transpose(2, 0, 1), IMAGES[2].transpose(2, 0, 1)])


def test_a_tar_cut_short_anywhere_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{n}.png": encoded(image) for n, image in enumerate(IMAGES)})
    whole = path.read_bytes()
    used = len(whole.rstrip(b"\0")) + 512
    for length in {0, 1, 100, 512, 513, 700, 1024, 1025, 1536, 2000, used // 512 * 512 - 512}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.tar: .*(damaged|cut short)"):
            ids(Tar(path))


def test_a_tar_damaged_in_its_middle_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{n}.png": encoded(image) for n, image in enumerate(IMAGES)})
    data = bytearray(path.read_bytes())
    data[data.index(b"1.png") + 20] ^= 0xFF  # in the second head
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged, or cut short, after 0\.png"):
        ids(Tar(path))


@pytest.mark.parametrize(("mode", "packing"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_tar_is_refused_with_the_remedy(tmp_path: Path, mode: str, packing: str) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": encoded(IMAGES[0])}, mode)
    with pytest.raises(ValueError, match=rf"compressed \({packing}\): unpack it"):
        ids(Tar(path))


def test_what_is_no_tar_and_what_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_text("no tar" * 1000)
    with pytest.raises(ValueError, match="not a tar file"):
        ids(Tar(path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        Tar(tmp_path / "b.tar")
    write_tar(path, {"a.png": encoded(IMAGES[0])})
    source = Tar(path)
    write_tar(path, {"a.png": encoded(IMAGES[0]), "b.png": encoded(IMAGES[0])})
    with pytest.raises(InputsChanged, match="has changed"):
        ids(source)
    known = Tar(path)
    assert len(ids(known)) == 2
    write_tar(path, {"b.png": encoded(IMAGES[0])})  # known where the pictures lie, it would read others
    with pytest.raises(InputsChanged, match="has changed"):
        next(known.read(0, 1))
    write_tar(path, {"a.png": encoded(IMAGES[0]), "a.cls": b"1" * 2000})
    with pytest.raises(ValueError, match=r"a\.cls is no label, but 2000 bytes"):
        ids(Tar(path, labels=True))
