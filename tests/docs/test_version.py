"""The version stands in adgan_fast/__init__.py; what repeats it says the same."""

from __future__ import annotations

import re

from adgan_fast import __version__
from tests.support.paths import ROOT


def test_the_citation_and_the_changelog_name_this_version():
    (cited,) = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited == __version__
    assert __version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
