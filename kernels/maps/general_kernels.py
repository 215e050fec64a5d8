"""The kernels of general.py: products of shared weights and of changes, and the update of a change inside its product.

Sizes and blocks are compile-time constants. Activations are (G, positions, channels) float32, channels last; changes,
m and v are (G, groups, taps, K, N). Where a tile comes from and goes to is said by three tables of int32:

    spans   (classes, 2)      first tap and number of taps of each class
    source  (taps, WIDTH)     input position of each of a class's rows by tap, or -1: a zero
    target  (classes, WIDTH)  output position of each row, or -1: none

Rows are padded to WIDTH, a multiple of every block. The input's gradient is the same product with other tables: all
taps in one class, `Geometry.sink` for source, and weights read the other way round.
"""

# mypy: disable-error-code="no-untyped-def"
# (Triton's compiler gives the arguments of a kernel their types.)

from __future__ import annotations

import triton
import triton.language as tl

from ..dot import multiply, operand

__all__ = ["change_kernel", "product_kernel", "shared_kernel", "update_kernel"]


@triton.jit
def _gather(base, positions, channels, COUNT: tl.constexpr, STRIDE: tl.constexpr):
    """(rows, channels) of activations, at base + positions · STRIDE + channels; 0 for position -1, channel ≥ COUNT."""
    mask = (positions >= 0)[:, None] & (channels < COUNT)[None, :]
    return tl.load(base + positions[:, None] * STRIDE + channels[None, :], mask=mask, other=0.0)


@triton.jit
def _gather_columns(base, positions, channels, COUNT: tl.constexpr, STRIDE: tl.constexpr):
    """The transpose of `_gather`, (channels, rows)."""
    mask = (channels < COUNT)[:, None] & (positions >= 0)[None, :]
    return tl.load(base + positions[None, :] * STRIDE + channels[:, None], mask=mask, other=0.0)


@triton.jit
def _constants(beta1, beta2, factor_m, factor_v, eps):
    """A kernel's doubles, each rounded once to float32."""
    return (
        tl.full((), beta1, tl.float32), tl.full((), beta2, tl.float32), tl.full((), factor_m, tl.float32),
        tl.full((), factor_v, tl.float32), tl.full((), eps, tl.float32),
    )  # fmt: skip


@triton.jit
def _moments(m, v, g, constants):
    """m and v after one more gradient, without their (1 - β): that is in the factors of `_update`, once an update."""
    beta1, beta2, _, _, _ = constants
    return m * beta1 + g, v * beta2 + g * g


@triton.jit
def _state(state, place, mask, READ: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr):
    """A tile of Δ, m or v, float32; zero unless READ."""
    if READ:
        return tl.load(state + place, mask=mask, other=0.0).to(tl.float32)
    else:
        return tl.zeros((BLOCK_K, BLOCK_N), tl.float32)


@triton.jit
def _update(
    before, g, m, v, constants, delta, moment, square, place, mask,
    STORE: tl.constexpr, MOMENTS: tl.constexpr, TINY_EPS: tl.constexpr,
):  # fmt: skip
    """Adam's step on a tile of Δ: float32 in Δ's scale, as Δ's dtype rounds it.

    m and v are those of the step before. The result is stored if STORE, m and v if MOMENTS. Root and quotient are
    within a few ulp of a change that is a hundredth of its weight. Unless TINY_EPS, ε² is a normal number, and the
    quotient is a reciprocal root: two instructions where a division has eight.
    """
    m, v = _moments(m, v, g, constants)
    _, _, factor_m, factor_v, eps = constants
    denom = tl.sqrt(v * factor_v) + eps
    ratio = tl.where(denom == 0, 0.0, m / denom) if TINY_EPS else m * tl.rsqrt(denom * denom)
    after = before - ratio * factor_m
    kept = after.to(delta.dtype.element_ty)
    if STORE:
        tl.store(delta + place, kept, mask=mask)
    if MOMENTS:
        tl.store(moment + place, m.to(moment.dtype.element_ty), mask=mask)
        tl.store(square + place, v.to(square.dtype.element_ty), mask=mask)
    return kept.to(tl.float32)


@triton.jit
def _add_rows(y, total, positions, outputs, factor, N: tl.constexpr, NG: tl.constexpr):
    """y[positions, outputs] += total · factor; rows of position -1 are left out."""
    place = y + positions[:, None] * NG + outputs[None, :]
    mask = (positions >= 0)[:, None] & (outputs < N)[None, :]
    tl.store(place, tl.load(place, mask=mask, other=0.0) + total * tl.full((), factor, tl.float32), mask=mask)


# The scalars are annotated as doubles, since Triton would otherwise pass a Python float as float32, and the strides as
# 64-bit, since it would make what they multiply 32-bit.
@triton.jit
def change_kernel(
    x, y, kept_x, kept_gy, x_step: tl.int64, gy_step: tl.int64, delta, moment, square, spans, source, target,
    beta1: tl.float64, beta2: tl.float64, factor_m: tl.float64, factor_v: tl.float64, eps: tl.float64,
    unscale: tl.float64,
    GROUPS: tl.constexpr, TAPS: tl.constexpr, K: tl.constexpr, N: tl.constexpr, P: tl.constexpr, POUT: tl.constexpr,
    CLASSES: tl.constexpr, WIDTH: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    STEP: tl.constexpr, REBUILD: tl.constexpr, LAST: tl.constexpr, CHANGE: tl.constexpr, GRADIENT: tl.constexpr,
    TINY_EPS: tl.constexpr,
):  # fmt: skip
    """Update STEP of Δ, and y += x · Δ: a program handles a pair, a group, a class and a block of outputs, all rows.

    Each weight belongs to one class, so it is read, updated and written by one program, which uses it at once.

    x: (G, P, K·groups); y: (G, Pout, N·groups), holding x · θ₀; kept_x: ([STEP,] G, P, K·groups), kept_gy alike, with
    x_step and gy_step numbers from one step to the next; delta: scaled by 1 / unscale, not written if LAST; moment,
    square: m and v, not touched if REBUILD, not read at STEP 1, not written if LAST.
    """
    constants = _constants(beta1, beta2, factor_m, factor_v, eps)
    program = tl.program_id(0)
    blocks: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    outputs = (program % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = program // blocks % CLASSES
    group = program // (blocks * CLASSES) % GROUPS
    pair = (program // (blocks * CLASSES * GROUPS)).to(tl.int64)
    KG: tl.constexpr = K * GROUPS
    NG: tl.constexpr = N * GROUPS
    x += pair * (P * KG) + group * K
    y += pair * (POUT * NG) + group * N
    kept_x += pair * (P * KG) + group * K
    kept_gy += pair * (POUT * NG) + group * N
    first_tap = tl.load(spans + 2 * part)
    taps = tl.load(spans + 2 * part + 1)
    rows = tl.arange(0, WIDTH)
    positions = tl.load(target + part * WIDTH + rows)
    history: tl.constexpr = STEP if REBUILD else 1
    grads = ()  # of all steps: held, since every tile of weights needs them
    for step in tl.static_range(history):
        grads = grads + (operand(_gather(kept_gy + step * gy_step, positions, outputs, N, NG), GRADIENT),)  # noqa: RUF005
    channel_blocks: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    total = tl.zeros((WIDTH, BLOCK_N), tl.float32)
    for turn in range(taps * channel_blocks):
        tap = first_tap + turn // channel_blocks
        channels = (turn % channel_blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
        sources = tl.load(source + tap * WIDTH + rows)
        place = (pair * GROUPS + group) * (TAPS * K * N) + (tap * K + channels[:, None]) * N + outputs[None, :]
        mask = (channels < K)[:, None] & (outputs < N)[None, :]
        before = _state(delta, place, mask, STEP > 1, BLOCK_K, BLOCK_N)
        m = _state(moment, place, mask, STEP > 1 and not REBUILD, BLOCK_K, BLOCK_N)
        v = _state(square, place, mask, STEP > 1 and not REBUILD, BLOCK_K, BLOCK_N)
        for step in tl.static_range(history - 1):
            g = _outer(kept_x + step * x_step, grads[step], sources, channels, K, KG, BLOCK_K, BLOCK_N, GRADIENT)
            m, v = _moments(m, v, g, constants)
        now: tl.constexpr = history - 1
        g = _outer(kept_x + now * x_step, grads[now], sources, channels, K, KG, BLOCK_K, BLOCK_N, GRADIENT)
        change = _update(
            before, g, m, v, constants, delta, moment, square, place, mask,
            not LAST, not REBUILD and not LAST, TINY_EPS,
        )  # fmt: skip
        left = _gather(x, sources, channels, K, KG)
        total = multiply(operand(left, CHANGE), operand(change, CHANGE), total, CHANGE)
    _add_rows(y, total, positions, outputs, unscale, N, NG)


@triton.jit
def _outer(
    x, grad, sources, channels,
    K: tl.constexpr, KG: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    """A tile (channels, outputs) of one tap's gradient: xᵀ at the rows' sources, times grad (rows, outputs)."""
    left = _gather_columns(x, sources, channels, K, KG)
    return multiply(operand(left, MODE), grad, tl.zeros((BLOCK_K, BLOCK_N), tl.float32), MODE)


@triton.jit
def _long_outer(
    x, gy, source, target, channels, outputs,
    K: tl.constexpr, N: tl.constexpr, KG: tl.constexpr, NG: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    """The same over WIDTH rows, ROWS at a time."""
    total = tl.zeros((BLOCK_K, BLOCK_N), tl.float32)
    for first_row in range(0, WIDTH, ROWS):
        rows = first_row + tl.arange(0, ROWS)
        left = _gather_columns(x, tl.load(source + rows), channels, K, KG)
        right = _gather(gy, tl.load(target + rows), outputs, N, NG)
        total = multiply(operand(left, MODE), operand(right, MODE), total, MODE)
    return total


@triton.jit
def update_kernel(
    kept_x, kept_gy, x_step: tl.int64, gy_step: tl.int64, delta, moment, square, classes, source, target,
    beta1: tl.float64, beta2: tl.float64, factor_m: tl.float64, factor_v: tl.float64, eps: tl.float64,
    GROUPS: tl.constexpr, TAPS: tl.constexpr, K: tl.constexpr, N: tl.constexpr, P: tl.constexpr, POUT: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
    STEP: tl.constexpr, REBUILD: tl.constexpr, LAST: tl.constexpr, GRADIENT: tl.constexpr,
    TINY_EPS: tl.constexpr,
):  # fmt: skip
    """Update STEP of Δ alone, where a class has too many rows for `change_kernel`. Δ is written even if LAST.

    A program handles a pair, a group, a tap, a block of channels and one of outputs. classes: (taps,) int32, the class
    of each tap; the rest as in `change_kernel`.
    """
    constants = _constants(beta1, beta2, factor_m, factor_v, eps)
    program = tl.program_id(0)
    output_blocks: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    channel_blocks: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    blocks: tl.constexpr = output_blocks * channel_blocks
    outputs = (program % output_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = (program // output_blocks % channel_blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
    tap = program // blocks % TAPS
    group = program // (blocks * TAPS) % GROUPS
    pair = (program // (blocks * TAPS * GROUPS)).to(tl.int64)
    KG: tl.constexpr = K * GROUPS
    NG: tl.constexpr = N * GROUPS
    kept_x += pair * (P * KG) + group * K
    kept_gy += pair * (POUT * NG) + group * N
    source += tap * WIDTH
    target += tl.load(classes + tap) * WIDTH
    place = (pair * GROUPS + group) * (TAPS * K * N) + (tap * K + channels[:, None]) * N + outputs[None, :]
    mask = (channels < K)[:, None] & (outputs < N)[None, :]
    before = _state(delta, place, mask, STEP > 1, BLOCK_K, BLOCK_N)
    m = _state(moment, place, mask, STEP > 1 and not REBUILD, BLOCK_K, BLOCK_N)
    v = _state(square, place, mask, STEP > 1 and not REBUILD, BLOCK_K, BLOCK_N)
    history: tl.constexpr = STEP if REBUILD else 1
    for step in range(history - 1):
        g = _long_outer(
            kept_x + step * x_step, kept_gy + step * gy_step, source, target, channels, outputs,
            K, N, KG, NG, WIDTH, ROWS, BLOCK_K, BLOCK_N, GRADIENT,
        )  # fmt: skip
        m, v = _moments(m, v, g, constants)
    now: tl.constexpr = history - 1
    g = _long_outer(
        kept_x + now * x_step, kept_gy + now * gy_step, source, target, channels, outputs,
        K, N, KG, NG, WIDTH, ROWS, BLOCK_K, BLOCK_N, GRADIENT,
    )  # fmt: skip
    _update(
        before, g, m, v, constants, delta, moment, square, place, mask,
        True, not REBUILD and not LAST, TINY_EPS,
    )  # fmt: skip


@triton.jit
def _weights(base, inner, outer, IN: tl.constexpr, OUT: tl.constexpr, TRANSPOSED: tl.constexpr):
    """A tile (inner, outer) of one tap's weights, held (IN, OUT) or, if TRANSPOSED, (OUT, IN): read as it is held."""
    if TRANSPOSED:
        place = base + outer[:, None] * IN + inner[None, :]
        return tl.trans(tl.load(place, mask=(outer < OUT)[:, None] & (inner < IN)[None, :], other=0.0))
    else:
        place = base + inner[:, None] * OUT + outer[None, :]
        return tl.load(place, mask=(inner < IN)[:, None] & (outer < OUT)[None, :], other=0.0)


@triton.jit
def product_kernel(
    x, y, delta, spans, source, target, unscale: tl.float64,
    GROUPS: tl.constexpr, TAPS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, P: tl.constexpr, POUT: tl.constexpr,
    CLASSES: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK_IN: tl.constexpr, BLOCK_OUT: tl.constexpr,
    TRANSPOSED: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    """y += x · Δ · unscale: a program handles a pair, a group, a class, a block of rows and a block of outputs.

    x: (G, P, IN·groups); y: (G, POUT, OUT·groups); delta: (G, groups, TAPS, IN, OUT), or (..., OUT, IN) if TRANSPOSED.
    """
    program = tl.program_id(0)
    row_blocks: tl.constexpr = WIDTH // ROWS
    blocks: tl.constexpr = (OUT + BLOCK_OUT - 1) // BLOCK_OUT
    outer = (program % blocks) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    rows = (program // blocks % row_blocks) * ROWS + tl.arange(0, ROWS)
    part = program // (blocks * row_blocks) % CLASSES
    group = program // (blocks * row_blocks * CLASSES) % GROUPS
    pair = (program // (blocks * row_blocks * CLASSES * GROUPS)).to(tl.int64)
    x += pair * (P * IN * GROUPS) + group * IN
    y += pair * (POUT * OUT * GROUPS) + group * OUT
    delta += (pair * GROUPS + group) * (TAPS * IN * OUT)
    first_tap = tl.load(spans + 2 * part)
    taps = tl.load(spans + 2 * part + 1)
    inner_blocks: tl.constexpr = (IN + BLOCK_IN - 1) // BLOCK_IN
    total = tl.zeros((ROWS, BLOCK_OUT), tl.float32)
    for turn in range(taps * inner_blocks):
        tap = first_tap + turn // inner_blocks
        inner = (turn % inner_blocks) * BLOCK_IN + tl.arange(0, BLOCK_IN)
        left = _gather(x, tl.load(source + tap * WIDTH + rows), inner, IN, IN * GROUPS)
        right = _weights(delta + tap * (IN * OUT), inner, outer, IN, OUT, TRANSPOSED)
        total = multiply(operand(left, MODE), operand(right, MODE), total, MODE)
    positions = tl.load(target + part * WIDTH + rows)
    _add_rows(y, total, positions, outer, unscale, OUT, OUT * GROUPS)


@triton.jit
def shared_kernel(
    x, y, theta, spans, source, target, pairs,
    GROUPS: tl.constexpr, TAPS: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, P: tl.constexpr, POUT: tl.constexpr,
    CLASSES: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr, TRANSPOSED: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    """y = x · θ₀ for all pairs: a program handles a group, a class, a block of outputs, and ROWS rows of any pairs.

    A class has SIZE rows, padding included, for each pair; the rows of all pairs are one long list. theta: (groups,
    TAPS, IN, OUT), or (..., OUT, IN) if TRANSPOSED, rounded already if MODE wants that; the rest as in
    `product_kernel`.
    """
    program = tl.program_id(0)
    blocks: tl.constexpr = (OUT + BLOCK_OUT - 1) // BLOCK_OUT
    outer = (program % blocks) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    part = program // blocks % CLASSES
    group = program // (blocks * CLASSES) % GROUPS
    line = (program // (blocks * CLASSES * GROUPS)).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    pair = line // SIZE
    rows = (line % SIZE).to(tl.int32)
    alive = pair < pairs
    theta += group * (TAPS * IN * OUT)
    x += group * IN
    first_tap = tl.load(spans + 2 * part)
    taps = tl.load(spans + 2 * part + 1)
    inner_blocks: tl.constexpr = (IN + BLOCK_IN - 1) // BLOCK_IN
    total = tl.zeros((ROWS, BLOCK_OUT), tl.float32)
    for turn in range(taps * inner_blocks):
        tap = first_tap + turn // inner_blocks
        inner = (turn % inner_blocks) * BLOCK_IN + tl.arange(0, BLOCK_IN)
        position = tl.load(source + tap * WIDTH + rows)
        position = tl.where(alive & (position >= 0), pair * P + position, -1)
        left = _gather(x, position, inner, IN, IN * GROUPS)
        right = _weights(theta + tap * (IN * OUT), inner, outer, IN, OUT, TRANSPOSED)
        total = multiply(operand(left, MODE), right, total, MODE)
    position = tl.load(target + part * WIDTH + rows)
    mask = (alive & (position >= 0))[:, None] & (outer < OUT)[None, :]
    place = (pair * POUT + position)[:, None] * (OUT * GROUPS) + group * OUT + outer[None, :]
    tl.store(y + place, total, mask=mask)
