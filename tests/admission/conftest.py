"""A cache of its own, and no verdict yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from adgan_fast import admission


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of verdicts: not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(admission, "_verdicts", {})
    return tmp_path / "adgan_fast" / "admissions.json"
