"""Verdicts in the user's cache: found again, whole whatever happens, and never in the way."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from adgan_fast.admission import kept
from adgan_fast.admission.kept import Settings, Verdict
from adgan_fast.admission.machine import Machine

HERE = Machine("NVIDIA H100", "580.1", "2.11", "3.6", "0.1.0", "abc")
ASKED = Settings("triton", "float32", "per_seed")
RIGHT = Verdict("", "", 9.5, "2026-11-26T10:00:00+00:00")
WRONG = Verdict("rms 1.0e-01 of d, 1e-03 is allowed", "", 3.25, "2026-11-26T11:00:00+00:00")


def test_a_verdict_is_found_again_for_the_same_machine_and_settings_alone(cache: Path) -> None:
    assert kept.find(HERE, ASKED) is None
    assert kept.keep(HERE, ASKED, RIGHT) == str(cache)
    assert kept.find(HERE, ASKED) == RIGHT
    for field in Machine._fields:
        assert kept.find(HERE._replace(**{field: "another"}), ASKED) is None
    for field in Settings._fields:
        assert kept.find(HERE, ASKED._replace(**{field: "another"})) is None


def test_a_new_verdict_takes_the_place_of_the_old_one_and_leaves_the_others() -> None:
    other = ASKED._replace(weights="frozen")
    kept.keep(HERE, ASKED, RIGHT)
    kept.keep(HERE, other, RIGHT)
    kept.keep(HERE, ASKED, WRONG)
    assert kept.read() == [(HERE, other, RIGHT), (HERE, ASKED, WRONG)]


def test_the_file_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 3)
    for number in range(5):
        kept.keep(HERE._replace(torch=str(number)), ASKED, RIGHT)
    assert [machine.torch for machine, _, _ in kept.read()] == ["2", "3", "4"]


GOOD = {"machine": HERE._asdict(), "settings": ASKED._asdict(), "verdict": RIGHT._asdict()}
DAMAGED = {
    "half of it": json.dumps([GOOD])[:-20],
    "nothing": "",
    "another form": '{"verdicts": []}',
    "a number": "3",
    "no machine": json.dumps([{name: GOOD[name] for name in ("settings", "verdict")}]),
    "one field less": json.dumps([GOOD | {"settings": {"engine": "triton"}}]),
    "no text": json.dumps([GOOD | {"verdict": RIGHT._asdict() | {"wrong": None}}]),
    "no number": json.dumps([GOOD | {"verdict": RIGHT._asdict() | {"seconds": "9"}}]),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_as_none_and_the_log_says_so_once(what: str, cache: Path, caplog) -> None:
    cache.parent.mkdir()
    cache.write_text(DAMAGED[what])
    assert kept.find(HERE, ASKED) is None and kept.read() == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{cache} is damaged, engines are tried anew: " in caplog.text
    kept.keep(HERE, ASKED, RIGHT)
    assert kept.find(HERE, ASKED) == RIGHT
    assert len(caplog.records) == 1


def test_bytes_that_are_no_text_are_said_too(cache: Path, caplog) -> None:
    cache.parent.mkdir()
    cache.write_bytes(b"\xff\xfe\xfa")
    assert kept.find(HERE, ASKED) is None
    assert "cannot be read, engines are tried anew" in caplog.text


def test_a_cache_that_cannot_be_written_stops_nothing_and_the_log_says_so(cache: Path, caplog) -> None:
    cache.parent.write_text("a file where the folder would be")
    assert kept.keep(HERE, ASKED, RIGHT) == ""
    assert "not kept, so that each process tries it anew" in caplog.text
    assert kept.find(HERE, ASKED) is None


def test_without_a_home_nothing_is_kept_and_the_log_says_so(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert kept.find(HERE, ASKED) is None and kept.keep(HERE, ASKED, RIGHT) == ""
    assert "no home folder" in caplog.text and "not kept" in caplog.text


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/there"}, "/there"),
        ("linux", {}, "/home/me/.cache"),
        ("linux", {"XDG_CACHE_HOME": "not/absolute"}, "/home/me/.cache"),
        ("darwin", {}, "/home/me/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"),
        ("win32", {}, "/home/me/.cache"),
    ],
)
def test_the_folder_is_the_platforms_own(platform, variables, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert kept.path() == Path(folder) / "adgan_fast" / "admissions.json"


def keep_many(name: str) -> None:
    for number in range(40):
        kept.keep(HERE._replace(gpu=name, torch=str(number)), ASKED, RIGHT)


def test_two_processes_at_once_leave_a_whole_file(cache: Path, caplog) -> None:
    spawn = multiprocessing.get_context("spawn")
    assert os.environ["XDG_CACHE_HOME"]  # which they have as well
    both = [spawn.Process(target=keep_many, args=(name,)) for name in ("a", "b")]
    for process in both:
        process.start()
    read = 0
    while any(process.is_alive() for process in both):
        read += bool(kept.read())
    for process in both:
        process.join()
        assert process.exitcode == 0
    found = kept.read()
    assert read and len(found) >= 40 and {verdict for _, _, verdict in found} == {RIGHT}
    assert not caplog.records
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
