"""Pictures of what a search found; needs matplotlib, ``pip install 'adgan-fast[demo]'``."""

from __future__ import annotations

from .figures import save_gallery, save_roc

__all__ = ["save_gallery", "save_roc"]
