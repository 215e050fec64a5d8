"""The kernels of vector.py, where the layout of their buffers is described.

Slots are read and written in whole lines of 16, and a slot of a line in use that is not in use itself holds zero: so no
mask cuts a vector of 16 bytes, and none is needed against what memory held before.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# (Triton's compiler gives the arguments of a kernel their types; tuples of rows grow as loops are unrolled.)

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["LINE", "forward_kernel", "input_grad_kernel", "keep_kernel"]

LINE = tl.constexpr(16)


@triton.jit
def _whole_lines(count):
    """``count`` up to a multiple of LINE: the compiler sees that such a bound cuts no 16-byte vector."""
    return tl.cdiv(count, LINE) * LINE


@triton.jit(do_not_specialize=["rows", "columns", "steps", "step"])
def keep_kernel(
    gy, x, gradients, xs, counts, column, slot, live, rows, columns, capacity, steps, step,
    FIRST: tl.constexpr, PARTIAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program g keeps x (G, K) and gy (G, J) of ``step`` of pair g, and gives columns new in it their slots.

    FIRST: step 1, with no slots before it. PARTIAL: only columns where ``live`` (J,) int8 is not 0 have weights.
    """
    pair = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    for first in range(0, rows, BLOCK):
        row = first + lane
        values = tl.load(x + pair * rows + row, mask=row < rows)
        tl.store(xs + (pair * steps + step - 1) * rows + row, values, mask=row < rows)
    kept = gradients + (pair * steps + step - 1) * capacity
    used = tl.full((), 0, tl.int32) if FIRST else tl.load(counts + pair * steps + step - 2)
    for first in range(0, columns, BLOCK):
        j = first + lane
        inside = j < columns
        grad = tl.load(gy + pair * columns + j, mask=inside, other=0.0)
        place = tl.full((BLOCK,), -1, tl.int32)
        if not FIRST:
            place = tl.load(slot + pair * columns + j, mask=inside, other=-1)
        new = (grad != 0.0) & (place < 0)
        if PARTIAL:
            new = new & (tl.load(live + j, mask=inside, other=0) != 0)
        ones = new.to(tl.int32)
        place = tl.where(new, used + tl.cumsum(ones, 0) - 1, place)
        tl.store(slot + pair * columns + j, place, mask=inside if FIRST else new)
        tl.store(column + pair * capacity + place, j, mask=new)
        tl.store(kept + place, grad, mask=place >= 0)
        used += tl.sum(ones, 0)
    tl.store(counts + pair * steps + step - 1, used)
    rest = used + tl.arange(0, LINE)
    tl.store(kept + rest, tl.zeros((LINE,), tl.float32), mask=rest < _whole_lines(used))


@triton.jit
def _gradient(gradients, counts, slots, capacity, step):
    """gy of ``step`` by slot; zero for slots that came later. The pointers are a pair's."""
    known = slots < _whole_lines(tl.load(counts + step - 1))
    return tl.load(gradients + (step - 1) * capacity + slots, mask=known, other=0.0)


@triton.jit
def _within(slots, limit, row, rows):
    """Which slots of a row of Δ are there: those below ``limit``, a number of whole lines, if row < rows."""
    return slots < tl.where(row < rows, limit, 0)


@triton.jit
def _load_rows(delta, first, rows, capacity, slots, limit, ROWS: tl.constexpr):
    """A tuple of ROWS rows of Δ as stored; zero at slots from ``limit`` on, and in rows from ``rows`` on."""
    loaded = ()
    for r in tl.static_range(ROWS):
        at = delta + (first + r) * capacity + slots
        loaded += (tl.load(at, mask=_within(slots, limit, first + r, rows), other=0.0),)
    return loaded


@triton.jit
def _quotient(m, v, eps, FIRST: tl.constexpr, ROUNDED: tl.constexpr):
    """m / (√v + eps), and zero where m and the denominator are; with FIRST, v is its own root already.

    With ROUNDED, root and division are the correctly rounded ones, as in ``adam_update``. Otherwise they are good to a
    few ulp: a division is eight instructions even in its short form, the reciprocal root of the square is two.
    """
    if FIRST:
        denom = v + eps
    elif ROUNDED:
        denom = tl.sqrt_rn(v) + eps
    else:
        denom = tl.sqrt(v) + eps
    if ROUNDED:
        ratio = tl.where(denom == 0.0, 0.0, tl.div_rn(m, denom))
    else:
        ratio = m * tl.rsqrt(tl.maximum(denom * denom, 1e-37))  # the least normal number is 1.2e-38
    return ratio


@triton.jit(do_not_specialize=["rows", "columns", "steps", "step"])
def forward_kernel(
    delta, gradients, xs, counts, column, x, y, rows, columns, capacity, steps, step,
    beta1: tl.float64, beta2: tl.float64, factor_m: tl.float64, factor_v: tl.float64, eps: tl.float64,
    unscale: tl.float64,
    HISTORY: tl.constexpr, LAST: tl.constexpr, ROUNDED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Update ``step`` of BLOCK of a pair's slots, and what the changed Δ adds to y (G, J); x (G, K) is the next step's.

    HISTORY is ``step``, or 0 for any. At step 1 Δ counts as zero and is not read; with LAST it is not written.
    factor_m = scale · lr (1 - β1) / (1 - β1^t), factor_v = (1 - β2) / (1 - β2^t), unscale = 1 / scale.
    """
    blocks = tl.cdiv(capacity, BLOCK)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    start = tl.program_id(0) % blocks * BLOCK
    counts += pair * steps
    count = tl.load(counts + step - 1)
    if start >= count:
        return
    slots = start + tl.arange(0, BLOCK)
    limit = _whole_lines(count)
    limit_before = limit
    if HISTORY != 1:
        limit_before = _whole_lines(tl.load(counts + step - 2))
    capacity = capacity.to(tl.int64)  # for the products below
    delta += pair * rows * capacity
    gradients += pair * steps * capacity
    xs += pair * steps * rows
    b1 = tl.full((), beta1, tl.float32)
    b2 = tl.full((), beta2, tl.float32)
    factor1 = tl.full((), factor_m, tl.float32)
    factor2 = tl.full((), factor_v, tl.float32)
    epsilon = tl.full((), eps, tl.float32)
    parts_m = ()  # of steps t, t - 1, ...: scale · lr · m̂ is the sum of x_s times these,
    parts_v = ()  # and v̂ that of x_s² times these (at step 1, √v̂ is |x| times it)
    weight1 = factor1
    weight2 = factor2
    for back in tl.static_range(HISTORY):
        grad = _gradient(gradients, counts, slots, capacity, step - back)
        parts_m += (grad * weight1,)
        parts_v += (tl.abs(grad) if HISTORY == 1 else grad * grad * weight2,)
        weight1 = weight1 * b1
        weight2 = weight2 * b2

    total = tl.zeros((BLOCK,), tl.float32)
    ahead = ()
    if HISTORY != 1:
        ahead = _load_rows(delta, 0, rows, capacity, slots, limit_before, ROWS)
    for first in range(0, rows, ROWS):
        olds = ahead
        news = ()
        if HISTORY != 1:
            ahead = _load_rows(delta, first + ROWS, rows, capacity, slots, limit_before, ROWS)
        for r in tl.static_range(ROWS):
            row = first + r
            inside = row < rows
            m = tl.zeros((BLOCK,), tl.float32)
            v = tl.zeros((BLOCK,), tl.float32)
            if HISTORY == 0:
                for s in range(1, step + 1):
                    g = _gradient(gradients, counts, slots, capacity, s)
                    g *= tl.load(xs + (s - 1) * rows + row, mask=inside, other=0.0)
                    m = m * b1 + g
                    v = v * b2 + g * g
                m *= factor1
                v *= factor2
            for back in tl.static_range(HISTORY):
                value = tl.load(xs + (step - 1 - back) * rows + row, mask=inside, other=0.0)
                m += parts_m[back] * value
                v += parts_v[back] * (tl.abs(value) if HISTORY == 1 else value * value)
            change = -_quotient(m, v, epsilon, HISTORY == 1, ROUNDED)
            if HISTORY != 1:
                change += olds[r].to(tl.float32)
            total += change * tl.load(x + pair * rows + row, mask=inside, other=0.0)
            news += (change,)
        if not LAST:
            for r in tl.static_range(ROWS):
                at = delta + (first + r) * capacity + slots
                mask = _within(slots, limit, first + r, rows)
                tl.store(at, news[r].to(delta.dtype.element_ty), mask=mask)

    taken = slots < count
    at = y + pair * columns + tl.load(column + pair * capacity + slots, mask=taken, other=0)
    total *= tl.full((), unscale, tl.float32)
    tl.store(at, tl.load(at, mask=taken, other=0.0) + total, mask=taken)


@triton.jit(do_not_specialize=["rows", "steps", "step"])
def input_grad_kernel(
    delta, gradients, counts, gx, rows, capacity, steps, step,
    unscale: tl.float64,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What the Δ of the forward pass of ``step`` adds to ROWS rows of a pair's gx (G, K). gy is the one kept for it."""
    blocks = tl.cdiv(rows, ROWS)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    limit = _whole_lines(tl.load(counts + pair * steps + step - 2))
    tile = delta + (pair * rows + row)[:, None] * capacity
    grads = gradients + (pair * steps + step - 1) * capacity
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for start in range(0, limit, BLOCK):
        slots = start + tl.arange(0, BLOCK)
        known = slots < limit
        grad = tl.load(grads + slots, mask=known, other=0.0)
        change = tl.load(tile + slots[None, :], mask=known[None, :] & (row < rows)[:, None], other=0.0)
        total += change.to(tl.float32) * grad[None, :]
    at = gx + pair * rows + row
    added = tl.sum(total, 1) * tl.full((), unscale, tl.float32)
    tl.store(at, tl.load(at, mask=row < rows) + added, mask=row < rows)
