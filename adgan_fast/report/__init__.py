"""Pictures of what a search found; needs matplotlib, ``pip install 'adgan-fast[demo]'``."""

from __future__ import annotations

from .figures import save_gallery, save_roc
from .overlays import overlays

__all__ = ["overlays", "save_gallery", "save_roc"]
