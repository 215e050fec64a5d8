"""What the networks share: how one is built again; the sides of maps, convolutions, and how weights begin."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..window_settings import Windows

# Side lengths from the first feature map to the picture. Each step is one strided convolution.
SIDES: dict[int, tuple[int, ...]] = {
    8: (2, 4, 8),
    16: (4, 8, 16),
    28: (4, 7, 14, 28),
    32: (4, 8, 16, 32),
    64: (4, 8, 16, 32, 64),
}
IMAGE_SIZES = tuple(SIDES)
NORMS = ("batch", "layer", "none")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "leaky_relu": lambda: nn.LeakyReLU(0.2)}

_INIT_STD = 0.02  # Radford et al. 2016, Sect. 4


class Model(nn.Module):
    """A network that `adgan_fast.models.build` can build again: its positional arguments are attributes, by name.

    Attributes:
        windows: how images were cut into those that it was trained on; None where they were taken whole.
    """

    windows: Windows | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Kind and arguments: what ``adgan_fast.models.build`` needs to build this architecture again."""
        kind = next(each for each in type(self).__mro__ if Model in each.__bases__)  # `build` knows no subclass of it
        parameters = inspect.signature(kind).parameters.values()
        names = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        return {"kind": kind.__name__} | {name: getattr(self, name) for name in names}


def side(image_size: Any) -> int:
    """`image_size` as an int; ValueError where it is none of IMAGE_SIZES."""
    if not isinstance(image_size, numbers.Integral) or image_size not in SIDES:
        raise ValueError(f"image_size must be one of {', '.join(map(str, IMAGE_SIZES))}, got {image_size!r}")
    return int(image_size)


def step(small: int, large: int) -> dict[str, int]:
    """Of the (transposed) convolution between two side lengths: kernel 4 from n to 2n, kernel 3 from n to 2n - 1."""
    return {"kernel_size": 4 if large == 2 * small else 3, "stride": 2, "padding": 1}


def conv(kind: type[nn.Module], inputs: int, outputs: int, step: dict[str, int], *, bias: bool = False) -> nn.Module:
    """A layer of `kind` from `inputs` to `outputs` channels, without values: `initialise` gives them."""
    # skip_init: torch's own initialisation, which initialise replaces, would draw from the global random state. It
    # takes the CPU where no device is named; the layers made without it take the default one.
    return nn.utils.skip_init(kind, inputs, outputs, bias=bias, device=torch.get_default_device(), **step)


def strided(
    image_size: int, channels: int, width: int, norm: str, activation: str, *, first: bool, bias: bool = True
) -> tuple[list[nn.Module], int]:
    """Layers from images to their smallest map, which halve the side again and again; and the channels of that map.

    A map of `width` channels comes first, and each one after it has twice as many. `norm` is one of NORMS, and the
    first map has it only if `first`; `activation` one of ACTIVATIONS. Without `bias` no convolution adds a number, and
    no norm adds or scales by one.
    """
    sides = SIDES[image_size][::-1]
    maps = [channels, *(width * 2**power for power in range(len(sides) - 1))]
    layers: list[nn.Module] = []
    for index in range(len(sides) - 1):
        size, normalised = maps[index + 1], norm != "none" and (first or index > 0)
        down = step(sides[index + 1], sides[index])
        layers.append(conv(nn.Conv2d, maps[index], size, down, bias=bias and not normalised))
        if normalised:
            layers.append(nn.BatchNorm2d(size, affine=bias) if norm == "batch" else nn.GroupNorm(1, size, affine=bias))
        layers.append(ACTIVATIONS[activation]())
    return layers, maps[-1]


def initialise(model: nn.Module, generator: torch.Generator | None) -> None:
    """Draws every weight: of convolutions from N(0, 0.02), of norms from N(1, 0.02); biases are 0.

    Those of linear layers, which no norm follows, are from N(0, 1/√inputs): the output is then as large as the input.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, _INIT_STD, generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, module.in_features**-0.5, generator=generator)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)) and module.weight is not None:
            nn.init.normal_(module.weight, 1.0, _INIT_STD, generator=generator)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def require_images(x: torch.Tensor, channels: int, image_size: int) -> None:
    """ValueError where `x` is not (B, channels, image_size, image_size)."""
    shape = (channels, image_size, image_size)
    if x.dim() != 4 or tuple(x.shape[1:]) != shape:
        raise ValueError(f"images must have shape (B, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
