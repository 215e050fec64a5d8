"""What PyTorch and Triton's interpreter are asked for, in order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_NO_WORK = ("new_empty", "_unsafe_view", "detach", "empty", "empty_like", "empty_strided")


@contextlib.contextmanager
def operations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the interpreted kernels and of PyTorch's operations, but for views and allocations."""
    from triton.runtime.interpreter import GridExecutor

    seen: list[str] = []
    run = GridExecutor.__call__

    def launch(self: GridExecutor, *arguments: Any, **options: Any) -> None:
        seen.append(self.fn.__name__)
        with _disable_current_modes():  # what the interpreter does itself
            run(self, *arguments, **options)

    class Told(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            if not func.is_view and name not in _NO_WORK:
                seen.append(name)
            return func(*args, **(kwargs or {}))

    with monkeypatch.context() as patch, Told():
        patch.setattr(GridExecutor, "__call__", launch)
        yield seen
