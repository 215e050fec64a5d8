"""The reconstruction losses l2 and l1, and their gradients, in one launch.

    l2: value[r] = Σ (x̂ − x)²,  gradient 2 (x̂ − x)        l1: value[r] = Σ |x̂ − x|,  gradient sign(x̂ − x)

over the numbers of an image, float32. Row r of the reconstructions is held to image r // starts, so that an image is
not copied for each of its starts. One program sums a row, in a fixed order: the same bits at every launch.
"""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl

from .case import Case
from .launch import on
from .sums import kahan_add

__all__ = ["PIXEL_LOSSES", "cases", "pixel_loss"]

PIXEL_LOSSES = ("l2", "l1")
_BLOCK = 1024  # numbers of an image in hand at a time


@triton.jit
def pixel_loss_kernel(
    reconstruction, image, value, gradient, size, channels, starts,
    SQUARED: tl.constexpr, CHANNELS_LAST: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program r handles row r. The reconstruction and its gradient are read and written in the order of memory."""
    row = tl.program_id(0).to(tl.int64)
    ours = reconstruction + row * size
    theirs = image + row // starts * size
    total = tl.zeros((BLOCK,), tl.float32)
    lost = tl.zeros((BLOCK,), tl.float32)  # a large image has a thousand summands in each lane
    for first in range(0, size, BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        mask = offsets < size
        place = offsets
        if CHANNELS_LAST:
            place = offsets % channels * (size // channels) + offsets // channels
        difference = tl.load(ours + offsets, mask=mask, other=0.0) - tl.load(theirs + place, mask=mask, other=0.0)
        if SQUARED:
            term = difference * difference
            slope = 2.0 * difference
        else:
            term = tl.abs(difference)
            slope = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, difference))
        total, lost = kahan_add(total, lost, term)
        if GRADIENT:
            tl.store(gradient + row * size + offsets, slope, mask=mask)
    tl.store(value + row, tl.sum(total, axis=0))


def pixel_loss(
    loss: str, reconstruction: torch.Tensor, image: torch.Tensor, gradient: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The losses (R,) of R reconstructions, and their gradient, shaped and laid out as `reconstruction` is.

    Args:
        loss: "l2" or "l1".
        reconstruction: (R, C, H, W) float32, contiguous as it is or in channels-last order (another is copied).
        image: (N, C, H, W) float32, contiguous; R is a multiple of N, and row r is held to image r // (R / N).
        gradient: whether it is wanted; else None.

    Raises:
        ValueError: an unknown loss, or tensors that do not fit together.
    """
    if loss not in PIXEL_LOSSES:
        raise ValueError(f"unknown loss {loss!r}; the known ones are {', '.join(PIXEL_LOSSES)}")
    rows, images = reconstruction.shape[0], image.shape[0]
    fits = reconstruction.dim() == 4 == image.dim() and reconstruction.shape[1:] == image.shape[1:]
    if not fits or (rows % images if images else rows):
        raise ValueError(f"{tuple(image.shape)} images do not fit {tuple(reconstruction.shape)} reconstructions")
    if reconstruction.dtype != torch.float32 or image.dtype != torch.float32 or not image.is_contiguous():
        raise ValueError(f"tensors must be float32, image contiguous, got {reconstruction.dtype} and {image.dtype}")
    if not reconstruction.is_contiguous() and not reconstruction.is_contiguous(memory_format=torch.channels_last):
        reconstruction = reconstruction.contiguous()
    value = reconstruction.new_empty(rows)
    slope = torch.empty_like(reconstruction) if gradient else None  # keeps the layout
    if rows:
        channels, size = reconstruction.shape[1], reconstruction[0].numel()
        with on(reconstruction.device):
            pixel_loss_kernel[(rows,)](
                reconstruction, image, value, value if slope is None else slope, size, channels, rows // images,
                **_constexprs(loss, not reconstruction.is_contiguous(), gradient), **_OPTIONS,
            )  # fmt: skip
    return value, slope


def _constexprs(loss: str, channels_last: bool, gradient: bool) -> dict[str, Any]:
    return {"SQUARED": loss == "l2", "CHANNELS_LAST": channels_last, "GRADIENT": gradient, "BLOCK": _BLOCK}


_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # a multiply-add is one rounding less


def cases() -> Iterator[Case]:
    """Every specialisation, for images of a whole number of 16-byte vectors."""
    tensors = ("reconstruction", "image", "value", "gradient")
    for loss in PIXEL_LOSSES:
        for channels_last in (False, True):
            for gradient in (False, True):
                words = [f"loss {loss}", "channels last" if channels_last else "", "" if gradient else "value alone"]
                yield Case(
                    name=", ".join(word for word in words if word),
                    kernel=pixel_loss_kernel,
                    signature={**dict.fromkeys(tensors, "*fp32"), "size": "i32", "channels": "i32", "starts": "i32"},
                    constexprs=_constexprs(loss, channels_last, gradient),
                    aligned=(*tensors, "size"),
                    options=_OPTIONS,
                    wide_load_bytes=4 * _BLOCK * (1 if channels_last else 2),
                    wide_store_bytes=4 * _BLOCK * gradient,
                )
