"""Links between the pages, and to files of the tree, lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.pages import PAGES, name, prose
from tests.support.paths import ROOT

LINK = re.compile(r"!?\[[^\[\]]*\]\(<?([^()\s<>]+)>?\)|(?:href|src)=\"([^\"]+)\"")
FILES = {name(page): page for page in PAGES}


def targets(page: Path) -> list[str]:
    return [match[1] or match[2] for match in LINK.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it of them; repeated ones are numbered."""
    found: dict[str, int] = {}
    names = set()
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


@pytest.mark.parametrize("page", FILES)
def test_every_link_of_a_page_leads_somewhere(page):
    lost = []
    for target in targets(FILES[page]):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):  # of another place: nothing here may depend on a network
            continue
        file = FILES[page] if not path else (FILES[page].parent / path).resolve()
        if not file.exists() or not file.is_relative_to(ROOT) or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("page", sorted(set(FILES) - {"docs/README.md"}))
def test_every_page_is_in_the_index(page):
    listed = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in targets(ROOT / "docs/README.md")}
    assert FILES[page] in listed


def test_links_are_found():
    assert sum(len(targets(page)) for page in PAGES) > 30
