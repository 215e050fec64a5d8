"""What is read before it is written shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def filled_with_nan(warn_only: bool = False) -> Iterator[None]:
    """PyTorch fills what it has not initialised with NaN while it is asked to be deterministic.

    `warn_only`: an operation that has no deterministic form runs all the same.
    """
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)
