"""The DCGAN generator and critic (Radford et al. 2016), the architecture of the paper's experiments (Sect. 4.2)."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import nn

from ..given import whole

# Side lengths from the first feature map to the picture. Each step is one strided convolution.
_SIDES: dict[int, tuple[int, ...]] = {
    8: (2, 4, 8),
    16: (4, 8, 16),
    28: (4, 7, 14, 28),
    32: (4, 8, 16, 32),
    64: (4, 8, 16, 32, 64),
}
IMAGE_SIZES = tuple(_SIDES)
NORMS = ("batch", "layer", "none")

_INIT_STD = 0.02  # Radford et al. 2016, Sect. 4


class DCGANGenerator(nn.Module):
    """Latents (B, latent) to images (B, channels, image_size, image_size) in [-1, 1].

    Transposed convolutions with batch norm and ReLU between them and tanh at the end; the map nearest the image has
    ``width`` channels, and each one before it twice as many. No convolution has a bias: batch norm would cancel it,
    and DCGAN's last layer has none either. Weights are drawn from N(0, 0.02), batch norm's from N(1, 0.02).

    Args:
        image_size: 8, 16, 28, 32 or 64.
        channels: of the image, at least 1.
        latent: length of the latent (paper, Sect. 4.2: 256).
        width: channels of the last hidden map.
        generator: what the initial weights are drawn from; torch's global generator when None. With one given, the
            global generator is left as it was.

    Raises:
        ValueError: an argument out of range, naming it; at the call, latents that are not (B, latent).
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        latent: int = 256,
        width: int = 64,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        image_size, channels = _side(image_size), whole("channels", channels, 1)
        latent, width = whole("latent", latent, 1), whole("width", width, 1)
        self.image_size, self.channels, self.latent, self.width = image_size, channels, latent, width
        sides = _SIDES[image_size]
        maps = [latent, *(width * 2**power for power in reversed(range(len(sides) - 1))), channels]
        layers: list[nn.Module] = [_conv(nn.ConvTranspose2d, maps[0], maps[1], {"kernel_size": sides[0]})]
        for index in range(1, len(sides)):
            layers += [nn.BatchNorm2d(maps[index]), nn.ReLU()]
            step = _step(sides[index - 1], sides[index])
            layers.append(_conv(nn.ConvTranspose2d, maps[index], maps[index + 1], step))
        layers.append(nn.Tanh())
        self.layers = nn.Sequential(*layers)
        _initialise(self, generator)

    @property
    def config(self) -> dict[str, Any]:
        """Kind and arguments: what ``adgan_fast.models.build`` needs to build this architecture again."""
        return {
            "kind": "DCGANGenerator",
            "image_size": self.image_size,
            "channels": self.channels,
            "latent": self.latent,
            "width": self.width,
        }

    @property
    def latent_shape(self) -> tuple[int]:
        """Shape of one latent: (latent,)."""
        return (self.latent,)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Latents (B, latent) to images (B, channels, image_size, image_size) in [-1, 1]."""
        if z.dim() != 2 or z.shape[1] != self.latent:
            raise ValueError(f"latents must have shape (B, {self.latent}), got {tuple(z.shape)}")
        return self.layers(z.reshape(-1, self.latent, 1, 1))


class DCGANCritic(nn.Module):
    """Images (B, channels, image_size, image_size) to one real number each, (B,): the generator's mirror image.

    Strided convolutions with LeakyReLU(0.2), a normalisation on all but the first, and no sigmoid at the end.

    Args:
        image_size: 8, 16, 28, 32 or 64.
        channels: of the image, at least 1.
        width: channels of the first hidden map.
        norm: ``"batch"`` as in DCGAN and in the WGAN with weight clipping; ``"layer"`` or ``"none"`` under a gradient
            penalty, which is defined for each image by itself, while batch norm mixes the images of a batch
            (Gulrajani et al. 2017, Sect. 4).
        generator: what the initial weights are drawn from; torch's global generator when None.

    Raises:
        ValueError: an argument out of range, naming it; at the call, images of another shape.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        width: int = 64,
        norm: str = "batch",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        image_size, channels, width = _side(image_size), whole("channels", channels, 1), whole("width", width, 1)
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(map(repr, NORMS))}, got {norm!r}")
        self.image_size, self.channels, self.width, self.norm = image_size, channels, width, norm
        sides = _SIDES[image_size][::-1]
        maps = [channels, *(width * 2**power for power in range(len(sides) - 1)), 1]
        layers: list[nn.Module] = []
        for index in range(len(sides) - 1):
            normalised = norm != "none" and index > 0
            step = _step(sides[index + 1], sides[index])
            layers.append(_conv(nn.Conv2d, maps[index], maps[index + 1], step, bias=not normalised))
            if normalised:
                size = maps[index + 1]
                layers.append(nn.BatchNorm2d(size) if norm == "batch" else nn.GroupNorm(1, size))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(_conv(nn.Conv2d, maps[-2], 1, {"kernel_size": sides[-1]}))
        self.layers = nn.Sequential(*layers)
        _initialise(self, generator)

    @property
    def config(self) -> dict[str, Any]:
        """Kind and arguments: what ``adgan_fast.models.build`` needs to build this architecture again."""
        return {
            "kind": "DCGANCritic",
            "image_size": self.image_size,
            "channels": self.channels,
            "width": self.width,
            "norm": self.norm,
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, channels, image_size, image_size) to (B,)."""
        shape = (self.channels, self.image_size, self.image_size)
        if x.dim() != 4 or tuple(x.shape[1:]) != shape:
            raise ValueError(f"images must have shape (B, {', '.join(map(str, shape))}), got {tuple(x.shape)}")
        return self.layers(x).reshape(-1)


def _side(image_size: Any) -> int:
    if not isinstance(image_size, numbers.Integral) or image_size not in _SIDES:
        raise ValueError(f"image_size must be one of {', '.join(map(str, IMAGE_SIZES))}, got {image_size!r}")
    return int(image_size)


def _step(small: int, large: int) -> dict[str, int]:
    """Of the (transposed) convolution between two side lengths: kernel 4 from n to 2n, kernel 3 from n to 2n - 1."""
    return {"kernel_size": 4 if large == 2 * small else 3, "stride": 2, "padding": 1}


def _conv(kind: type[nn.Module], inputs: int, outputs: int, step: dict[str, int], *, bias: bool = False) -> nn.Module:
    # skip_init: torch's own initialisation, which _initialise replaces, would draw from the global random state. It
    # takes the CPU where no device is named; the layers made without it take the default one.
    return nn.utils.skip_init(kind, inputs, outputs, bias=bias, device=torch.get_default_device(), **step)


def _initialise(model: nn.Module, generator: torch.Generator | None) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, _INIT_STD, generator=generator)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.normal_(module.weight, 1.0, _INIT_STD, generator=generator)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
