"""What follows a map with private weights, in one launch: batch norm or bias, and the activation.

    a = act(u),    u = z · scale + shift,    z = (y − mean) · inverse

for G pairs, P positions and C channels, channels last, float32: y and a are (G, P, C); mean and
inverse = 1 / √(var + eps) are batch norm's running statistics (C,), which no pair changes; scale and shift (G, C) are
private. Backward, from ga = ∂loss/∂a, with d = ga · act'(u):

    gy = d · scale · inverse        gscale[g, c] = Σ_p d · z        gshift[g, c] = Σ_p d

u is computed anew from y, which costs less than to write and read it. The sums are those of one program each, in a
fixed order, so the result is the same at every launch.
"""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .case import Case
from .functions import exp, tanh
from .launch import on
from .sums import kahan_add

__all__ = ["ACTIVATIONS", "Affine", "affine_act", "affine_act_grad", "cases"]

ACTIVATIONS = ("none", "relu", "leaky_relu", "tanh", "sigmoid")
"""The names, in the order of the constexpr ACT of the device functions."""

_RELU, _LEAKY_RELU, _TANH, _SIGMOID = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3), tl.constexpr(4)
_TILE = 2048  # numbers in hand of one program: 16 a thread


@triton.jit
def act_value(u, slope, ACT: tl.constexpr):
    """act(u) for values in registers, float32; ACT counts in ACTIVATIONS, slope is leaky_relu's. NaN stays NaN."""
    if ACT == _RELU:
        a = tl.where(u <= 0, 0.0, u)
    elif ACT == _LEAKY_RELU:
        a = tl.where(u <= 0, u * slope, u)
    elif ACT == _TANH:
        a = tanh(u)
    elif ACT == _SIGMOID:
        a = 1.0 / (1.0 + exp(-u))
    else:
        a = u
    return a


@triton.jit
def act_derivative(u, slope, ACT: tl.constexpr):
    """act'(u); at the corner of relu and leaky_relu what torch takes: 0 and slope."""
    if ACT == _RELU:
        d = tl.where(u <= 0, 0.0, 1.0)
    elif ACT == _LEAKY_RELU:
        d = tl.where(u <= 0, slope, 1.0)
    elif ACT == _TANH:
        a = tanh(u)
        d = 1.0 - a * a
    elif ACT == _SIGMOID:
        a = 1.0 / (1.0 + exp(-u))
        d = a * (1.0 - a)
    else:
        d = tl.full(u.shape, 1.0, tl.float32)
    return d


@triton.jit
def affine_act_kernel(
    y, mean, inverse, scale, shift, a, positions, channels, scale_stride, shift_stride, slope,
    ACT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (g, i, j) handles block i of the positions and block j of the channels of pair g."""
    pair = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    columns = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = columns < channels
    centre = tl.load(mean + columns, mask=inside, other=0.0)
    width = tl.load(inverse + columns, mask=inside, other=0.0)
    factor = tl.load(scale + pair * scale_stride + columns, mask=inside, other=0.0)
    offset = tl.load(shift + pair * shift_stride + columns, mask=inside, other=0.0)
    place = pair * positions * channels + rows[:, None] * channels + columns[None, :]
    mask = (rows < positions)[:, None] & inside[None, :]
    z = (tl.load(y + place, mask=mask, other=0.0) - centre[None, :]) * width[None, :]
    u = z * factor[None, :] + offset[None, :]
    tl.store(a + place, act_value(u, slope, ACT), mask=mask)


@triton.jit
def affine_act_grad_kernel(
    ga, y, mean, inverse, scale, shift, gy, gscale, gshift, positions, channels, scale_stride, shift_stride, slope,
    ACT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Program (g, j) handles block j of the channels of pair g, at all positions in order."""
    pair = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = columns < channels
    centre = tl.load(mean + columns, mask=inside, other=0.0)
    width = tl.load(inverse + columns, mask=inside, other=0.0)
    factor = tl.load(scale + pair * scale_stride + columns, mask=inside, other=0.0)
    offset = tl.load(shift + pair * shift_stride + columns, mask=inside, other=0.0)
    sum_scale = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    sum_shift = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    lost_scale = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)  # a large map has thousands of summands in each
    lost_shift = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for first in range(0, positions, BLOCK_P):
        rows = first + tl.arange(0, BLOCK_P)
        place = pair * positions * channels + rows[:, None] * channels + columns[None, :]
        mask = (rows < positions)[:, None] & inside[None, :]
        z = (tl.load(y + place, mask=mask, other=0.0) - centre[None, :]) * width[None, :]
        u = z * factor[None, :] + offset[None, :]
        d = tl.load(ga + place, mask=mask, other=0.0) * act_derivative(u, slope, ACT)
        tl.store(gy + place, d * (factor * width)[None, :], mask=mask)
        sum_scale, lost_scale = kahan_add(sum_scale, lost_scale, d * z)
        sum_shift, lost_shift = kahan_add(sum_shift, lost_shift, d)
    tl.store(gscale + pair * channels + columns, tl.sum(sum_scale, axis=0), mask=inside)
    tl.store(gshift + pair * channels + columns, tl.sum(sum_shift, axis=0), mask=inside)


class Affine(NamedTuple):
    """u from y; float32, contiguous.

    Attributes:
        mean, inverse: (C,), for all pairs.
        scale, shift: (G, C), or (1, C) for all pairs.
    """

    mean: torch.Tensor
    inverse: torch.Tensor
    scale: torch.Tensor
    shift: torch.Tensor


def affine_act(y: torch.Tensor, affine: Affine, act: str = "none", slope: float = 0.0) -> torch.Tensor:
    """act(u), (G, P, C).

    Args:
        y: (G, P, C) float32, contiguous.
        act: one of ACTIVATIONS; slope: of leaky_relu below zero.

    Raises:
        ValueError: an unknown activation, or tensors that do not fit together.
    """
    _check(y, affine, act)
    pairs, positions, channels = y.shape
    a = torch.empty_like(y)
    block_p, block_c = _blocks(channels)
    if y.numel():
        with on(y.device):
            grid = (pairs, triton.cdiv(positions, block_p), triton.cdiv(channels, block_c))
            affine_act_kernel[grid](
                y, *affine, a, positions, channels, _stride(affine.scale), _stride(affine.shift), slope,
                **_constexprs(act, channels), **_OPTIONS,
            )  # fmt: skip
    return a


def affine_act_grad(
    ga: torch.Tensor, y: torch.Tensor, affine: Affine, act: str = "none", slope: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients (gy (G, P, C), gscale (G, C), gshift (G, C)) of :func:`affine_act`, from ga as y.

    gscale and gshift are of each pair, also where scale and shift are one for all.

    Raises:
        ValueError: as :func:`affine_act`.
    """
    _check(y, affine, act)
    if ga.shape != y.shape or ga.dtype != y.dtype or ga.device != y.device or not ga.is_contiguous():
        raise ValueError(f"ga must be as y, {tuple(y.shape)} and contiguous, got {tuple(ga.shape)} {ga.dtype}")
    pairs, positions, channels = y.shape
    gy, gscale, gshift = torch.empty_like(y), y.new_empty(pairs, channels), y.new_empty(pairs, channels)
    _, block_c = _blocks(channels)
    if gscale.numel():  # without positions the sums are zero
        with on(y.device):
            affine_act_grad_kernel[(pairs, triton.cdiv(channels, block_c))](
                ga, y, *affine, gy, gscale, gshift, positions, channels, _stride(affine.scale), _stride(affine.shift),
                slope, **_constexprs(act, channels), **_OPTIONS,
            )  # fmt: skip
    return gy, gscale, gshift


def _check(y: torch.Tensor, affine: Affine, act: str) -> None:
    if act not in ACTIVATIONS:
        raise ValueError(f"unknown activation {act!r}; the known ones are {', '.join(ACTIVATIONS)}")
    if y.dim() != 3 or y.dtype != torch.float32 or not y.is_contiguous():
        raise ValueError(f"y must be (G, P, C), float32 and contiguous, got {tuple(y.shape)} {y.dtype}")
    pairs, _, channels = y.shape
    for name, tensor in affine._asdict().items():
        shapes = [(channels,)] if name in ("mean", "inverse") else [(pairs, channels), (1, channels)]
        alike = tensor.dtype == y.dtype and tensor.device == y.device and tensor.is_contiguous()
        if tuple(tensor.shape) not in shapes or not alike:
            raise ValueError(
                f"{name} must be {' or '.join(map(str, shapes))}, float32, contiguous and on {y.device}, "
                f"got {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
            )


def _stride(tensor: torch.Tensor) -> int:
    """From one pair's row to the next; 0 where there is one row for all."""
    return 0 if tensor.shape[0] == 1 else tensor.shape[1]


def _blocks(channels: int) -> tuple[int, int]:
    """Positions and channels of a tile."""
    block_c = 16 if channels <= 16 else 64
    return _TILE // block_c, block_c


def _constexprs(act: str, channels: int) -> dict[str, Any]:
    block_p, block_c = _blocks(channels)
    return {"ACT": ACTIVATIONS.index(act), "BLOCK_P": block_p, "BLOCK_C": block_c}


_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # a multiply-add is one rounding less


def cases() -> Iterator[Case]:
    """Every specialisation by activation and block, with channels in whole vectors of 16 bytes."""
    sizes = {name: "i32" for name in ("positions", "channels", "scale_stride", "shift_stride")}
    for kernel, name, tensors in (
        (affine_act_kernel, "epilogue", ("y", *Affine._fields, "a")),
        (affine_act_grad_kernel, "epilogue backward", ("ga", "y", *Affine._fields, "gy", "gscale", "gshift")),
    ):
        for act in ACTIVATIONS:
            for channels in (16, 64):
                yield Case(
                    name=f"{name} {act}, {channels} channels",
                    kernel=kernel,
                    signature={**dict.fromkeys(tensors, "*fp32"), **sizes, "slope": "fp32"},
                    constexprs=_constexprs(act, channels),
                    aligned=(*tensors, "channels", "scale_stride", "shift_stride"),
                    options=_OPTIONS,
                    wide_load_bytes=4 * _TILE * (1 if kernel is affine_act_kernel else 2),
                    wide_store_bytes=4 * _TILE,
                )
