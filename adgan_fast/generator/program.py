"""Program: a generator as a short list of layers, for engines that run layers and not modules.

``lower`` captures a module by ``torch.export`` at batch 1 (Algorithm 1 never mixes the images of a batch) and turns
each ATen node into a `Layer`. The table of ATen ops is in rules.py. What the table does not hold raises
`Unlowered`, naming the layer and the op.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch

Kind = Literal["latent", "activation", "parameter", "constant", "weight"]


class Unlowered(Exception):
    """A generator, layer or op that cannot become a Program; the message names it."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the program.

    Attributes:
        kind: ``latent`` and ``activation`` have one row for each sample; ``parameter`` is learned privately by each
            pair; ``constant`` is a buffer or literal; ``weight`` is computed from parameters (and constants) alone.
        shape: of one sample for latent and activation (no batch dimension), whole for the others.
        index: into `Program.parameters` or `Program.constants` for those kinds, else -1.
    """

    kind: Kind
    shape: tuple[int, ...]
    index: int = -1

    @property
    def batched(self) -> bool:
        """Whether there is one row for each sample."""
        return self.kind in ("latent", "activation")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One step of the program: ``values[output] = op(values[inputs])``.

    op, its inputs (value ids; None where absent) and attrs:

    ==================  ==============================  ====================================================
    linear              x, weight (out, in), bias       on the last dimension of x
    conv2d              x, weight, bias                 stride, padding, dilation: (h, w); groups
    conv_transpose2d    x, weight, bias                 the same and output_padding (h, w)
    batch_norm          x, weight, bias, mean, var      eps; by running statistics, channels are x's first dim
    relu tanh sigmoid   x
    silu
    leaky_relu          x                               slope
    elu                 x                               alpha, scale, input_scale
    softplus            x                               beta, threshold
    scale_shift         x                               scale, shift: scale · x + shift
    add                 a, b                            alpha: a + alpha · b
    mul, div            a, b                            elementwise, broadcast
    reshape             x                               (the output's shape)
    permute             x                               dims, of one sample where x is batched
    upsample_nearest    x                               scale (h, w), whole numbers
    pixel_shuffle       x                               factor
    ==================  ==============================  ====================================================

    An operand of add, mul, div that is not batched broadcasts as (1, *shape of a sample) does.
    `name` is the layer's path in the generator, for messages.
    """

    op: str
    inputs: tuple[int | None, ...]
    output: int
    attrs: dict[str, Any]
    name: str


@dataclasses.dataclass(frozen=True)
class Program:
    """A generator as data.

    Attributes:
        values: every tensor, by id; values[latent] is the input.
        layers: in order of execution; only those the output depends on.
        parameters: distinct parameters in use (a tied one once), as the module holds them: not to be written.
        names: their names in the module.
        constants: buffers and literals in use.
        latent, output: value ids; the output's shape is (C, H, W).
    """

    values: tuple[Value, ...]
    layers: tuple[Layer, ...]
    parameters: tuple[torch.Tensor, ...]
    names: tuple[str, ...]
    constants: tuple[torch.Tensor, ...]
    latent: int
    output: int

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.values[self.latent].shape

    @property
    def image_shape(self) -> tuple[int, int, int]:
        c, h, w = self.values[self.output].shape
        return c, h, w

    @property
    def parameter_count(self) -> int:
        """Numbers that one pair learns, beside its latent."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def activation_count(self) -> int:
        """Numbers in all activations of one sample."""
        return sum(math.prod(self.values[layer.output].shape) for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass of one sample."""
        return sum(self._multiply_adds(layer) for layer in self.layers)

    def _multiply_adds(self, layer: Layer) -> int:
        if layer.op not in ("linear", "conv2d", "conv_transpose2d"):
            return 0
        x, weight = (self.values[i].shape for i in layer.inputs[:2] if i is not None)
        output = self.values[layer.output].shape
        positions = {"linear": output[:-1], "conv2d": output[1:], "conv_transpose2d": x[1:]}[layer.op]
        return math.prod(weight) * math.prod(positions)
