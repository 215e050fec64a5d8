"""The site of the pages, and of every public name, builds without a warning."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="Sphinx is not installed (the extra docs)")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", "docs", ".", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    search = (tmp_path / "docs/reference/search.html").read_text(encoding="utf-8")
    for name in ("score", "search", "Scorer", "SearchConfig", "SearchResult"):
        assert f'id="adgan_fast.{name}"' in search
    assert (tmp_path / "docs/index.html").is_file()
