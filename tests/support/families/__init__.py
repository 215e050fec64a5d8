"""Generators to test with: named families of those that people use, each with fixed weights."""

from __future__ import annotations

from tests.support.generators import Case

from . import attention, convolutions, decoders, gans, shapes, stopped, styles
from .convolutions import dcgan

__all__ = ["FAMILIES", "REFUSED", "dcgan"]

FAMILIES: dict[str, Case] = {
    case.made_of: case
    for kind in (convolutions, gans, styles, attention, decoders, shapes, stopped)
    for case in kind.families()
}
"""By name: what `grouped` runs, and `native` but for layers that C++ has not and for weights that are computed."""

REFUSED: dict[str, Case] = {case.made_of: case for case in styles.refused()}
"""What cannot become a Program."""
