"""ATen graph → Program: one small function for each op that the fast engines know."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from .look import first_line
from .program import Program, Unlowered
from .walk import Lowering, Rule
from .working_copy import copied, home_of

_RULES: dict[str, Rule] = {}


def lower(module: nn.Module, latent_shape: tuple[int, ...]) -> Program:
    """The Program of `module`, which is in eval mode and maps (B, *latent_shape) to (B, C, H, W).

    Parameters and buffers are referred to, not copied, where they are contiguous. Raises Unlowered naming the layer and
    the op that has no rule.
    """
    device, dtype = home_of(module)
    latent = torch.zeros((1, *latent_shape), dtype=dtype, device=device)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")  # PyTorch's use of its own
            warnings.filterwarnings("ignore", ".* assigned during export")  # a hook's weight, computed at each call
            # A copy: what a forward assigns during a capture (by self.to or .float, say) are no real tensors.
            exported = torch.export.export(copied(module, share=True), (latent,), strict=False)
            if any(_mutates(node) for node in exported.graph.nodes):
                exported = exported.run_decompositions({})  # functional form: no op writes to its input
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a capture runs the module's code and much of PyTorch's: it may raise anything
        raise Unlowered(f"torch.export cannot capture {type(module).__name__}: {first_line(error)}") from error
    return Lowering(module, exported, dtype, _RULES).program()


def _mutates(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


# -- the table -----------------------------------------------------------------------------------------------------


def _rule(*targets: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        count = len(inspect.signature(rule).parameters) - 1

        def trimmed(at: Lowering, *arguments: Any) -> int:
            return rule(at, *arguments[:count])

        for target in targets:
            _RULES[target] = trimmed
        return rule

    return register


def _pair(sizes: Any) -> tuple[int, int]:
    sizes = [int(size) for size in (sizes if isinstance(sizes, (list, tuple)) else [sizes])]
    return (sizes[0], sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


@_rule("aten.linear.default")
def _linear(at: Lowering, x: Any, weight: Any, bias: Any) -> int:
    return _product(at, x, at.value(weight), bias)


@_rule("aten.addmm.default")
def _addmm(at: Lowering, bias: Any, x: Any, matrix: Any, beta: Any, alpha: Any) -> int:
    if at.number(beta) != 1 or at.number(alpha) != 1:
        raise at.refuse("aten.addmm with beta or alpha is not known to the fast engines")
    return _product(at, x, _transposed(at, matrix), bias)


@_rule("aten.mm.default", "aten.matmul.default")
def _mm(at: Lowering, x: Any, matrix: Any) -> int:
    return _product(at, x, _transposed(at, matrix), None)


def _product(at: Lowering, x: Any, weight: int, bias: Any) -> int:
    """x · weightᵀ + bias. A bias need not be a vector of all outputs: others, which broadcast, are added."""
    inputs, offset = (at.batched(at.value(x)), at.unbatched(weight)), at.unbatched(at.optional(bias))
    shape = at.values[weight].shape
    if len(shape) != 2:
        raise at.refuse(f"{at.node.target} by a tensor of shape {shape}")
    if offset is None or at.values[offset].shape == shape[:1]:
        return at.emit("linear", (*inputs, offset))
    output = at.emit("add", (at.emit("linear", (*inputs, None)), offset), alpha=1.0)
    _check_broadcast(at, offset, output)
    return output


def _transposed(at: Lowering, matrix: Any) -> int:
    """The weight (out, in) behind a matrix (in, out)."""
    value = at.unbatched(at.value(matrix))
    assert value is not None
    shape = at.values[value].shape
    if len(shape) != 2:
        raise at.refuse(f"{at.node.target} by a tensor of shape {shape}")
    maker = at.made_by.get(value)
    if maker is not None and maker.op == "permute" and maker.attrs["dims"] == (1, 0):
        return maker.inputs[0]  # type: ignore[return-value]
    return at.emit("permute", (value,), shape=(shape[1], shape[0]), dims=(1, 0))


@_rule("aten.conv2d.default")
def _conv2d(at: Lowering, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> int:
    return _convolve(at, "conv2d", x, weight, bias, stride, padding, dilation, groups)


@_rule("aten.conv2d.padding")
def _conv2d_padding(
    at: Lowering, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> int:
    if padding == "valid":
        sizes = (0, 0)
    else:
        kernel = at.values[at.value(weight)].shape[2:]
        total = [d * (k - 1) for d, k in zip(_pair(dilation), kernel, strict=True)]
        if any(size % 2 for size in total):
            raise at.refuse("conv2d with padding='same' and an even kernel pads one side more")
        sizes = (total[0] // 2, total[1] // 2)
    return _convolve(at, "conv2d", x, weight, bias, stride, sizes, dilation, groups)


@_rule("aten.conv_transpose2d.input")
def _conv_transpose2d(
    at: Lowering, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, groups: Any,
    dilation: Any,
) -> int:  # fmt: skip
    return _convolve(
        at, "conv_transpose2d", x, weight, bias, stride, padding, dilation, groups, output_padding=_pair(output_padding)
    )


@_rule("aten.convolution.default")
def _convolution(
    at: Lowering, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: Any,
) -> int:  # fmt: skip
    if len(at.node.meta["val"].shape) != 4:
        raise at.refuse("only two-dimensional convolutions are known to the fast engines")
    if transposed:
        return _conv_transpose2d(at, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _convolve(at, "conv2d", x, weight, bias, stride, padding, dilation, groups)


def _convolve(
    at: Lowering, op: str, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any,
    **more: Any,
) -> int:  # fmt: skip
    inputs = (at.batched(at.value(x)), at.unbatched(at.value(weight)), at.unbatched(at.optional(bias)))
    if len(at.values[inputs[0]].shape) != 3:
        raise at.refuse(f"{op} of an input without a batch dimension")
    sizes = {"stride": _pair(stride), "padding": _pair(padding), "dilation": _pair(dilation)}
    return at.emit(op, inputs, **sizes, groups=int(groups), **more)


@_rule("aten.batch_norm.default")
def _batch_norm(
    at: Lowering, x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: Any, eps: float
) -> int:
    if training or mean is None or var is None:
        raise at.refuse("batch norm without running statistics uses those of the batch")
    return _normalize(at, x, weight, bias, mean, var, eps)


@_rule("aten._native_batch_norm_legit_no_training.default")
def _native_batch_norm(
    at: Lowering, x: Any, weight: Any, bias: Any, mean: Any, var: Any, momentum: Any, eps: float
) -> int:
    return _normalize(at, x, weight, bias, mean, var, eps)


def _normalize(at: Lowering, x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float) -> int:
    value = at.batched(at.value(x))
    statistics = (at.value(mean), at.value(var))
    if any(at.values[i].kind != "constant" for i in statistics):
        raise at.refuse("batch norm whose running statistics are not buffers")
    affine = (at.unbatched(at.optional(weight)), at.unbatched(at.optional(bias)))
    return at.emit("batch_norm", (value, *affine, *statistics), shape=at.values[value].shape, eps=float(eps))


@_rule("<built-in function getitem>")
def _getitem(at: Lowering, items: Any, index: Any) -> int:
    if index == 0 and items in at.ids:
        return at.ids[items]
    raise at.refuse("a second output of an op is not known to the fast engines")


def _elementwise(op: str, *targets: str) -> None:
    @_rule(*targets)
    def _apply(at: Lowering, x: Any) -> int:
        return at.emit(op, (at.value(x),))


for _name in ("relu", "tanh", "sigmoid", "silu", "sin"):
    _elementwise(_name, f"aten.{_name}.default")


@_rule("aten.leaky_relu.default")
def _leaky_relu(at: Lowering, x: Any, slope: Any) -> int:
    return at.emit("leaky_relu", (at.value(x),), slope=at.number(slope))


@_rule("aten.elu.default")
def _elu(at: Lowering, x: Any, alpha: Any, scale: Any, input_scale: Any) -> int:
    numbers: dict[str, Any] = {"alpha": at.number(alpha), "scale": at.number(scale)}
    numbers["input_scale"] = at.number(input_scale)
    return at.emit("elu", (at.value(x),), **numbers)


@_rule("aten.softplus.default")
def _softplus(at: Lowering, x: Any, beta: Any, threshold: Any) -> int:
    return at.emit("softplus", (at.value(x),), beta=at.number(beta), threshold=at.number(threshold))


@_rule(
    "aten.alias.default", "aten.clone.default", "aten.contiguous.default", "aten.detach.default",
    "aten.dropout.default", "aten.feature_dropout.default", "aten.lift_fresh_copy.default", "aten._to_copy.default",
    "aten.to.dtype", "aten.to.dtype_layout", "aten.to.device",
)  # fmt: skip
def _identity(at: Lowering, x: Any) -> int:
    if "dropout" in str(at.node.target) and at.arguments()[2]:
        raise at.refuse("dropout in training mode")
    if at.node.meta["val"].dtype != x.meta["val"].dtype:
        raise at.refuse(f"{at.node.target} changes the dtype")
    if "detach" in str(at.node.target) and at.values[at.value(x)].kind != "constant":
        raise at.refuse("detach stops a gradient")
    return at.value(x)


@_rule(
    "aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints",
    "aten.unflatten.int", "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default", "aten.unsqueeze.default",
)  # fmt: skip
def _reshape(at: Lowering, x: Any) -> int:
    value = at.value(x)
    if at.values[value].shape == at.shape_of(at.node, at.values[value].batched):
        return value
    return at.emit("reshape", (value,))


@_rule("aten.permute.default")
def _permute(at: Lowering, x: Any, dims: Any) -> int:
    return _reorder(at, at.value(x), [int(dim) for dim in dims])


@_rule("aten.transpose.int")
def _transpose(at: Lowering, x: Any, first: int, second: int) -> int:
    dims = list(range(len(at.node.meta["val"].shape)))
    dims[first], dims[second] = dims[second], dims[first]
    return _reorder(at, at.value(x), dims)


@_rule("aten.t.default", "aten.numpy_T.default")
def _t(at: Lowering, x: Any) -> int:
    return _reorder(at, at.value(x), list(range(len(at.node.meta["val"].shape)))[::-1])


def _reorder(at: Lowering, value: int, dims: list[int]) -> int:
    dims = [dim % len(dims) for dim in dims]
    if at.values[value].batched:
        if dims[0] != 0:
            raise at.refuse(f"{at.node.target} moves the batch dimension")
        dims = [dim - 1 for dim in dims[1:]]
    return at.emit("permute", (value,), dims=tuple(dims))


@_rule("aten.upsample_nearest2d.vec", "aten.upsample_nearest2d.default")
def _upsample_nearest(at: Lowering, x: Any) -> int:
    value = at.value(x)
    before, after = at.values[at.batched(value)].shape, at.shape_of(at.node, batched=True)
    if any(new % old for old, new in zip(before[1:], after[1:], strict=True)):
        raise at.refuse(f"nearest upsampling from {before[1:]} to {after[1:]}, not by a whole factor")
    high, wide = after[1] // before[1], after[2] // before[2]
    if not torch.equal(*_enlarged(at, before[1:], high, wide)):
        raise at.refuse(f"nearest upsampling from {before[1:]} to {after[1:]} by a factor that is not whole")
    return at.emit("upsample_nearest", (value,), scale=(high, wide))


def _enlarged(at: Lowering, size: tuple[int, ...], high: int, wide: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbered pixels as the op in hand spreads them, and as each repeated high × wide times.

    By a factor of 3.4 two pixels become six as well, but four of these are the first: PyTorch finds the source of a
    pixel by the factor that was given, except where (on a CPU) the size stays or doubles.
    """
    height, width = size
    pixels = torch.arange(height * width, dtype=at.dtype, device=at.node.meta["val"].device).view(1, 1, height, width)
    spread = at.node.target(pixels, *at.arguments()[1:])  # type: ignore[operator]
    return spread, pixels.repeat_interleave(high, 2).repeat_interleave(wide, 3)


@_rule("aten.pixel_shuffle.default")
def _pixel_shuffle(at: Lowering, x: Any, factor: Any) -> int:
    value = at.batched(at.value(x))
    if len(at.values[value].shape) != 3:
        raise at.refuse(f"pixel shuffle of a sample of shape {at.values[value].shape}")
    return at.emit("pixel_shuffle", (value,), factor=int(factor))


def _arithmetic(at: Lowering, op: str, a: Any, b: Any, alpha: float = 1.0) -> int:
    """a + alpha·b, a·b or a / b, of two tensors or of a tensor and a number."""
    scalars = [not isinstance(x, fx.Node) or not isinstance(x.meta.get("val"), torch.Tensor) for x in (a, b)]
    if not any(scalars):
        left, right = at.value(a), at.value(b)
        attrs: dict[str, Any] = {"alpha": alpha} if op == "add" else {}
        output = at.emit(op, (left, right), **attrs)
        for operand in (left, right):
            _check_broadcast(at, operand, output)
        return output
    if scalars[0]:
        number, x = at.number(a), at.value(b)
        if op == "div":
            raise at.refuse("a number divided by a tensor is not known to the fast engines")
        scale, shift = (number, 0.0) if op == "mul" else (alpha, number)
    else:
        x, number = at.value(a), at.number(b)
        if op == "div" and number == 0:
            raise at.refuse("a tensor divided by zero")
        scale, shift = (1.0, alpha * number) if op == "add" else (number if op == "mul" else 1 / number, 0.0)
    return at.emit("scale_shift", (x,), scale=scale, shift=shift)


def _check_broadcast(at: Lowering, operand: int, output: int) -> None:
    """Only batch dimensions may meet the batch dimension: anything else there would mix the images of a batch."""
    value, result = at.values[operand], at.values[output]
    rank = len(result.shape) + 1
    fits = len(value.shape) + 1 == rank if value.batched else len(value.shape) < rank or value.shape[0] == 1
    if result.batched and not fits:
        raise at.refuse(f"{at.node.target} with a tensor of shape {value.shape} mixes the images of a batch")


@_rule("aten.add.Tensor", "aten.add.Scalar")
def _add(at: Lowering, a: Any, b: Any, alpha: Any) -> int:
    return _arithmetic(at, "add", a, b, at.number(alpha))


@_rule("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(at: Lowering, a: Any, b: Any, alpha: Any) -> int:
    return _arithmetic(at, "add", a, b, -at.number(alpha))


@_rule("aten.rsub.Scalar", "aten.rsub.Tensor")
def _rsub(at: Lowering, a: Any, b: Any, alpha: Any) -> int:
    return _arithmetic(at, "add", b, a, -at.number(alpha))


@_rule("aten.mul.Tensor", "aten.mul.Scalar")
def _mul(at: Lowering, a: Any, b: Any) -> int:
    return _arithmetic(at, "mul", a, b)


@_rule("aten.div.Tensor", "aten.div.Scalar")
def _div(at: Lowering, a: Any, b: Any) -> int:
    return _arithmetic(at, "div", a, b)


@_rule("aten.neg.default")
def _neg(at: Lowering, x: Any) -> int:
    return at.emit("scale_shift", (at.value(x),), scale=-1.0, shift=0.0)
