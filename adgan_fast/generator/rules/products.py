"""Linear layers, matrix products, attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from .. import algebra
from ..walk import Lowering
from .table import rule


@rule("aten.linear.default")
def _linear(at: Lowering, x: Any, weight: Any, bias: Any) -> int:
    return _product(at, at.value(x), at.value(weight), at.optional(bias))


@rule("aten.addmm.default")
def _addmm(at: Lowering, bias: Any, x: Any, matrix: Any, beta: Any, alpha: Any) -> int:
    if at.number(beta) != 1 or at.number(alpha) != 1:
        raise at.refuse("aten.addmm with beta or alpha is not known to the fast engines")
    return _product(at, at.value(x), _transposed(at, at.value(matrix)), at.value(bias))


def _product(at: Lowering, x: int, weight: int, bias: int | None) -> int:
    """x · weightᵀ + bias. A bias need not be a vector of all outputs: others, which broadcast, are added."""
    shape, whole = at.wholes[weight], at.wholes[x]
    if len(shape) != 2:
        raise at.refuse(f"{at.node.target} by a tensor of shape {shape}")
    if at.values[weight].batched or not at.values[x].batched:
        product = algebra.matmul(at, x, algebra.transposed(at, weight))
        return product if bias is None else algebra.combined(at, "add", product, bias)
    if len(whole) == 1:
        return algebra.reshaped(at, _product(at, algebra.reshaped(at, x, (1, *whole)), weight, bias), shape[:1])
    vector = bias is None or (at.wholes[bias] == shape[:1] and at.values[bias].kind in ("parameter", "constant"))
    product = at.emit("linear", (x, weight, bias if vector else None), (*whole[:-1], shape[0]))
    return product if vector or bias is None else algebra.combined(at, "add", product, bias)


def _transposed(at: Lowering, matrix: int) -> int:
    """The weight (out, in) behind a matrix (in, out)."""
    if len(at.wholes[matrix]) != 2:
        raise at.refuse(f"{at.node.target} by a tensor of shape {at.wholes[matrix]}")
    maker = at.made_by.get(matrix)
    if maker is not None and maker.op == "permute" and maker.attrs["dims"] == (1, 0):
        return maker.inputs[0]  # type: ignore[return-value]
    return algebra.transposed(at, matrix)


@rule(
    "aten.mm.default", "aten.matmul.default", "aten.bmm.default", "aten.mv.default", "aten.dot.default",
    "aten.vdot.default",
)  # fmt: skip
def _matmul(at: Lowering, a: Any, b: Any) -> int:
    first, second = at.value(a), at.value(b)
    if at.values[first].batched and not at.values[second].batched and len(at.wholes[second]) == 2:
        return _product(at, first, _transposed(at, second), None)
    return algebra.matmul(at, first, second)


@rule("aten.baddbmm.default")
def _baddbmm(at: Lowering, bias: Any, a: Any, b: Any, beta: Any, alpha: Any) -> int:
    product = algebra.scaled(at, _matmul(at, a, b), at.number(alpha))
    if at.number(beta) == 0:
        return product
    return algebra.combined(at, "add", product, at.value(bias), at.number(beta))


@rule("aten.scaled_dot_product_attention.default")
def _attention(
    at: Lowering, query: Any, key: Any, value: Any, mask: Any, dropout: Any, causal: Any, scale: Any, grouped: Any
) -> int:
    """softmax(scale · Q Kᵀ + mask) V, over the last two dimensions."""
    if at.number(dropout) or grouped:
        raise at.refuse("attention with dropout or grouped heads is not known to the fast engines")
    q, k, v = at.value(query), at.value(key), at.value(value)
    factor = 1 / math.sqrt(at.wholes[q][-1]) if scale is None else at.number(scale)
    scores = algebra.scaled(at, algebra.matmul(at, q, algebra.transposed(at, k)), factor)
    if causal:
        length, others = at.wholes[scores][-2:]
        scores = _masked(at, scores, at.constant(torch.ones(length, others, dtype=torch.bool).tril()))
    if mask is not None:
        scores = _masked(at, scores, at.value(mask))
    return algebra.matmul(at, algebra.softmax(at, scores, -1), v)


def _masked(at: Lowering, scores: int, mask: int) -> int:
    """Scores with what a mask adds; one of booleans takes away those that are False."""
    value = at.values[mask]
    if value.kind == "constant" and at.constants[value.index].dtype == torch.bool:
        allowed = at.constants[value.index]
        if not bool(allowed.any(-1).all()):
            raise at.refuse(f"{at.node.target} by a mask that lets a token see nothing")
        mask = at.constant(torch.zeros_like(allowed, dtype=at.dtype).masked_fill(~allowed, -math.inf))
    return algebra.combined(at, "add", scores, mask)
