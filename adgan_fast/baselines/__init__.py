"""The detectors that the paper compares with ADGAN (Deecke et al. 2018, Sect. 4.2), each by its own file."""

from __future__ import annotations

from .base import Baseline, NotFittedError

__all__ = ["Baseline", "NotFittedError"]
