"""What every launcher does around a launch: looks at the tensors and the device, and launches on the tensors' own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
import triton

if TYPE_CHECKING:
    from .maps.precision import Backend

__all__ = ["backend_of", "check_device", "check_tensor", "interpreted", "launch", "on"]


def interpreted(kernel: Any) -> bool:
    """Whether `kernel` is run by Triton's interpreter: TRITON_INTERPRET=1 when it was made."""
    return not isinstance(kernel, triton.JITFunction)


def check_device(kernel: Any, device: torch.device, where: str = "") -> None:
    """Raises RuntimeError, its words after `where`, for a device on which this process cannot run `kernel`."""
    if device.type != ("cpu" if interpreted(kernel) else "cuda"):
        cpu, gpu = "under TRITON_INTERPRET=1 tensors must be on the CPU", "Triton needs them on a GPU"
        raise RuntimeError(f"{where}the tensors are on {device}, but {cpu if interpreted(kernel) else gpu}")


def backend_of(kernel: Any, device: torch.device) -> Backend:
    """What runs `kernel` on `device`; raises RuntimeError where this process cannot."""
    check_device(kernel, device)
    return "interpreter" if interpreted(kernel) else "hip" if torch.version.hip else "cuda"


def check_tensor(name: str, x: torch.Tensor, shape: tuple[int, ...], any_pairs: bool = False) -> torch.Tensor:
    """`x`, if it is contiguous float32 of `shape`, or of any first size with `any_pairs`; else raises ValueError."""
    expected = (x.shape[0] if any_pairs and x.dim() else shape[0], *shape[1:])
    if tuple(x.shape) != expected or x.dtype != torch.float32 or not x.is_contiguous():
        raise ValueError(
            f"{name} must be contiguous float32 of shape {expected}, got {x.dtype} {tuple(x.shape)}"
            f"{'' if x.is_contiguous() else ', not contiguous'}"
        )
    return x


def on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, whatever the tensors' own: this makes `device` the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def launch(device: torch.device, kernel: Any, blocks: int, *arguments: Any, **options: Any) -> None:
    """`kernel` on `device` in so many blocks, which may be none; raises RuntimeError for more than a grid has."""
    if blocks >= 2**31:
        raise RuntimeError(f"{blocks} blocks are too many for a grid; use a smaller chunk")
    if blocks:
        with on(device):
            kernel[(blocks,)](*arguments, **options)
