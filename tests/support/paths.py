"""Where things lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Of the repository."""

SHARED = ROOT.parent / "shared" / "data"
"""Where real data sets may lie: beside the repository."""
