"""Numbers that a user gives as settings: checked, and made Python's own, so that they can be stored and compared."""

from __future__ import annotations

import math
import numbers
from typing import Any


def whole(name: str, value: Any, least: int) -> int:
    """`value` as an int; ValueError where it is no whole number (Python's, NumPy's; not a bool) or below `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def positive(name: str, value: Any) -> float:
    """`value` as a float; ValueError where it is no number (Python's, NumPy's; not a bool), not finite, or not > 0."""
    try:
        number = float(value) if is_number(value) else math.nan
    except OverflowError:  # a whole number beyond all floats
        number = math.inf
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return number


def is_number(value: Any) -> bool:
    """Whether `value` is a real number, and not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
