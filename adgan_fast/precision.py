"""PyTorch's own arithmetic held to what the config asks, while a search runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

# Where PyTorch may round a float32 product's operands to TF32 or bfloat16 (cuDNN's convolutions do so by default).
_SWITCHES: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
)


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Products of float32 numbers in float32, or for "tf32" and "bf16" in TF32 on a GPU; put back as it was.

    cuDNN's convolutions meanwhile sum in the same order at every call.

    No program may be exported or compiled inside: PyTorch then reads its older names of these settings, and refuses to
    where they differ from the newer ones used here.
    """
    before = [switch.fp32_precision for switch in _SWITCHES]
    cudnn = torch.backends.cudnn
    choices = cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        for switch in _SWITCHES:
            on_gpu = switch in _SWITCHES[:2]
            switch.fp32_precision = "tf32" if on_gpu and precision != "float32" else "ieee"
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = choices
        for switch, setting in zip(_SWITCHES, before, strict=True):
            switch.fp32_precision = setting
