"""The DCGAN generator and critic (Radford et al. 2016), the architecture of the paper's experiments (Sect. 4.2)."""

from __future__ import annotations

import torch
from torch import nn

from ..given import one_of, whole
from .parts import NORMS, SIDES, Model, conv, initialise, require_images, side, step, strided


class DCGANGenerator(Model):
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
        image_size, channels = side(image_size), whole("channels", channels, 1)
        latent, width = whole("latent", latent, 1), whole("width", width, 1)
        self.image_size, self.channels, self.latent, self.width = image_size, channels, latent, width
        sides = SIDES[image_size]
        maps = [latent, *(width * 2**power for power in reversed(range(len(sides) - 1))), channels]
        layers: list[nn.Module] = [conv(nn.ConvTranspose2d, maps[0], maps[1], {"kernel_size": sides[0]})]
        for index in range(1, len(sides)):
            layers += [nn.BatchNorm2d(maps[index]), nn.ReLU()]
            layers.append(conv(nn.ConvTranspose2d, maps[index], maps[index + 1], step(sides[index - 1], sides[index])))
        layers.append(nn.Tanh())
        self.layers = nn.Sequential(*layers)
        initialise(self, generator)

    @property
    def latent_shape(self) -> tuple[int]:
        """Shape of one latent: (latent,)."""
        return (self.latent,)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Latents (B, latent) to images (B, channels, image_size, image_size) in [-1, 1]."""
        if z.dim() != 2 or z.shape[1] != self.latent:
            raise ValueError(f"latents must have shape (B, {self.latent}), got {tuple(z.shape)}")
        return self.layers(z.reshape(-1, self.latent, 1, 1))


class DCGANCritic(Model):
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
        image_size, channels, width = side(image_size), whole("channels", channels, 1), whole("width", width, 1)
        one_of("norm", norm, NORMS)
        self.image_size, self.channels, self.width, self.norm = image_size, channels, width, norm
        layers, last = strided(image_size, channels, width, norm, "leaky_relu", first=False)
        layers.append(conv(nn.Conv2d, last, 1, {"kernel_size": SIDES[image_size][0]}))
        self.layers = nn.Sequential(*layers)
        initialise(self, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, channels, image_size, image_size) to (B,)."""
        require_images(x, self.channels, self.image_size)
        return self.layers(x).reshape(-1)
