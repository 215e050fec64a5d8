"""The layers of a program that the Triton kernels run with private weights, and the program that is left.

`lift` takes maps (linear, conv2d, conv_transpose2d) out of a program, each with the bias, batch norm and activation
that follow it, and puts one layer "private" in place of such a chain; thin.py and batched.py run the others.
`PrivateLayer` runs a chain: by a `PrivateMap`, which does the map's Adam steps as well; at step 1 densely, since all
pairs still share θ₀.

Which maps are lifted: those of a batched input whose weight is a parameter that nothing else reads (not tied, not
computed from others, not a constant), with at least LEAST_OUTPUTS output channels in a group, which is what a matrix
instruction takes, and LEAST_WEIGHTS weights, below which one Adam launch for all the small parameters costs less than
launches of the map's own. Neither number has been tuned on a GPU.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ...generator.layers import LINEAR_MAPS
from ...generator.program import Layer, Program
from ...kernels.epilogue import ACTIVATIONS, Affine, affine_act, affine_act_grad
from ...kernels.maps.general import Maps
from ...kernels.maps.geometry import Geometry
from ...kernels.maps.private import AdamConstants, PrivateMap
from ...kernels.maps.vector import VectorMap

LEAST_OUTPUTS = 8
LEAST_WEIGHTS = 4096
FUSED = tuple(name for name in ACTIVATIONS if name != "none")
"""Activations of kernels/epilogue.py."""


GEOMETRIES: Mapping[str, Callable[[Layer, tuple[int, ...], tuple[int, ...]], Geometry]] = {
    "linear": lambda layer, x, w: Geometry.linear(math.prod(x[:-1]), w[1], w[0]),
    "conv2d": lambda layer, x, w: Geometry.conv2d((x[1], x[2]), x[0], w[0], (w[2], w[3]), **layer.attrs),
    "conv_transpose2d": lambda layer, x, w: Geometry.conv_transpose2d(
        (x[1], x[2]), x[0], w[1] * layer.attrs["groups"], (w[2], w[3]), **layer.attrs
    ),
}
"""By linear map: its geometry, from the layer and the shapes of one sample of its input and of its weight."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """A map and what is fused with it.

    Attributes:
        map: the layer whose weight is private.
        parameter: index of that weight in `Program.parameters`.
        in_shape, out_shape: of one sample, before and after the map.
        geometry: the map as the kernels know it.
        norm, act: the batch norm and the activation that follow, or None.
    """

    map: Layer
    parameter: int
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    geometry: Geometry
    norm: Layer | None
    act: Layer | None

    @property
    def layers(self) -> list[Layer]:
        """In order."""
        return [layer for layer in (self.map, self.norm, self.act) if layer is not None]


def lift(program: Program) -> tuple[Program, tuple[Chain, ...]]:
    """The chains of a program, and the program with layers "private" in their place.

    Such a layer has attrs {"chain": its index}, and inputs x, the map's bias, and weight, bias, mean, var of the norm.
    """
    readers = Counter(i for layer in program.layers for i in layer.inputs if i is not None)
    readers[program.output] += 1
    following = {i: layer for layer in program.layers for i in layer.inputs if i is not None}
    chains: list[Chain] = []
    replaced: dict[int, Layer] = {}
    for layer in program.layers:
        if not _lifted(program, layer, readers):
            continue
        chain = _chain(program, layer, readers, following)
        x, _, bias = layer.inputs
        norm = (None,) * 4 if chain.norm is None else chain.norm.inputs[1:]
        last = chain.layers[-1]
        replaced[last.output] = Layer("private", (x, bias, *norm), last.output, {"chain": len(chains)}, layer.name)
        chains.append(chain)
    gone = {layer.output for chain in chains for layer in chain.layers} - replaced.keys()
    layers = [replaced.get(layer.output, layer) for layer in program.layers if layer.output not in gone]
    return dataclasses.replace(program, layers=tuple(layers)), tuple(chains)


def _lifted(program: Program, layer: Layer, readers: Counter[int]) -> bool:
    if layer.op not in LINEAR_MAPS:
        return False
    x, weight = layer.inputs[:2]
    assert x is not None and weight is not None
    value, groups = program.values[weight], layer.attrs.get("groups", 1)
    outputs = value.shape[1] if layer.op == "conv_transpose2d" else value.shape[0] // groups
    alone = value.kind == "parameter" and readers[weight] == 1
    large = outputs >= LEAST_OUTPUTS and math.prod(value.shape) >= LEAST_WEIGHTS
    return program.values[x].batched and alone and large


def _chain(program: Program, layer: Layer, readers: Counter[int], following: dict[int, Layer]) -> Chain:
    x, weight = (program.values[i] for i in layer.inputs[:2] if i is not None)
    out_shape = program.values[layer.output].shape

    def next_of(last: Layer) -> Layer | None:
        """The layer that alone reads what `last` makes, and nothing else of it."""
        return following.get(last.output) if readers[last.output] == 1 else None

    norm = next_of(layer)
    channels_last = layer.op != "linear" or len(out_shape) == 1  # batch norm's channels are the first dimension
    if norm is None or norm.op != "batch_norm" or not channels_last or not _constant(program, norm.inputs[3:]):
        norm = None
    act = next_of(norm or layer)
    if act is None or act.op not in FUSED:
        act = None
    return Chain(layer, weight.index, x.shape, out_shape, GEOMETRIES[layer.op](layer, x.shape, weight.shape), norm, act)


def _constant(program: Program, inputs: tuple[int | None, ...]) -> bool:
    return all(i is not None and program.values[i].kind == "constant" for i in inputs)


def private_map(geometry: Geometry) -> type[PrivateMap]:
    """The kernels for a map: with one input position the gradient is of rank one, and has its own."""
    return VectorMap if geometry.in_positions == 1 and geometry.groups == 1 else Maps


def _logical(rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(G, P, C) to (G, C, H, W), shape (C, H, W): a view, channels last in memory."""
    return rows.view(len(rows), shape[1], shape[2], shape[0]).permute(0, 3, 1, 2)


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """(G, C, H, W) to (G, P, C): a view, contiguous where x is channels last in memory."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, x.shape[1])


class PrivateLayer:
    """A chain with weights of its own for each of G pairs, over the steps of a search."""

    def __init__(self, chain: Chain, program: Program, pairs: int, steps: int, adam: AdamConstants, precision: str):
        theta = program.parameters[chain.parameter].detach().contiguous()
        self.chain = chain
        self.private = private_map(chain.geometry)(
            chain.geometry, theta, pairs=pairs, steps=steps, adam=adam, precision=precision, device=theta.device
        )
        channels = chain.geometry.groups * chain.geometry.outputs
        self._ones, self._zeros = theta.new_ones(1, channels), theta.new_zeros(1, channels)
        self._mean, self._inverse = self._zeros[0], self._ones[0]
        if chain.norm is not None:
            mean, var = (program.constants[program.values[i].index] for i in chain.norm.inputs[3:] if i is not None)
            self._mean = mean.to(theta.dtype).contiguous()
            self._inverse = torch.rsqrt(var.to(theta.dtype) + chain.norm.attrs["eps"])

    def run(
        self,
        step: int,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        weight: torch.Tensor | None,
        shift: torch.Tensor | None,
        *statistics: torch.Tensor | None,
    ) -> torch.Tensor:
        """The chain of `step` 1..k + 1: (G, 1, *in_shape) to (G, 1, *out_shape); see `lift` for the inputs."""
        chain = self.chain
        linear = chain.map.op == "linear"
        rows = x.reshape(len(x), -1, x.shape[-1]) if linear else rows_of(x.squeeze(1))
        out = _Map.apply(rows, self, step)
        if chain.act is not None or chain.norm is not None or bias is not None:
            scale = self._ones if weight is None else weight
            if shift is None:
                shift = self._zeros
            if bias is not None:  # with a norm, (y + bias − mean) · inverse · scale
                shift = shift + bias * (scale * self._inverse) if chain.norm is not None else bias
            act, slope = ("none", 0.0) if chain.act is None else (chain.act.op, chain.act.attrs.get("slope", 0.0))
            out = _Epilogue.apply(out, scale, shift, self._mean, self._inverse, act, slope)
        shape = chain.out_shape
        return (out.reshape(len(out), *shape) if linear else _logical(out, shape)).unsqueeze(1)


class _Map(torch.autograd.Function):
    """A map of pairs. Backward keeps what the weights' update needs, and gives the gradient of the input."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: PrivateLayer, step: int) -> torch.Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        ctx.layer, ctx.step = layer, step
        return layer.private.shared_forward(x) if step == 1 else layer.private.forward(x, step)

    @staticmethod
    def backward(ctx: Any, gy: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,), private, step = ctx.saved_tensors, ctx.layer.private, ctx.step
        gy = gy.contiguous()
        private.keep(step, x, gy)
        return private.shared_input_grad(gy) if step == 1 else private.input_grad(gy, step), None, None


class _Epilogue(torch.autograd.Function):
    """kernels/epilogue.py; scale and shift are (G, C), or (1, C) without a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        y: torch.Tensor,
        scale: torch.Tensor,
        shift: torch.Tensor,
        mean: torch.Tensor,
        inverse: torch.Tensor,
        act: str,
        slope: float,
    ) -> torch.Tensor:
        y = y.contiguous()
        affine = Affine(mean, inverse, _once(scale), _once(shift))
        ctx.save_for_backward(y, *affine)
        ctx.act, ctx.slope = act, slope
        return affine_act(y, affine, act, slope)

    @staticmethod
    def backward(ctx: Any, ga: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        y, *affine = ctx.saved_tensors
        gy, gscale, gshift = affine_act_grad(ga.contiguous(), y, Affine(*affine), ctx.act, ctx.slope)
        _, scaled, shifted, *_ = ctx.needs_input_grad
        return gy, gscale if scaled else None, gshift if shifted else None, None, None, None, None


def _once(rows: torch.Tensor) -> torch.Tensor:
    """(G, C), or (1, C) where all rows are one and the same."""
    return rows[:1] if rows.stride(0) == 0 else rows.contiguous()
