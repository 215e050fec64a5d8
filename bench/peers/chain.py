"""A DCGAN-like generator read as a chain of layers, for the peers that write the layers out by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from adgan_fast.config import SearchConfig


@dataclasses.dataclass(frozen=True)
class ConvTranspose:
    """Transposed convolution: weight (Cin, Cout, kh, kw), bias (Cout,) or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        kernel = self.weight.shape[2:]
        high, wide = (
            (side - 1) * self.stride[i] - 2 * self.padding[i] + kernel[i] + self.output_padding[i]
            for i, side in enumerate((height, width))
        )
        return high, wide


@dataclasses.dataclass(frozen=True)
class Norm:
    """Batch norm in eval mode: weight and bias (C,) learnt, mean and variance (C,) frozen."""

    weight: torch.Tensor
    bias: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor
    eps: float


@dataclasses.dataclass(frozen=True)
class Activation:
    """``"relu"`` (with a slope below zero, 0 for the plain one), ``"tanh"`` or ``"sigmoid"``."""

    name: str
    slope: float = 0.0


ChainLayer = ConvTranspose | Norm | Activation
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Unflatten)


def read_chain(gen: nn.Module) -> list[ChainLayer]:
    """The layers of `gen` in the order of ``modules()``; ValueError names a layer that the chain has no word for."""
    layers: list[ChainLayer] = []
    for name, module in gen.named_modules():
        if next(module.children(), None) is not None or isinstance(module, _TRANSPARENT):
            continue
        if isinstance(module, nn.ConvTranspose2d):
            if module.groups != 1 or module.dilation != (1, 1):
                raise ValueError(f"layer {name!r} has groups or dilation")
            layers.append(
                ConvTranspose(
                    module.weight.detach(),
                    None if module.bias is None else module.bias.detach(),
                    _pair(module.stride),
                    _pair(module.padding),
                    _pair(module.output_padding),
                )
            )
        elif isinstance(module, nn.BatchNorm2d):
            if not module.affine or module.running_mean is None or module.running_var is None:
                raise ValueError(f"layer {name!r} has no weight, bias or running statistics")
            layers.append(
                Norm(module.weight.detach(), module.bias.detach(), module.running_mean, module.running_var, module.eps)
            )
        elif isinstance(module, nn.ReLU):
            layers.append(Activation("relu"))
        elif isinstance(module, nn.LeakyReLU):
            layers.append(Activation("relu", module.negative_slope))
        elif isinstance(module, nn.Tanh):
            layers.append(Activation("tanh"))
        elif isinstance(module, nn.Sigmoid):
            layers.append(Activation("sigmoid"))
        else:
            raise ValueError(f"layer {name!r} is a {type(module).__name__}")
    return layers


def parameters(layers: Sequence[ChainLayer]) -> list[torch.Tensor]:
    """Every learnt tensor of the chain, in order: weight, then bias where there is one."""
    found: list[torch.Tensor] = []
    for layer in layers:
        if not isinstance(layer, Activation):
            found.append(layer.weight)
            if layer.bias is not None:
                found.append(layer.bias)
    return found


def refuse(gen: nn.Module, config: SearchConfig, starts: torch.Tensor) -> str | None:
    """Why `gen` is not such a chain; None where it is one (its output at `starts` is compared)."""
    try:
        layers = read_chain(gen)
    except ValueError as error:
        return f"DCGAN family alone (transposed convolution, batch norm, activation): {error}"
    if sum(p.numel() for p in parameters(layers)) != sum(p.numel() for p in gen.parameters()):
        return "DCGAN family alone: the generator has parameters outside of these layers, or shares some"
    first = layers[0]
    if not isinstance(first, ConvTranspose) or first.weight.shape[0] != starts[0].numel():
        return "DCGAN family alone: the first layer must be a transposed convolution of the latent, as 1 x 1 pixels"
    with torch.no_grad():
        z = starts[:2]
        if not torch.allclose(_forward(layers, z), gen(z), rtol=1e-4, atol=1e-5):
            return "DCGAN family alone: the generator does more than its layers in their order"
    return None


def lay_out(x: torch.Tensor, z: torch.Tensor, learn: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """x (G, C, H, W) and z (G, R, *latent) as (G, 1, C, H, W) and (G, R, L); with frozen weights all groups are one
    group of G·R rows, (1, G·R, C, H, W) and (1, G·R, L), since one copy of the weights serves them all."""
    z = z.flatten(2)
    if learn:
        return x.unsqueeze(1), z
    return x.repeat_interleave(z.shape[1], 0).unsqueeze(0), z.flatten(0, 1).unsqueeze(0)


def _forward(layers: Sequence[ChainLayer], z: torch.Tensor) -> torch.Tensor:
    x = z.reshape(len(z), -1, 1, 1)
    for layer in layers:
        if isinstance(layer, ConvTranspose):
            x = F.conv_transpose2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.output_padding)
        elif isinstance(layer, Norm):
            x = F.batch_norm(x, layer.mean, layer.variance, layer.weight, layer.bias, eps=layer.eps)
        else:
            x = activate(layer, x)
    return x


def activate(layer: Activation, x: torch.Tensor) -> torch.Tensor:
    if layer.name == "relu":
        return F.leaky_relu(x, layer.slope) if layer.slope else F.relu(x)
    return torch.tanh(x) if layer.name == "tanh" else torch.sigmoid(x)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
