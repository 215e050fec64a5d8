"""Files and commands that the pages name are there, and so is what they name in a file."""

from __future__ import annotations

import re

import pytest

from tests.support.pages import PAGES, name
from tests.support.paths import ROOT

SUFFIXES = ("py", "cpp", "h", "inl", "md", "jsonl", "toml")
MENTION = re.compile(rf"`([\w./-]+\.(?:{'|'.join(SUFFIXES)}))(?:: (\w+))?`")
FOLDERS = ("adgan_fast", "kernels", "csrc", "bench", "tests", "docs")
COMMAND = re.compile(r"python\s+-m\s+((?:adgan_fast|bench|tests)[\w.]*)")
HISTORY = "CHANGELOG.md"  # names what was
FILES = [
    *(path for path in ROOT.iterdir() if path.is_file()),
    *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.is_file()),
]
TOLD = [name(page) for page in PAGES if name(page) != HISTORY]


@pytest.mark.parametrize("page", TOLD)
def test_the_files_that_a_page_names_are_there(page):
    lost = []
    for mention in MENTION.finditer((ROOT / page).read_text(encoding="utf-8")):
        path, word = mention.groups()
        meant = [file for file in FILES if f"/{file.relative_to(ROOT).as_posix()}".endswith(f"/{path}")]
        named = [file for file in meant if not word or re.search(rf"\b{word}\b", file.read_text(encoding="utf-8"))]
        if not named:
            lost.append(mention[0])
    assert lost == []


@pytest.mark.parametrize("page", TOLD)
def test_the_commands_that_a_page_names_are_there(page):
    lost = []
    for module in COMMAND.findall((ROOT / page).read_text(encoding="utf-8")):
        path = ROOT / module.replace("adgan_fast.kernels", "kernels").replace(".", "/")
        if not path.with_suffix(".py").is_file() and not (path / "__main__.py").is_file():
            lost.append(module)
    assert lost == []
