"""The tree in docs/architecture.md is what is there: every entry exists, and no folder or module is left out."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from tests.support.pages import code_blocks
from tests.support.paths import ROOT

WHOLE = ("adgan_fast", "kernels", "csrc")
"""Folders of which every module has a line."""
MODULES = (".py", ".cpp", ".h", ".inl")


def entries() -> list[str]:
    """The paths of the tree, folders with a slash at the end."""
    ((_, text),) = code_blocks(ROOT / "docs/architecture.md", "tree")
    found: list[str] = []
    above: list[tuple[int, str]] = []  # indent and path of the folders that an entry is in
    for line in text.splitlines():
        indent, name = re.fullmatch(r"( *)(\S+) +\S.*", line).groups()
        above = [(depth, path) for depth, path in above if depth < len(indent)]
        path = (above[-1][1] if above else "") + name
        found.append(path)
        if name.endswith("/"):
            above.append((len(indent), path))
    return found


def modules(top: str) -> list[str]:
    """The paths of the modules below a folder, without what Python keeps of them."""
    found = [path.relative_to(ROOT) for path in (ROOT / top).rglob("*") if path.suffix in MODULES]
    return [path.as_posix() for path in found if "__pycache__" not in path.parts]


def expected() -> set[str]:
    """What must have a line: folders with modules in them, and the modules, but for __init__.py: its folder's line."""
    found = set()
    for top in (*WHOLE, "bench"):
        for path in modules(top):
            found |= {f"{folder}/" for folder in PurePosixPath(path).parents if folder.parts}
            if top in WHOLE and not path.endswith("/__init__.py"):
                found.add(path)
    return found


def stands_for(entry: str, path: str) -> bool:
    """An entry with a * is for files of its own folder."""
    return entry == path or (entry.count("/") == path.count("/") and fnmatchcase(path, entry))


def test_every_entry_of_the_tree_is_there():
    gone = []
    for entry in entries():
        there = list(ROOT.glob(entry)) if "*" in entry else [ROOT / entry]
        if not any(path.is_dir() if entry.endswith("/") else path.is_file() for path in there):
            gone.append(entry)
    assert gone == []


def test_every_folder_and_module_has_a_line():
    listed = entries()
    assert [path for path in sorted(expected()) if not any(stands_for(entry, path) for entry in listed)] == []


def test_nothing_stands_twice():
    listed = entries()
    assert len(listed) == len(set(listed)) > 50
