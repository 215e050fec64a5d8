"""PyTorch's own arithmetic held to what the config asks, while a search runs."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import torch

from ..config import SearchConfig

log = logging.getLogger("adgan_fast")

# Where PyTorch may round a float32 product's operands to TF32 or bfloat16 (cuDNN's convolutions do so by default).
_SWITCHES: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
)


REDUCED_STEPS = 5
"""Most steps of a search in less than float32 (the paper's number of steps).

What a step rounds off is carried on, and grows where a generator amplifies it. On one whose batch norms have variances
near 1e-8, 16-bit moments leave a score off by 4e-6 of the initial loss after 5 steps, 8e-4 after 8, 2e-2 after 20; 1e-3
is the bound.
"""


def permitted(config: SearchConfig) -> SearchConfig:
    """The config with the precision that its number of steps permits; a log line says where that is another."""
    if config.precision == "float32" or config.steps <= REDUCED_STEPS:
        return config
    log.info(
        "precision float32 instead of %s: %d steps are more than %d, over which rounding may grow beyond its bound",
        config.precision, config.steps, REDUCED_STEPS,
    )  # fmt: skip
    return config.replace(precision="float32")


_lock = threading.Lock()
_asked: list[str] = []  # the precisions of those who are inside now
_before: tuple[Any, ...] = ()  # the settings before the first of them


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Products of float32 numbers in float32, or for "tf32" and "bf16" in TF32 on a GPU.

    cuDNN's convolutions meanwhile sum in the same order at every call. Of several threads inside the
    strictest holds, and the last puts everything back as it was.

    No program may be exported or compiled inside: PyTorch then reads its older names of these settings, and refuses to
    where they differ from the newer ones used here.
    """
    global _before
    with _lock:
        if not _asked:
            _before = _settings()
        _asked.append(precision)
        _apply()
    try:
        yield
    finally:
        with _lock:
            _asked.remove(precision)
            _apply() if _asked else _set(_before)


def _apply() -> None:
    """What the strictest of those inside asks for."""
    reduced = "ieee" if "float32" in _asked else "tf32"
    _set((*(reduced if switch in _SWITCHES[:2] else "ieee" for switch in _SWITCHES), True, False))


def _settings() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return (*(switch.fp32_precision for switch in _SWITCHES), cudnn.deterministic, cudnn.benchmark)


def _set(settings: tuple[Any, ...]) -> None:
    cudnn = torch.backends.cudnn
    *precisions, cudnn.deterministic, cudnn.benchmark = settings
    for switch, setting in zip(_SWITCHES, precisions, strict=True):
        switch.fp32_precision = setting


def _begin_child() -> None:
    """In the child of a fork no other thread of the parent is there to put the settings back."""
    global _lock
    _lock = threading.Lock()
    if _asked:
        _asked.clear()
        _set(_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_child)
