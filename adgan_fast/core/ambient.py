"""PyTorch's settings that the caller may have changed, kept away from what must not depend on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def recording(device: str | torch.device = "cpu") -> Iterator[None]:
    """Gradients are recorded, and nothing is cast by itself: neither on `device` nor on the CPU.

    The defaults for new tensors stay the caller's, whose generator may make some in its forward. Attention runs without
    PyTorch's fast path for inference, one switch for the process, which torch.func takes where it has no gradient.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in filter(torch.amp.is_autocast_available, {"cpu", torch.device(device).type}):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        yield


@contextlib.contextmanager
def neutral(device: str | torch.device = "cpu") -> Iterator[None]:
    """PyTorch as it starts up: `recording`, and new tensors are float32 on the CPU.

    All is put back at the end. Also a decorator. The default dtype is one for all threads of the process: where it is
    not float32, other threads see it changed meanwhile.

    Args:
        device: where the work runs.
    """
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        stack.enter_context(recording(device))
        if torch.get_default_device().type != "cpu":  # not always: it costs every call of PyTorch a detour
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
