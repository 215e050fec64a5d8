"""Numbers that a user gives as settings: checked, and made Python's own, so that they can be stored and compared."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np


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


def flag(name: str, value: Any) -> bool:
    """`value` as a bool; ValueError where it is none (Python's, NumPy's)."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def decay_rates(value: Any) -> tuple[float, float]:
    """Adam's `betas` as two floats; ValueError where they are no two numbers in [0, 1)."""
    two = isinstance(value, (tuple, list)) and len(value) == 2
    if not two or not all(is_number(beta) and 0 <= beta < 1 for beta in value):
        raise ValueError(f"betas must be two numbers of at least 0 and below 1, got {value!r}")
    return float(value[0]), float(value[1])


def is_number(value: Any) -> bool:
    """Whether `value` is a real number, and not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def one_of(name: str, value: Any, known: Sequence[str], more: str = "") -> None:
    """ValueError naming what is `known` (`more` is said after it) where `value` is none of these."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))} {more}".rstrip() + f", got {value!r}")
