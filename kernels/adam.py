"""Adam for every stacked parameter of every pair in one launch: the CUDA form of ``adgan_fast::adam_step_``.

The search holds each parameter of the generator as one tensor (G, *shape): G pairs' private copies, contiguous. Adam is
elementwise, so an entry is just a run of G * numel(shape) elements, and one flat grid walks all runs: a table in device
memory says where each begins, and each program handles BLOCK elements of one entry. Bytes for each float32 element:
28 at an ordinary step (read p, m, v, g; write p, m, v), 16 at the first from a shared theta_0 (which stays in cache),
20 at the last.

Formula: Kingma & Ba 2015, Algorithm 1, as ``torch.optim.Adam`` arranges it (no weight decay, no amsgrad).
"""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

import contextlib
import functools
import math
import struct
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from ..ops import check_adam_step
from .case import Case
from .launch import check_device, on

__all__ = ["adam_step_", "adam_update", "cases", "register", "tables_of_graph"]

_BLOCK = 1024  # elements of one program
# Rows of the table, int64, one column for each entry. _STEP_SIZE holds the bits of a double, lr / (1 - beta1^step).
_FIRST_BLOCK, _NUMEL, _PARAM, _GRAD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
_EXP_AVG, _EXP_AVG_SQ, _STEP_SIZE = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)
_INITIAL, _INITIAL_NUMEL = tl.constexpr(7), tl.constexpr(8)
_ROWS = 9
# Columns are padded to a power of two (tl.arange needs one), and to 32 at least, so that all usual generators share one
# compiled kernel and the search for an entry stays within a warp.
_LEAST_COLUMNS = 32
_NEVER = 2**62  # first block of a padding column: beyond every grid


@triton.jit
def adam_update(
    param, grad, exp_avg, exp_avg_sq,
    beta1, one_minus_beta1, beta2, one_minus_beta2, inv_sqrt_bias2, step_size, eps,
    FIRST: tl.constexpr,
):  # fmt: skip
    """One Adam step on values in registers; other kernels may fuse it. All arguments in one dtype, float32 or float64.

    With FIRST the moments given are ignored (they count as zero). Returns (param, exp_avg, exp_avg_sq). The operations
    and their order are those of ``stacked_adam_phase`` in csrc/core/kernels/adam.inl, one rounding each: CPU and GPU
    agree to the last bit.

    The root and the division are correctly rounded. In float32 ``tl.sqrt`` and ``/`` compile to ``sqrt.approx`` and
    ``div.full`` (2 ulp), hence ``sqrt_rn`` and ``div_rn`` (``sqrt.rn``, ``div.rn``); in float64 the plain forms are
    already the rounded ones, and the ``_rn`` forms do not exist. The division by sqrt(1 - beta2^t) is a multiplication
    by its reciprocal, taken in double on the host: one division for each element is enough.
    """
    if FIRST:
        exp_avg = grad * one_minus_beta1
        exp_avg_sq = grad * one_minus_beta2 * grad
    else:
        exp_avg = grad * one_minus_beta1 + exp_avg * beta1
        exp_avg_sq = grad * one_minus_beta2 * grad + exp_avg_sq * beta2
    if grad.dtype == tl.float32:
        denom = tl.sqrt_rn(exp_avg_sq) * inv_sqrt_bias2 + eps
        ratio = tl.div_rn(exp_avg, denom)
    else:
        denom = tl.sqrt(exp_avg_sq) * inv_sqrt_bias2 + eps
        ratio = exp_avg / denom
    # A gradient that was always zero is 0 / eps = 0, no update; with eps = 0 it would be 0 / 0.
    ratio = tl.where(denom == 0, 0.0, ratio)
    return param - ratio * step_size, exp_avg, exp_avg_sq


@triton.jit
def _initial_pointers(
    initial, start, initial_numel, BLOCK: tl.constexpr, WIDE: tl.constexpr, DTYPE: tl.constexpr
):  # fmt: skip
    """Where elements start..start + BLOCK of an entry come from: ``initial`` at the offset modulo ``initial_numel``."""
    lane = tl.arange(0, BLOCK)
    first = start % initial_numel  # one 64-bit remainder a program; what is left needs none
    if initial_numel >= BLOCK:
        offsets = first + lane
        offsets = tl.where(offsets >= initial_numel, offsets - initial_numel, offsets)
    else:
        offsets = ((first.to(tl.int32) + lane) % initial_numel.to(tl.int32)).to(tl.int64)
    pointers = initial + offsets
    if WIDE:
        # The host saw that every pair's copy begins at a multiple of 16 bytes, so no 16-byte vector straddles the wrap.
        # The promise is made of the pointers: made of the offsets, which two branches may give, it would be lost.
        pointers = tl.max_contiguous(tl.multiple_of(pointers, 16), 128 // DTYPE.primitive_bitwidth)
    return pointers


@triton.jit
def _adam_block(
    param, grad, exp_avg, exp_avg_sq, initial, start, numel, initial_numel,
    beta1, one_minus_beta1, beta2, one_minus_beta2, inv_sqrt_bias2, step_size, eps,
    FIRST: tl.constexpr, LAST: tl.constexpr, INITIAL: tl.constexpr, MASKED: tl.constexpr, BLOCK: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """The step on elements start..start + BLOCK of one entry; MASKED leaves out those at ``numel`` and beyond."""
    offsets = start + tl.arange(0, BLOCK)
    mask = offsets < numel if MASKED else None
    g = tl.load(grad + offsets, mask=mask)
    if INITIAL:
        p = tl.load(_initial_pointers(initial, start, initial_numel, BLOCK, INITIAL == 2, DTYPE), mask=mask)
    else:
        p = tl.load(param + offsets, mask=mask)
    if FIRST:
        m = g
        v = g
    else:
        m = tl.load(exp_avg + offsets, mask=mask)
        v = tl.load(exp_avg_sq + offsets, mask=mask)
    p, m, v = adam_update(
        p, g, m, v, beta1, one_minus_beta1, beta2, one_minus_beta2, inv_sqrt_bias2, step_size, eps, FIRST
    )
    tl.store(param + offsets, p, mask=mask)
    if not LAST:
        tl.store(exp_avg + offsets, m, mask=mask)
        tl.store(exp_avg_sq + offsets, v, mask=mask)


@triton.jit
def _pointer(table, row, entry, COLUMNS: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """The pointer in the table's given row and column. ALIGNED promises a multiple of 16 bytes, for wide loads."""
    pointer = tl.load(table + row * COLUMNS + entry).to(tl.pointer_type(DTYPE))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


# The scalars are annotated as doubles, since Triton would otherwise pass a Python float as float32. Each is rounded
# once, to the dtype of the data, so float32 data sees bias corrections that were computed in double.
@triton.jit
def adam_kernel(
    table,
    beta1: tl.float64,
    one_minus_beta1: tl.float64,
    beta2: tl.float64,
    one_minus_beta2: tl.float64,
    inv_sqrt_bias2: tl.float64,
    eps: tl.float64,
    COLUMNS: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
    INITIAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program i handles block i of the flat grid. ``table``: (9, COLUMNS) int64; the flags are those of ``_Flags``."""
    program = tl.program_id(0).to(tl.int64)
    # The entry is the last whose first block is not after this one: counted with one load of the whole row, rather than
    # searched by halves, each step of which would wait for the load before it.
    first_blocks = tl.load(table + tl.arange(0, COLUMNS))
    entry = tl.sum((first_blocks <= program).to(tl.int32), axis=0) - 1
    start = (program - tl.load(table + _FIRST_BLOCK * COLUMNS + entry)) * BLOCK
    numel = tl.load(table + _NUMEL * COLUMNS + entry)
    initial_numel = tl.load(table + _INITIAL_NUMEL * COLUMNS + entry)
    step_size = tl.load(table + _STEP_SIZE * COLUMNS + entry).to(tl.float64, bitcast=True).to(DTYPE)
    param = _pointer(table, _PARAM, entry, COLUMNS, DTYPE, ALIGNED)
    grad = _pointer(table, _GRAD, entry, COLUMNS, DTYPE, ALIGNED)
    exp_avg = _pointer(table, _EXP_AVG, entry, COLUMNS, DTYPE, ALIGNED)
    exp_avg_sq = _pointer(table, _EXP_AVG_SQ, entry, COLUMNS, DTYPE, ALIGNED)
    initial = _pointer(table, _INITIAL, entry, COLUMNS, DTYPE, INITIAL == 2)
    b1 = tl.full((), beta1, DTYPE)
    c1 = tl.full((), one_minus_beta1, DTYPE)
    b2 = tl.full((), beta2, DTYPE)
    c2 = tl.full((), one_minus_beta2, DTYPE)
    root = tl.full((), inv_sqrt_bias2, DTYPE)
    epsilon = tl.full((), eps, DTYPE)
    # Whole blocks go without a mask: a mask whose alignment is not known would forbid 16-byte vectors for all of them,
    # where only the last block of an entry needs one.
    if start + BLOCK <= numel:
        _adam_block(
            param, grad, exp_avg, exp_avg_sq, initial, start, numel, initial_numel,
            b1, c1, b2, c2, root, step_size, epsilon, FIRST, LAST, INITIAL, False, BLOCK, DTYPE,
        )  # fmt: skip
    else:
        _adam_block(
            param, grad, exp_avg, exp_avg_sq, initial, start, numel, initial_numel,
            b1, c1, b2, c2, root, step_size, epsilon, FIRST, LAST, INITIAL, True, BLOCK, DTYPE,
        )  # fmt: skip


def adam_step_(
    params: Sequence[torch.Tensor],
    exp_avgs: Sequence[torch.Tensor],
    exp_avg_sqs: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor],
    initial: Sequence[torch.Tensor],
    lrs: Sequence[float],
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    last: bool,
) -> None:
    """One Adam step in place, in one launch. Arguments, result and errors are those of ``adgan_fast.ops.adam_step_``.

    The tensors are on one GPU; under ``TRITON_INTERPRET=1`` they are on the CPU. The step never waits for the GPU. The
    table of pointers is kept, so a search whose buffers stay (or come back, as a caching allocator makes them) copies
    it once for each step number. Inside a CUDA graph capture nothing is copied: the table must be there already, and
    whoever captures keeps it (:func:`tables_of_graph`).

    Raises:
        RuntimeError: naming the argument that breaks the contract; tensors on a device that this process cannot run
            Triton on; a capture without an earlier call on the same tensors, or whose tables nobody keeps.
    """
    check_adam_step(params, exp_avgs, exp_avg_sqs, grads, initial, lrs, beta1, beta2, eps, step)
    bias1 = 1.0 - beta1**step
    pointers = _pointer_table(params, exp_avgs, exp_avg_sqs, grads, initial, [lr / bias1 for lr in lrs])
    if pointers.blocks == 0:
        return
    device = params[0].device
    check_device(adam_kernel, device, "adgan_fast::adam_step_: ")
    flags = _Flags(params[0].dtype, pointers.aligned, step == 1, bool(last), pointers.initial)
    with on(device):
        adam_kernel[(pointers.blocks,)](
            _table(pointers.columns, device),
            beta1,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            1.0 / math.sqrt(1.0 - beta2**step),
            eps,
            **_constexprs(flags, _width(len(pointers.columns))),
            **_options(flags),
        )


@functools.cache
def register() -> None:
    """Make :func:`adam_step_` the CUDA kernel of ``adgan_fast::adam_step_``. Further calls change nothing.

    Devices of AMD answer to the same dispatch key.
    """
    torch.library.impl("adgan_fast::adam_step_", "CUDA", adam_step_)


class _Flags(NamedTuple):
    """What a compiled kernel is specialised for, besides the width of its table."""

    dtype: torch.dtype
    aligned: bool  # every pointer but those of ``initial`` is a multiple of 16 bytes
    first: bool  # step 1: moments are not read
    last: bool  # moments are not written
    initial: int  # 0: old values come from params; 1: from initial; 2: from initial, by 16-byte vectors


def _every_flags() -> Iterator[_Flags]:
    """All that the launcher can ask for."""
    for dtype in (torch.float32, torch.float64):
        for aligned in (True, False):
            for last in (False, True):
                yield _Flags(dtype, aligned, False, last, 0)
                for initial in (0, 1, 2) if aligned else (0, 1):
                    yield _Flags(dtype, aligned, True, last, initial)


def _constexprs(flags: _Flags, width: int) -> dict[str, Any]:
    return {
        "COLUMNS": width,
        "DTYPE": tl.float32 if flags.dtype == torch.float32 else tl.float64,
        "ALIGNED": flags.aligned,
        "FIRST": flags.first,
        "LAST": flags.last,
        "INITIAL": flags.initial,
        "BLOCK": _BLOCK,
    }


def _options(flags: _Flags) -> dict[str, Any]:
    return {
        # 32 bytes of each tensor a thread: two 16-byte vectors on their way at once. Unaligned float32 would need 8
        # loads for them, with an address each, which costs registers (and on sm_80 spills): it gets 16 bytes a thread.
        "num_warps": 4 if flags.aligned and flags.dtype == torch.float32 else 8,
        # No contraction to fused multiply-adds: which product of a sum is fused would be the compiler's choice, so an
        # element's last bit would depend on whether its block is whole or masked, and differ from the CPU's.
        "enable_fp_fusion": False,
    }


def cases() -> Iterator[Case]:
    """Every specialisation that :func:`adam_step_` can launch on up to 32 entries, and one for more."""
    doubles = ("beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "inv_sqrt_bias2", "eps")
    usual = _Flags(torch.float32, True, False, False, 0)
    for flags, width in [*((flags, _LEAST_COLUMNS) for flags in _every_flags()), (usual, 256)]:
        words = [str(flags.dtype).removeprefix("torch."), "first" if flags.first else "", "last" if flags.last else ""]
        words += [("", "initial", "initial (wide)")[flags.initial], "" if flags.aligned else "unaligned"]
        words += ["" if width == _LEAST_COLUMNS else f"{width} entries"]
        # In whole blocks: g, unless first m and v, and p unless it comes from an ``initial`` that is not wide.
        reads = (1 + 2 * (not flags.first) + (flags.initial != 1)) * flags.aligned
        writes = (1 + 2 * (not flags.last)) * flags.aligned
        yield Case(
            name="adam " + ", ".join(filter(None, words)),
            kernel=adam_kernel,
            signature={"table": "*i64", **dict.fromkeys(doubles, "fp64")},
            constexprs=_constexprs(flags, width),
            aligned=("table",),
            options=_options(flags),
            wide_load_bytes=reads * _BLOCK * flags.dtype.itemsize,
            wide_store_bytes=writes * _BLOCK * flags.dtype.itemsize,
        )


class _PointerTable(NamedTuple):
    columns: tuple[tuple[int, ...], ...]  # of the table, one for each entry that has elements
    blocks: int
    aligned: bool
    initial: int


def _pointer_table(
    params: Sequence[torch.Tensor],
    exp_avgs: Sequence[torch.Tensor],
    exp_avg_sqs: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor],
    initial: Sequence[torch.Tensor],
    step_sizes: Sequence[float],
) -> _PointerTable:
    """The table's columns, as numbers; arguments are checked already."""
    columns = []
    blocks = 0
    addresses = 0  # all of them or-ed together: their common alignment
    initial_addresses = 0  # the same for ``initial``, with the bytes of its copies
    for k, (param, exp_avg, exp_avg_sq, grad) in enumerate(zip(params, exp_avgs, exp_avg_sqs, grads, strict=True)):
        numel = param.numel()
        if numel == 0:
            continue
        pointers = (param.data_ptr(), grad.data_ptr(), exp_avg.data_ptr(), exp_avg_sq.data_ptr())
        for pointer in pointers:
            addresses |= pointer
        old, old_numel = (initial[k].data_ptr(), initial[k].numel()) if initial else (0, 1)
        initial_addresses |= old
        if old_numel < numel:  # pair i's copy starts i copies on, and must be aligned too
            initial_addresses |= old_numel * param.element_size()
        (step_size,) = struct.unpack("q", struct.pack("d", step_sizes[k]))
        columns.append((blocks, numel, *pointers, step_size, old, old_numel))
        blocks += -(-numel // _BLOCK)
    if blocks >= 2**31:
        raise RuntimeError(
            f"adgan_fast::adam_step_: {blocks} blocks of {_BLOCK} elements are too many for a grid; use a smaller chunk"
        )
    aligned = addresses % 16 == 0
    wide = aligned and initial_addresses % 16 == 0
    return _PointerTable(tuple(columns), blocks, aligned, (2 if wide else 1) if initial else 0)


def _width(entries: int) -> int:
    return max(_LEAST_COLUMNS, triton.next_power_of_2(entries))


_KEPT_TABLES = 512
_tables: dict[tuple[tuple[tuple[int, ...], ...], torch.device, int], torch.Tensor] = {}  # least recently used first
_of_graph: ContextVar[list[torch.Tensor] | None] = ContextVar(
    "tables of the graph that is being captured", default=None
)


@contextlib.contextmanager
def tables_of_graph() -> Iterator[list[torch.Tensor]]:
    """The tables of the steps captured inside. Every replay reads them: they have to live as long as the graph."""
    tables: list[torch.Tensor] = []
    before = _of_graph.set(tables)
    try:
        yield tables
    finally:
        _of_graph.reset(before)


def _table(columns: tuple[tuple[int, ...], ...], device: torch.device) -> torch.Tensor:
    """The table (9, width) int64 on ``device``, ready for the current stream.

    Tables are kept by content: a table is only numbers, so it cannot go stale. They are kept by stream as well, since a
    copy is ordered before the kernels of its own stream alone (and freed memory is reused in that stream's order).
    """
    if device.type != "cuda":
        return _host_table(columns)
    key = (columns, device, torch.cuda.current_stream(device).cuda_stream)
    if torch.cuda.is_current_stream_capturing():
        owned = _of_graph.get()
        if owned is None:
            raise RuntimeError(
                "adgan_fast::adam_step_: a CUDA graph is being captured whose tables nobody keeps; capture inside of "
                "adgan_fast.kernels.adam.tables_of_graph(), and keep what it gives as long as the graph"
            )
        # A copy would become part of the graph, and at each replay read host memory that holds something else by then.
        # The tables of any stream will do: what was queued before a capture is done before its first replay.
        for (known, place, _), table in _tables.items():
            if known == columns and place == device:
                owned.append(table)
                return table
        raise RuntimeError(
            "adgan_fast::adam_step_: a CUDA graph is being captured and these tensors are new; run the same steps on "
            "the same tensors once before the capture"
        )
    if key in _tables:
        _tables[key] = _tables.pop(key)
    else:
        # From pinned memory the copy only joins the stream's queue; torch keeps the pinned block until it has run.
        _tables[key] = _host_table(columns).pin_memory().to(device, non_blocking=True)
        if len(_tables) > _KEPT_TABLES:
            del _tables[next(iter(_tables))]
    return _tables[key]


def _host_table(columns: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    padding = (_NEVER,) + (0,) * (_ROWS - 1)
    padded = columns + (padding,) * (_width(len(columns)) - len(columns))
    return torch.tensor(padded, dtype=torch.int64).t().contiguous()
