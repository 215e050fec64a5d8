"""Program: a generator as a short list of layers, for engines that run layers and not modules.

``lower`` captures a module by ``torch.export`` at batch 1 (Algorithm 1 never mixes the images of a batch) and turns
each ATen node into a `Layer`. The table of ATen ops is in rules/. What the table does not hold raises
`Unlowered`, naming the layer and the op.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from .layers import LINEAR_MAPS

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

    Attributes:
        op: the name of its row in layers.LAYERS, which says what the others hold.
        inputs: value ids; None where absent.
        output: value id.
        attrs: by name.
        name: the layer's path in the generator, for messages.
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
        if layer.op not in LINEAR_MAPS:
            return 0
        x, weight = (self.values[i].shape for i in layer.inputs[:2] if i is not None)
        output = self.values[layer.output].shape
        return math.prod(weight) * math.prod(POSITIONS[layer.op](x, output))


POSITIONS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], tuple[int, ...]]] = {
    "linear": lambda x, output: output[:-1],
    "conv2d": lambda x, output: output[1:],
    "conv_transpose2d": lambda x, output: x[1:],
}
"""Of a linear map, by the shapes of its input and output: the positions at each of which every weight is used once."""
