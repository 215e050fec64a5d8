"""Programs written layer by layer, and the same in plain PyTorch for one sample, of which autograd makes the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from adgan_fast.generator.layers import LAYERS, check_layer
from adgan_fast.generator.program import Kind, Layer, Program, Value

Shape = tuple[int, ...]


class Net:
    """A program in the making. Methods give the ids of values."""

    def __init__(self, *latent: int, seed: int = 0):
        self.values = [Value("latent", latent)]
        self.layers: list[Layer] = []
        self.parameters: list[torch.Tensor] = []
        self.constants: list[torch.Tensor] = []
        self.random = torch.Generator().manual_seed(seed)

    latent = 0

    def shape(self, x: int) -> Shape:
        return self.values[x].shape

    def normal(self, *shape: int, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
        return mean + std * torch.randn(shape, generator=self.random)

    def parameter(self, value: torch.Tensor) -> int:
        return self._stored("parameter", self.parameters, value)

    def constant(self, value: torch.Tensor) -> int:
        return self._stored("constant", self.constants, value)

    def _stored(self, kind: Kind, tensors: list[torch.Tensor], value: torch.Tensor) -> int:
        tensors.append(value)
        self.values.append(Value(kind, tuple(value.shape), len(tensors) - 1))
        return len(self.values) - 1

    def add(self, op: str, inputs: int | Sequence[int | None], shape: Sequence[int], **attrs: Any) -> int:
        """A layer whose output has this shape: of a sample, or whole where no input has a row for each sample."""
        inputs = (inputs,) if isinstance(inputs, int) else tuple(inputs)
        check_layer(op, inputs, attrs)
        batched = op == "expand" or any(self.values[i].batched for i in inputs if i is not None)
        self.values.append(Value("activation" if batched else "weight", tuple(shape)))
        self.layers.append(Layer(op, inputs, len(self.values) - 1, attrs, f"{len(self.layers)}"))
        return len(self.values) - 1

    def same(self, op: str, x: int, **attrs: Any) -> int:
        """A layer whose output has the shape of its input."""
        return self.add(op, x, self.shape(x), **attrs)

    def times_parameter(self, x: int) -> int:
        """x by a learned number for each element."""
        return self.add("mul", (x, self.parameter(self.normal(1, *self.shape(x), mean=1.0, std=0.2))), self.shape(x))

    def program(self, output: int) -> Program:
        """Ending in a value, as an image of one channel or of three where that is its shape."""
        shape = self.shape(output)
        if len(shape) != 3 or self.values[output].kind != "activation":
            output = self.add("reshape", output, (1, 1, math.prod(shape)))
        names = tuple(f"p{i}" for i in range(len(self.parameters)))
        return Program(
            tuple(self.values), tuple(self.layers), tuple(self.parameters), names, tuple(self.constants), 0, output
        )


def reconstruction(
    program: Program, z: torch.Tensor, parameters: Sequence[torch.Tensor], constants: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Of one latent, layer by layer."""
    values: dict[int, torch.Tensor] = {program.latent: z}
    for i, value in enumerate(program.values):
        if value.kind in ("parameter", "constant"):
            values[i] = (parameters if value.kind == "parameter" else constants)[value.index]
    for layer in program.layers:
        shape = program.values[layer.output].shape
        inputs = [values[i] for i in layer.inputs if i is not None]
        values[layer.output] = _RUN[layer.op](shape, *inputs, **layer.attrs).reshape(shape)
    return values[program.output]


def _standardize(shape: Shape, x: torch.Tensor, dims: Shape, eps: float) -> torch.Tensor:
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


def _expand(shape: Shape, x: torch.Tensor) -> torch.Tensor:
    return x.expand(shape if x.dim() <= len(shape) else (1, *shape))


def _pad(shape: Shape, x: torch.Tensor, before: Shape, after: Shape, value: float) -> torch.Tensor:
    around = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return F.pad(x, around, value=value)


def _conv(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda shape, x, weight, **attrs: function(x.unsqueeze(0), weight, **attrs)


_RUN: dict[str, Callable[..., torch.Tensor]] = {
    "linear": lambda shape, x, weight: x @ weight.mT,
    "conv2d": _conv(F.conv2d),
    "conv_transpose2d": _conv(F.conv_transpose2d),
    "relu": lambda shape, x: torch.relu(x),
    "tanh": lambda shape, x: torch.tanh(x),
    "gelu": lambda shape, x: F.gelu(x),
    "gelu_tanh": lambda shape, x: F.gelu(x, approximate="tanh"),
    "hardtanh": lambda shape, x, low, high: F.hardtanh(x, low, high),
    "clamp": lambda shape, x, low, high: torch.clamp(x, low, high),
    "pow": lambda shape, x, exponent: torch.pow(x, exponent),
    "exp": lambda shape, x: torch.exp(x),
    "log": lambda shape, x: torch.log(x),
    "abs": lambda shape, x: torch.abs(x),
    "prelu": lambda shape, x, weight: F.prelu(x.unsqueeze(0), weight),
    "scale_shift": lambda shape, x, scale, shift: scale * x + shift,
    "add": lambda shape, a, b, alpha: a + alpha * b,
    "mul": lambda shape, a, b: a * b,
    "div": lambda shape, a, b: a / b,
    "matmul": lambda shape, a, b: torch.matmul(a, b),
    "standardize": _standardize,
    "softmax": lambda shape, x, dim: torch.softmax(x, dim),
    "sum": lambda shape, x, dims: x.sum(dims) if dims else x,
    "resample": lambda shape, x, rows, columns: rows @ x @ columns.mT,
    "reshape": lambda shape, x: x.reshape(shape),
    "expand": _expand,
    "take": lambda shape, x, dim, index: x.index_select(dim, torch.tensor(index)),
    "pad": _pad,
    "cat": lambda shape, a, b, dim: torch.cat((a, b), dim),
    "permute": lambda shape, x, dims: x.permute(dims),
}
assert set(_RUN) <= set(LAYERS)
