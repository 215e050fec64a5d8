"""What control groups leave of their limits, on trees of files laid out as Linux lays them out."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from adgan_fast.core import cgroups

G = 2**30


def lay(folder: Path, **files: object) -> None:
    """Writes files of a group; `memory_max=5` is memory.max, and `stat` a dict."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        lines = [f"{key} {number}" for key, number in value.items()] if isinstance(value, dict) else [str(value)]
        (folder / name.replace("memory_", "memory.", 1)).write_text("\n".join(lines) + "\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /sys/fs/cgroup, of a process in the root group of version 2; /proc/self/cgroup is `own` beside it."""
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")
    return tmp_path / "cgroup"


@pytest.mark.parametrize(
    ("limit", "used", "left"), [("5000", "2000", [3000]), ("max", "2000", []), ("5000", "9000", [0])]
)
def test_what_is_left_of_a_limit(limit: str, used: str, left: list[int], machine: Path) -> None:
    lay(machine, memory_max=limit, memory_current=used)
    assert cgroups.bytes_left() == left


def test_the_page_cache_is_free_but_for_what_is_not_written_yet(machine: Path) -> None:
    stat = {"anon": G, "inactive_file": 5 * G, "active_file": G, "file_dirty": 1000, "file_writeback": 500, "shmem": G}
    lay(machine, memory_max=8 * G, memory_current=8 * G, memory_stat=stat)
    assert cgroups.bytes_left() == [6 * G - 1500]


def test_of_the_kernels_own_caches_half_is_free(machine: Path) -> None:
    lay(machine, memory_max=8 * G, memory_current=8 * G, memory_stat={"slab_reclaimable": G, "slab_unreclaimable": G})
    assert cgroups.bytes_left() == [G // 2]


def test_more_cache_than_use_leaves_no_more_than_the_limit(machine: Path) -> None:
    lay(machine, memory_max=8 * G, memory_current=G, memory_stat={"inactive_file": 2 * G})  # read a moment apart
    assert cgroups.bytes_left() == [8 * G]
    lay(machine, memory_stat={"inactive_file": 5, "file_dirty": 9})
    assert cgroups.bytes_left() == [7 * G]


def test_the_limit_that_slows_down_counts_too(machine: Path) -> None:
    lay(machine, memory_max=8 * G, memory_high=6 * G, memory_current=G)
    assert cgroups.bytes_left() == [5 * G]


def test_every_group_above_the_own_one_counts(machine: Path) -> None:
    (machine.parent / "own").write_text("0::/pod/container/job\n")
    lay(machine / "pod/container/job", memory_max="max", memory_current=G)
    lay(machine / "pod/container", memory_max=4 * G, memory_current=2 * G, memory_stat={"inactive_file": G})
    lay(machine / "pod", memory_max=8 * G, memory_current=7 * G)
    assert cgroups.bytes_left() == [3 * G, G]


@pytest.mark.parametrize("own", ["0::/docker/0123\n", "0::/../../sibling\n", "0::/a:b\n"])
def test_a_container_that_sees_no_group_but_its_own_at_the_root(own: str, machine: Path) -> None:
    (machine.parent / "own").write_text(own)
    lay(machine, memory_max=8 * G, memory_current=G)
    lay(machine.parent / "sibling", memory_max=1, memory_current=1)  # not ours
    assert cgroups.bytes_left() == [7 * G]


def test_version_one_has_names_of_its_own(machine: Path) -> None:
    (machine.parent / "own").write_text("5:cpu,cpuacct:/x\n4:memory:/box\n0::/\n")
    stat = {"inactive_file": 1, "total_inactive_file": 2 * G, "total_active_file": G, "total_dirty": 7}
    lay(machine / "memory/box", memory_limit_in_bytes=4 * G, memory_usage_in_bytes=4 * G, memory_stat=stat)
    no_limit = 9223372036854771712
    lay(machine / "memory", memory_limit_in_bytes=no_limit, memory_usage_in_bytes=5 * G)
    assert cgroups.bytes_left() == [3 * G - 7, no_limit - 5 * G]


def test_without_control_groups_nothing_is_limited(machine: Path) -> None:
    assert cgroups.bytes_left() == []
    (machine.parent / "own").unlink()
    assert cgroups.bytes_left() == []


@pytest.mark.skipif(not psutil.LINUX, reason="control groups are Linux's")
def test_this_machines_own_groups_can_be_read() -> None:
    assert all(left > 0 for left in cgroups.bytes_left())
