"""The kernels behind adgan_fast's custom ops, loaded when an engine first runs on a device."""

from __future__ import annotations

import functools
import logging

import torch

from .. import ops

log = logging.getLogger("adgan_fast")


def load_kernels(device: torch.device) -> None:
    """Load the C++ kernels for a CPU, the Triton kernels for a GPU; a log line says so once where there are none."""
    reason = _load(device.type)
    if reason is not None:
        _say(f"the fused Adam step runs as plain PyTorch operations: {reason}")


def _load(kind: str) -> str | None:
    if kind == "cpu":
        return ops.load_extension()
    if kind != "cuda":
        return f"there is no kernel for {kind}"
    try:
        from ..kernels import adam
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return "Triton is not installed; pip install 'adgan-fast[triton]'"
    adam.register()
    return None


@functools.cache
def _say(line: str) -> None:
    log.warning(line)
