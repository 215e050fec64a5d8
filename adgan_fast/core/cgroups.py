"""What the control groups (cgroups) of this process leave of their memory limits: a container's limit is one."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

OWN = Path("/proc/self/cgroup")  # the groups of this process, a line for each hierarchy: "number:controllers:path"
MOUNT = Path("/sys/fs/cgroup")


class _Files(NamedTuple):
    """How a version of cgroups names what is read here."""

    limits: tuple[str, ...]
    used: str
    prefix: str  # of the entries of memory.stat that also count what lies below the group


# Above memory.high the kernel does not kill; it slows a process down until next to nothing moves.
_V2 = _Files(("memory.max", "memory.high"), "memory.current", "")
_V1 = _Files(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")


def bytes_left() -> list[int]:
    """What is left in each control group of this process that has a limit, from its own up to the root; [] if none.

    The smallest counts. Groups that cannot be read are passed over: a container sees no group above its own.
    """
    try:
        lines = OWN.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        files, mounts = (_V1, [MOUNT / "memory"]) if controllers else (_V2, [MOUNT, MOUNT / "unified"])
        found += [_left(mount / group, files) for mount in mounts for group in _upwards(path)]
    return [left for left in found if left is not None]


def _upwards(path: str) -> list[PurePosixPath]:
    """The group and those above it, relative to the root. Of a group outside of what is mounted ("/../x"), the root."""
    relative = PurePosixPath(path.lstrip("/"))
    return [PurePosixPath()] if ".." in relative.parts else [relative, *relative.parents]


def _left(group: Path, files: _Files) -> int | None:
    limits = [limit for name in files.limits if (limit := _number(group / name)) is not None]
    used = _number(group / files.used)
    if not limits or used is None:
        return None
    return max(0, min(limits) - max(0, used - _reclaimable(group, files.prefix)))


def _reclaimable(group: Path, prefix: str) -> int:
    """Bytes counted as used that the kernel takes back before it calls memory full.

    That is the page cache: the lists of file pages, which hold neither tmpfs nor locked pages; less what has to be
    written to a disk first. Of the kernel's own caches (slab), half: a page of them is freed only when all in it is,
    and half is what the kernel's own estimate, MemAvailable, counts on at least.
    """
    try:
        rows = [line.split() for line in (group / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    stat = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

    def of(*names: str) -> int:
        return sum(stat.get(prefix + name, 0) for name in names)

    unwritten = of("file_dirty", "file_writeback", "dirty", "writeback")  # v2's names, and v1's
    return max(0, of("inactive_file", "active_file") - unwritten) + of("slab_reclaimable") // 2


def _number(file: Path) -> int | None:
    """What a file says, or None where it is not there or says "max"."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
