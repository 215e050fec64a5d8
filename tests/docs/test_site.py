"""The site of the pages, and of every public name, builds without a warning."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PUBLIC = (
    "adgan_fast",
    "adgan_fast.baselines",
    "adgan_fast.calibration",
    "adgan_fast.data",
    "adgan_fast.jobs",
    "adgan_fast.jobs.comparison",
    "adgan_fast.jobs.finished",
    "adgan_fast.jobs.ray",
    "adgan_fast.jobs.sources",
    "adgan_fast.maps",
    "adgan_fast.metrics",
    "adgan_fast.models",
    "adgan_fast.report",
    "adgan_fast.report.html",
    "adgan_fast.scikit_learn",
    "adgan_fast.testing",
    "adgan_fast.training",
    "adgan_fast.windows",
)
"""The modules all of whose public names have an entry in the reference."""


def public_names(module: str) -> set[str]:
    """What a module's ``__all__`` lists; where it has none, what is defined in it and has no underscore."""
    imported = importlib.import_module(module)
    defined = [name for name, thing in vars(imported).items() if getattr(thing, "__module__", None) == module]
    return {
        f"{module}.{name}" for name in getattr(imported, "__all__", defined) if not name.startswith("_")
    }  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="Sphinx is not installed (the extra docs)")
def test_the_site_builds_without_a_warning_and_has_every_public_name(tmp_path: Path) -> None:
    from sphinx.util.inventory import InventoryFile

    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", "docs", ".", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "docs/index.html").is_file()
    inventory = InventoryFile.loads((tmp_path / "objects.inv").read_bytes(), uri="").data
    described = {name for domain, names in inventory.items() if domain.startswith("py:") for name in names}
    assert {"adgan_fast.score", "adgan_fast.SearchConfig"} <= described
    assert sorted(set().union(*map(public_names, PUBLIC)) - described) == []
