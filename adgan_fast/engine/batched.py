"""A Program run over many samples at once, each group of samples with weights of its own.

Every tensor has a leading dimension G, the groups that share weights; activations have a second one, B, the samples of
a group: (G, B, *shape of a sample). So one forward serves the three ways of owning weights: ``per_seed`` has G pairs
and B = 1, ``per_sample`` G images and B starts, ``frozen`` G = 1 and B samples. All is autograd's to differentiate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from ..core.engine import Gradients
from ..core.job import Job
from ..core.tiles import layout
from ..generator.layers import Size
from ..generator.program import Layer, Program
from . import rearrange

Tensors = list[torch.Tensor | None]


def forward(
    program: Program,
    latent: torch.Tensor,
    parameters: Sequence[torch.Tensor | None],
    constants: Sequence[torch.Tensor],
    more: Mapping[str, Callable[..., torch.Tensor]] | None = None,
) -> torch.Tensor:
    """Reconstructions (G, B, C, H, W) of latents (G, B, *latent).

    parameters: (G, *shape) each, as `program.parameters`, None for one that no layer reads; constants: as
    `program.constants`, on the same device; more: functions (program, layer, *inputs) for ops that an engine has put
    into the program in place of others.
    """
    functions = _RUN | {"expand": partial(rearrange.expand, lead=tuple(latent.shape[:2]))} | dict(more or {})
    values: Tensors = [None] * len(program.values)
    for i, value in enumerate(program.values):
        if value.kind == "parameter":
            values[i] = parameters[value.index]
        elif value.kind == "constant":
            values[i] = constants[value.index].unsqueeze(0)
    values[program.latent] = latent
    for layer in program.layers:
        inputs = [None if i is None else values[i] for i in layer.inputs]
        values[layer.output] = functions[layer.op](program, layer, *inputs)
    result = values[program.output]
    assert result is not None
    return result


def gradients(job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
    """See Engine.gradients: of the job's program, by autograd."""
    program = job.lowered
    groups, share = layout(job.config.weights, 1, 2)  # two alike: what is batched is in use
    latent = z.detach().expand(groups, share, *z.shape).clone().requires_grad_()
    weights = [p.detach().expand(groups, *p.shape).clone().requires_grad_(job.learns) for p in program.parameters]
    made = forward(program, latent, weights, program.constants)
    value = job.loss(made.flatten(0, 1), image.expand(2, *image.shape)).sum()
    of_latent, *of_weights = torch.autograd.grad(value, [latent, *(weights if job.learns else ())], allow_unused=True)
    return Gradients(
        made.detach()[0, 0], of_latent[0, 0], by_name(job, [None if dw is None else dw[0] / share for dw in of_weights])
    )


def by_name(job: Job, of_weights: Sequence[torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """Gradients of the program's parameters by the module's names of these (of a tied one: the first)."""
    names = {id(w): name for name, w in job.module.named_parameters()}
    named = (names[id(job.module.get_parameter(name))] for name in job.lowered.names)
    return {name: dw for name, dw in zip(named, of_weights, strict=False) if dw is not None}


# -- layers with weights -------------------------------------------------------------------------------------------


def _linear(
    program: Program, layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    out = torch.matmul(weight, rows.mT).mT  # this way round dW comes out contiguous
    if bias is not None:
        out = out + bias.unsqueeze(1)
    return out.reshape(*x.shape[:-1], weight.shape[1])


def _conv2d(
    program: Program, layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    attrs, groups = layer.attrs, layer.attrs["groups"]
    g, b, c, h, w = x.shape
    shape = {name: attrs[name] for name in ("stride", "padding", "dilation")}
    if g > len(weight):  # a constant, which all groups share
        out = F.conv2d(x.flatten(0, 1), weight[0], groups=groups, **shape)
    elif b == 1 or (g > 1 and _on_gpu(x)):
        out = conv2d_as_product(x, weight, groups, shape)
    elif g == 1:
        out = F.conv2d(x[0], weight[0], groups=groups, **shape)
    else:
        merged = weight.reshape(-1, *weight.shape[2:])
        out = F.conv2d(x.transpose(0, 1).reshape(b, g * c, h, w), merged, groups=g * groups, **shape)
        out = out.view(b, g, weight.shape[1], *out.shape[2:]).transpose(0, 1)
    return _add_bias(out.reshape(g, b, *program.values[layer.output].shape), bias)


def _conv_transpose2d(
    program: Program, layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    attrs, groups = layer.attrs, layer.attrs["groups"]
    g, b, c, h, w = x.shape
    shape = {name: attrs[name] for name in ("stride", "padding", "dilation")}
    out_shape = program.values[layer.output].shape
    foldable = all(extra < stride for extra, stride in zip(attrs["output_padding"], attrs["stride"], strict=True))
    if g > len(weight):  # a constant, which all groups share
        out = F.conv_transpose2d(
            x.flatten(0, 1), weight[0], groups=groups, output_padding=attrs["output_padding"], **shape
        )
    elif foldable and (b == 1 or (g > 1 and _on_gpu(x))):
        out = conv_transpose2d_as_product(x, weight, groups, shape, tuple(out_shape[1:]))
    elif g == 1:
        out = F.conv_transpose2d(x[0], weight[0], groups=groups, output_padding=attrs["output_padding"], **shape)
    else:
        merged = weight.reshape(-1, *weight.shape[2:])
        out = F.conv_transpose2d(
            x.transpose(0, 1).reshape(b, g * c, h, w),
            merged, groups=g * groups, output_padding=attrs["output_padding"], **shape,
        )  # fmt: skip
        out = out.view(b, g, out_shape[0], *out_shape[1:]).transpose(0, 1)
    return _add_bias(out.reshape(g, b, *out_shape), bias)


def _on_gpu(x: torch.Tensor) -> bool:
    return x.is_cuda


def conv2d_as_product(x: torch.Tensor, weight: torch.Tensor, groups: int, shape: Mapping[str, Size]) -> torch.Tensor:
    """Images (G, B, C, H, W) by weights (G, O, C / groups, *kernel), as one product for each of the G · groups.

    Its columns are those of all B samples. (On a GPU a convolution of G · groups groups is far from that product's
    rate.) Returns (G, B, O, positions).
    """
    g, b = x.shape[:2]
    columns = _Im2col.apply(x.flatten(0, 1), tuple(weight.shape[3:]), shape)
    columns = columns.view(g, b, groups, -1, columns.shape[-1]).permute(0, 2, 3, 1, 4)
    kernel = weight.reshape(g * groups, weight.shape[1] // groups, -1)
    out = torch.bmm(kernel, columns.reshape(g * groups, kernel.shape[2], -1))
    return out.view(g, weight.shape[1], b, -1).transpose(1, 2)


def conv_transpose2d_as_product(
    x: torch.Tensor, weight: torch.Tensor, groups: int, shape: Mapping[str, Size], size: tuple[int, ...]
) -> torch.Tensor:
    """Images (G, B, C, H, W) by weights (G, C, O / groups, *kernel), likewise; returns (G · B, O, *size)."""
    g, b, c, h, w = x.shape
    kernel = weight.reshape(g * groups, c // groups, -1)
    columns = _Columns.apply(kernel, x.transpose(1, 2).reshape(g * groups, c // groups, b * h * w))
    columns = columns.view(g, -1, b, h * w).transpose(1, 2).reshape(g * b, -1, h * w)
    return _Col2im.apply(columns, size, tuple(weight.shape[3:]), shape)


class _Columns(torch.autograd.Function):
    """Wᵀ x, with dW laid out as W is: autograd's own dW would come out transposed, and be copied before Adam."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, x)
        return torch.bmm(weight.mT, x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, x = ctx.saved_tensors  # type: ignore[attr-defined]
        need_weight, need_x = ctx.needs_input_grad  # type: ignore[attr-defined]
        return torch.bmm(x, grad.mT) if need_weight else None, torch.bmm(weight, grad) if need_x else None


def im2col(x: torch.Tensor, kernel: Size, shape: Mapping[str, Size]) -> torch.Tensor:
    """The patches of images (G, C, H, W) as columns (G, C · kernel, positions): F.unfold in few launches.

    On a CUDA device F.unfold launches a kernel for each image; here a view of all patches is copied. shape: stride,
    padding and dilation.
    """
    if not _on_gpu(x):
        return F.unfold(x, kernel, **shape)
    return patches(x, kernel, shape).flatten(4, 5).flatten(1, 3)


def patches(x: torch.Tensor, kernel: Size, shape: Mapping[str, Size]) -> torch.Tensor:
    """The patches as a view (G, C, *kernel, *positions) of the padded images."""
    (high, wide), (down, right), (steps, strides) = shape["padding"], shape["dilation"], shape["stride"]
    x = F.pad(x, (wide, wide, high, high)).contiguous()
    g, c, h, w = x.shape
    rows, columns = ((h - down * (kernel[0] - 1) - 1) // steps + 1, (w - right * (kernel[1] - 1) - 1) // strides + 1)
    return x.as_strided((g, c, *kernel, rows, columns), (c * h * w, h * w, down * w, right, steps * w, strides))


class _Im2col(torch.autograd.Function):
    """`im2col`; its backward is F.fold, which is one launch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kernel: Size, shape: Mapping[str, Size]) -> torch.Tensor:
        ctx.size, ctx.kernel, ctx.shape = tuple(x.shape[2:]), kernel, shape
        return im2col(x, kernel, shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return F.fold(grad, ctx.size, ctx.kernel, **ctx.shape), None, None


class _Col2im(torch.autograd.Function):
    """F.fold to images of `size`; its backward is `im2col`."""

    @staticmethod
    def forward(ctx: Any, columns: torch.Tensor, size: Size, kernel: Size, shape: Mapping[str, Size]) -> torch.Tensor:
        ctx.kernel, ctx.shape = kernel, shape
        return F.fold(columns, size, kernel, **shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return im2col(grad, ctx.kernel, ctx.shape), None, None, None


def _add_bias(out: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return out if bias is None else out + bias[:, None, :, None, None]


def _batch_norm(
    program: Program,
    layer: Layer,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    var: torch.Tensor,
) -> torch.Tensor:
    def channels(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(tensor.shape[0], 1, -1, *[1] * (x.dim() - 3))

    scale = torch.rsqrt(var + layer.attrs["eps"])
    out = (x - channels(mean)) * channels(scale if weight is None else scale * weight)
    return out if bias is None else out + channels(bias)


# -- the others ----------------------------------------------------------------------------------------------------


def _binary(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(program: Program, layer: Layer, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        value = program.values[layer.output]
        rank = len(value.shape) + value.batched
        first, second = (
            rearrange.aligned(x, rank, program.values[i].batched)
            for x, i in zip((a, b), layer.inputs, strict=True)
            if i is not None
        )
        return function(first, second, layer.attrs)

    return run


def _maximum(a: torch.Tensor, b: torch.Tensor, attrs: Mapping[str, Any]) -> torch.Tensor:
    if attrs["tie"] == 0.5:  # as PyTorch's own has it
        return torch.maximum(a, b)
    return torch.where((b > a) | b.isnan(), b, a)


def _matmul(program: Program, layer: Layer, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.matmul(a, b)


def _standardize(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    dims = rearrange.dims_of(program, layer, *layer.attrs["dims"])
    last = tuple(range(x.dim() - len(dims), x.dim()))
    if dims == last:  # as modules have it: one kernel, whose gradient cancels less
        return F.layer_norm(x, x.shape[-len(dims) :], eps=layer.attrs["eps"])
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + layer.attrs["eps"])


def _softmax(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, rearrange.dims_of(program, layer, layer.attrs["dim"])[0])


def _sum(program: Program, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return rearrange.reshape(program, layer, x.sum(rearrange.dims_of(program, layer, *layer.attrs["dims"])))


def _resample(
    program: Program, layer: Layer, x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    return torch.matmul(torch.matmul(rows[0], x), columns[0].mT)


def _prelu(program: Program, layer: Layer, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    slope = weight.reshape(weight.shape[0], 1, -1, *[1] * (x.dim() - 3))
    return torch.where(x > 0, x, slope * x)


# -- the table -----------------------------------------------------------------------------------------------------


def _activation(function: Callable[..., torch.Tensor], *names: str) -> Callable[..., torch.Tensor]:
    return lambda program, layer, x: function(x, *(layer.attrs[name] for name in names))


_RUN: dict[str, Callable[..., torch.Tensor]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "batch_norm": _batch_norm,
    "relu": _activation(torch.relu),
    "tanh": _activation(torch.tanh),
    "sigmoid": _activation(torch.sigmoid),
    "silu": _activation(F.silu),
    "sin": _activation(torch.sin),
    "leaky_relu": _activation(F.leaky_relu, "slope"),
    "elu": _activation(torch.ops.aten.elu.default, "alpha", "scale", "input_scale"),
    "softplus": _activation(F.softplus, "beta", "threshold"),
    "gelu": _activation(F.gelu),
    "gelu_tanh": _activation(partial(F.gelu, approximate="tanh")),
    "erf": _activation(torch.erf),
    "hardtanh": _activation(F.hardtanh, "low", "high"),
    "clamp": _activation(torch.clamp, "low", "high"),
    "pow": _activation(torch.pow, "exponent"),
    "exp": _activation(torch.exp),
    "log": _activation(torch.log),
    "abs": _activation(torch.abs),
    "prelu": _prelu,
    "scale_shift": _activation(lambda x, scale, shift: x * scale + shift, "scale", "shift"),
    "add": _binary(lambda a, b, attrs: torch.add(a, b, alpha=attrs["alpha"])),
    "mul": _binary(lambda a, b, attrs: a * b),
    "div": _binary(lambda a, b, attrs: a / b),
    "maximum": _binary(_maximum),
    "matmul": _matmul,
    "standardize": _standardize,
    "softmax": _softmax,
    "sum": _sum,
    "resample": _resample,
    "reshape": rearrange.reshape,
    "expand": rearrange.expand,
    "take": rearrange.take,
    "pad": rearrange.pad,
    "cat": rearrange.cat,
    "permute": rearrange.permute,
    "upsample_nearest": rearrange.upsample_nearest,
    "pixel_shuffle": rearrange.pixel_shuffle,
    "stop": _activation(torch.detach),
}


def widest(program: Program) -> int:
    """Numbers in the largest temporary of one sample: an activation, or the columns of a convolution."""
    most = max((math.prod(value.shape) for value in program.values if value.batched), default=0)
    for layer in program.layers:
        if layer.op in ("conv2d", "conv_transpose2d"):
            x, weight = (program.values[i].shape for i in layer.inputs[:2] if i is not None)
            output = program.values[layer.output].shape
            taps = math.prod(weight[2:])
            inner, positions = (x[0], output[1:]) if layer.op == "conv2d" else (output[0], x[1:])
            most = max(most, inner * taps * math.prod(positions))
    return most
