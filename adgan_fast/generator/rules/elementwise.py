"""Activations and arithmetic."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from .. import algebra
from ..walk import Lowering
from .table import rule


def _activation(op: str, *targets: str) -> None:
    @rule(*targets)
    def _apply(at: Lowering, x: Any) -> int:
        return algebra.elementwise(at, op, at.value(x))


for _name in ("relu", "tanh", "sigmoid", "silu", "sin", "exp", "log", "abs", "erf"):
    _activation(_name, f"aten.{_name}.default")


def _power(exponent: float, *targets: str) -> None:
    @rule(*targets)
    def _apply(at: Lowering, x: Any) -> int:
        return algebra.power(at, at.value(x), exponent)


_power(2.0, "aten.square.default")
_power(0.5, "aten.sqrt.default")
_power(-0.5, "aten.rsqrt.default")
_power(-1.0, "aten.reciprocal.default")


@rule("aten.pow.Tensor_Scalar")
def _pow(at: Lowering, x: Any, exponent: Any) -> int:
    return algebra.power(at, at.value(x), at.number(exponent))


@rule("aten.leaky_relu.default")
def _leaky_relu(at: Lowering, x: Any, slope: Any) -> int:
    return algebra.elementwise(at, "leaky_relu", at.value(x), slope=at.number(slope))


@rule("aten.rrelu.default")
def _rrelu(at: Lowering, x: Any, lower: Any, upper: Any, training: Any) -> int:
    if training:
        raise at.refuse("rrelu in training mode is random")
    return algebra.elementwise(at, "leaky_relu", at.value(x), slope=(at.number(lower) + at.number(upper)) / 2)


@rule("aten.prelu.default")
def _prelu(at: Lowering, x: Any, weight: Any) -> int:
    value, slope = algebra.batched(at, at.value(x)), at.unbatched(at.value(weight))
    assert slope is not None
    if at.wholes[slope] != (1,) and not algebra.offset(at, value):
        raise at.refuse(f"{at.node.target} by channels of more than one sample")
    return at.emit("prelu", (value, slope), at.wholes[value])


@rule("aten.elu.default")
def _elu(at: Lowering, x: Any, alpha: Any, scale: Any, input_scale: Any) -> int:
    numbers = {"alpha": at.number(alpha), "scale": at.number(scale), "input_scale": at.number(input_scale)}
    return algebra.elementwise(at, "elu", at.value(x), **numbers)


@rule("aten.selu.default")
def _selu(at: Lowering, x: Any) -> int:
    """The numbers of Klambauer et al., 2017."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return algebra.elementwise(at, "elu", at.value(x), alpha=alpha, scale=scale, input_scale=1.0)


@rule("aten.celu.default")
def _celu(at: Lowering, x: Any, alpha: Any) -> int:
    number = at.number(alpha)
    return algebra.elementwise(at, "elu", at.value(x), alpha=number, scale=1.0, input_scale=1 / number)


@rule("aten.softplus.default")
def _softplus(at: Lowering, x: Any, beta: Any, threshold: Any) -> int:
    return algebra.elementwise(at, "softplus", at.value(x), beta=at.number(beta), threshold=at.number(threshold))


@rule("aten.gelu.default")
def _gelu(at: Lowering, x: Any, approximate: str) -> int:
    return algebra.elementwise(at, "gelu_tanh" if approximate == "tanh" else "gelu", at.value(x))


@rule("aten.hardtanh.default")
def _hardtanh(at: Lowering, x: Any, low: Any, high: Any) -> int:
    return algebra.elementwise(at, "hardtanh", at.value(x), low=at.number(low), high=at.number(high))


@rule("aten.relu6.default")
def _relu6(at: Lowering, x: Any) -> int:
    return algebra.elementwise(at, "hardtanh", at.value(x), low=0.0, high=6.0)


@rule("aten.clamp.default")
def _clamp(at: Lowering, x: Any, low: Any, high: Any) -> int:
    bounds = (-math.inf if low is None else at.number(low), math.inf if high is None else at.number(high))
    return algebra.elementwise(at, "clamp", at.value(x), low=bounds[0], high=bounds[1])


@rule("aten.clamp_min.default")
def _clamp_min(at: Lowering, x: Any, low: Any) -> int:
    return _clamp(at, x, low, None)


@rule("aten.clamp_max.default")
def _clamp_max(at: Lowering, x: Any, high: Any) -> int:
    return _clamp(at, x, None, high)


@rule("aten.hardsigmoid.default")
def _hardsigmoid(at: Lowering, x: Any) -> int:
    """x / 6 + 1/2, to [0, 1]; no gradient on the bounds."""
    return _gate(at, at.value(x), "hardtanh")


@rule("aten.hardswish.default")
def _hardswish(at: Lowering, x: Any) -> int:
    """x times the same, which has a gradient on the bounds here."""
    value = at.value(x)
    return algebra.combined(at, "mul", value, _gate(at, value, "clamp"))


def _gate(at: Lowering, x: int, op: str) -> int:
    return algebra.elementwise(at, op, algebra.scaled(at, x, 1 / 6, 0.5), low=0.0, high=1.0)


@rule("aten.mish.default")
def _mish(at: Lowering, x: Any) -> int:
    """x · tanh(log(1 + exp(x)))."""
    value = at.value(x)
    soft = algebra.elementwise(at, "softplus", value, beta=1.0, threshold=20.0)
    return algebra.combined(at, "mul", value, algebra.elementwise(at, "tanh", soft))


@rule("aten.log_sigmoid.default")
def _log_sigmoid(at: Lowering, x: Any) -> int:
    """-log(1 + exp(-x))."""
    turned = algebra.scaled(at, at.value(x), -1.0)
    return algebra.scaled(at, algebra.elementwise(at, "softplus", turned, beta=1.0, threshold=80.0), -1.0)


@rule("aten.glu.default")
def _glu(at: Lowering, x: Any, dim: int) -> int:
    """The first half times the sigmoid of the second."""
    value = at.value(x)
    half = at.wholes[value][dim] // 2
    first, second = (algebra.taken(at, value, dim, range(start, start + half)) for start in (0, half))
    return algebra.combined(at, "mul", first, algebra.elementwise(at, "sigmoid", second))


@rule("aten.softmax.int", "aten._softmax.default")
def _softmax(at: Lowering, x: Any, dim: int) -> int:
    return algebra.softmax(at, at.value(x), int(dim))


@rule("aten.sum.dim_IntList")
def _sum(at: Lowering, x: Any, dims: Any, keepdim: bool) -> int:
    return algebra.summed(at, at.value(x), dims, bool(keepdim))


@rule("aten.sum.default")
def _sum_of_all(at: Lowering, x: Any) -> int:
    return algebra.summed(at, at.value(x), None)


@rule("aten.mean.dim")
def _mean(at: Lowering, x: Any, dims: Any, keepdim: bool) -> int:
    return algebra.mean(at, at.value(x), dims, bool(keepdim))


@rule("aten.mean.default")
def _mean_of_all(at: Lowering, x: Any) -> int:
    return algebra.mean(at, at.value(x), None)


@rule("aten.var.correction", "aten.var.dim")
def _var(at: Lowering, x: Any, dims: Any, correction: Any, keepdim: bool) -> int:
    """The sum of (x − mean)² over dims, by their number less the correction (1 if not given)."""
    value = at.value(x)
    less = 1.0 if correction is None else at.number(correction)
    count = math.prod(at.values[value].shape[dim] for dim in algebra.dimensions(at, value, dims))
    if count <= less:
        raise at.refuse(f"{at.node.target} of {count} numbers")
    centred = algebra.combined(at, "add", value, algebra.mean(at, value, dims, keepdim=True), -1.0)
    squares = algebra.summed(at, algebra.power(at, centred, 2), dims, bool(keepdim))
    return algebra.scaled(at, squares, 1 / (count - less))


@rule("aten.std.correction", "aten.std.dim")
def _std(at: Lowering, x: Any, dims: Any, correction: Any, keepdim: bool) -> int:
    return algebra.root(at, _var(at, x, dims, correction, keepdim))


# -- arithmetic ----------------------------------------------------------------------------------------------------


def _arithmetic(at: Lowering, op: str, a: Any, b: Any, alpha: float = 1.0) -> int:
    """a + alpha·b, a·b or a / b, of two tensors or of a tensor and a number."""
    if _is_tensor(a) and _is_tensor(b):
        return algebra.combined(at, op, at.value(a), at.value(b), alpha)
    if not _is_tensor(a):
        number, x = at.number(a), at.value(b)
        if op == "div":
            return algebra.scaled(at, algebra.power(at, x, -1.0), number)
        scale, shift = (number, 0.0) if op == "mul" else (alpha, number)
    else:
        x, number = at.value(a), at.number(b)
        if op == "div" and number == 0:
            raise at.refuse("a tensor divided by zero")
        scale, shift = (1.0, alpha * number) if op == "add" else (number if op == "mul" else 1 / number, 0.0)
    return algebra.scaled(at, x, scale, shift)


def _is_tensor(x: Any) -> bool:
    return isinstance(x, fx.Node) and isinstance(x.meta.get("val"), torch.Tensor)


@rule("aten.add.Tensor", "aten.add.Scalar")
def _add(at: Lowering, a: Any, b: Any, alpha: Any) -> int:
    return _arithmetic(at, "add", a, b, at.number(alpha))


@rule("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(at: Lowering, a: Any, b: Any, alpha: Any) -> int:
    return _arithmetic(at, "add", a, b, -at.number(alpha))


@rule("aten.rsub.Scalar", "aten.rsub.Tensor")
def _rsub(at: Lowering, a: Any, b: Any, alpha: Any) -> int:
    return _arithmetic(at, "add", b, a, -at.number(alpha))


@rule("aten.mul.Tensor", "aten.mul.Scalar")
def _mul(at: Lowering, a: Any, b: Any) -> int:
    return _arithmetic(at, "mul", a, b)


@rule("aten.div.Tensor", "aten.div.Scalar")
def _div(at: Lowering, a: Any, b: Any) -> int:
    return _arithmetic(at, "div", a, b)


@rule("aten.neg.default")
def _neg(at: Lowering, x: Any) -> int:
    return algebra.scaled(at, at.value(x), -1.0)


@rule("aten.lerp.Scalar", "aten.lerp.Tensor")
def _lerp(at: Lowering, a: Any, b: Any, weight: Any) -> int:
    """(1 − weight) · a + weight · b."""
    first, second = at.value(a), at.value(b)
    if _is_tensor(weight):
        further = algebra.combined(at, "add", second, first, -1.0)
        return algebra.combined(at, "add", first, algebra.combined(at, "mul", at.value(weight), further))
    share = at.number(weight)
    return algebra.combined(at, "add", algebra.scaled(at, first, 1 - share), second, share)


@rule("aten.maximum.default", "aten.max.other")
def _maximum(at: Lowering, a: Any, b: Any) -> int:
    return algebra.larger(at, at.value(a), at.value(b), tie=0.5)


@rule("aten.minimum.default", "aten.min.other")
def _minimum(at: Lowering, a: Any, b: Any) -> int:
    """-max(-a, -b)."""
    first, second = (algebra.scaled(at, at.value(x), -1.0) for x in (a, b))
    return algebra.scaled(at, algebra.larger(at, first, second, tie=0.5), -1.0)


# -- choices by a constant -----------------------------------------------------------------------------------------


@rule("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def _where(at: Lowering, condition: Any, a: Any, b: Any) -> int:
    return algebra.chosen(at, at.numbers(condition), _tensor(at, a), _tensor(at, b))


@rule("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def _masked_fill(at: Lowering, x: Any, mask: Any, value: Any) -> int:
    return algebra.chosen(at, at.numbers(mask), _tensor(at, value), at.value(x))


def _tensor(at: Lowering, x: Any) -> int:
    """A tensor argument, or a number as one."""
    return at.value(x) if _is_tensor(x) else at.constant(torch.tensor(at.number(x), dtype=at.dtype))
