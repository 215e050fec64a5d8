"""The table of rules: one function for each ATen op that the fast engines know."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..walk import Lowering, Rule

RULES: dict[str, Rule] = {}
"""By the op's name, such as "aten.relu.default"."""


def rule(*targets: str) -> Callable[[Rule], Rule]:
    """Register a function (lowering, *arguments in the schema's order) for ops; it may take fewer than there are."""

    def register(function: Rule) -> Rule:
        count = len(inspect.signature(function).parameters) - 1

        def trimmed(at: Lowering, *arguments: Any) -> Any:
            return function(at, *arguments[:count])

        for target in targets:
            RULES[target] = trimmed
        return function

    return register


def pair(sizes: Any) -> tuple[int, int]:
    """(h, w) of one number, or of two."""
    sizes = [int(size) for size in (sizes if isinstance(sizes, (list, tuple)) else [sizes])]
    return (sizes[0], sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
