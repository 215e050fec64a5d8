"""An encoder in the manner of DCGAN, and the critic of pairs (image, latent)."""

from __future__ import annotations

import torch
from torch import nn

from ..given import flag, one_of, whole
from .parts import ACTIVATIONS, NORMS, SIDES, Model, conv, initialise, require_images, side, strided


class DCGANEncoder(Model):
    """Images (B, channels, image_size, image_size) to codes (B, outputs): ``DCGANGenerator`` the other way round.

    Strided convolutions, each followed by a normalisation and an activation, and one last convolution to the code
    (Deecke et al. 2018, Sect. 4.2: an architecture like DCGAN's, with batch norm and ReLU in each layer).

    Args:
        image_size: 8, 16, 28, 32 or 64.
        channels: of the image, at least 1.
        outputs: length of the code.
        width: channels of the first hidden map.
        norm: ``"batch"``, ``"layer"`` or ``"none"``.
        activation: ``"relu"``, or ``"leaky_relu"`` of slope 0.2.
        bias: False leaves out every learned number that is added, and the norms' scales with them: a one-class network
            with such numbers could map everything to one point (Ruff et al. 2018, Proposition 2).
        generator: what the initial weights are drawn from; torch's global generator when None.

    Raises:
        ValueError: an argument out of range, naming it; at the call, images of another shape.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        outputs: int = 256,
        width: int = 64,
        norm: str = "batch",
        activation: str = "relu",
        bias: bool = True,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        image_size, channels = side(image_size), whole("channels", channels, 1)
        outputs, width = whole("outputs", outputs, 1), whole("width", width, 1)
        one_of("norm", norm, NORMS)
        one_of("activation", activation, tuple(ACTIVATIONS))
        self.image_size, self.channels, self.outputs, self.width = image_size, channels, outputs, width
        self.norm, self.activation, self.bias = norm, activation, flag("bias", bias)
        layers, last = strided(image_size, channels, width, norm, activation, first=True, bias=self.bias)
        layers.append(conv(nn.Conv2d, last, outputs, {"kernel_size": SIDES[image_size][0]}, bias=self.bias))
        self.layers = nn.Sequential(*layers)
        initialise(self, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, channels, image_size, image_size) to (B, outputs)."""
        require_images(x, self.channels, self.image_size)
        return self.layers(x).reshape(-1, self.outputs)


class JointCritic(Model):
    """Pairs of an image and a latent to one real number each, (B,): the critic of ALI and BiGAN.

    Image and latent become 8·width numbers each, the one by strided convolutions, the other by a linear layer; two
    linear layers judge both together (Dumoulin et al. 2017; Donahue et al. 2017, Fig. 1). LeakyReLU(0.2) throughout,
    and no sigmoid at the end.

    Args:
        image_size: 8, 16, 28, 32 or 64.
        channels: of the image, at least 1.
        latent: length of the latent.
        width: channels of the first hidden map.
        norm: of the maps after the first: ``"batch"``, ``"layer"`` or ``"none"``.
        generator: what the initial weights are drawn from; torch's global generator when None.

    Raises:
        ValueError: an argument out of range, naming it; at the call, images or latents of another shape.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 3,
        latent: int = 256,
        width: int = 64,
        norm: str = "batch",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        image_size, channels = side(image_size), whole("channels", channels, 1)
        latent, width = whole("latent", latent, 1), whole("width", width, 1)
        one_of("norm", norm, NORMS)
        self.image_size, self.channels, self.latent, self.width, self.norm = image_size, channels, latent, width, norm
        features = 8 * width
        layers, last = strided(image_size, channels, width, norm, "leaky_relu", first=False)
        layers += [conv(nn.Conv2d, last, features, {"kernel_size": SIDES[image_size][0]}, bias=True)]
        self.of_image = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Flatten())
        self.of_latent = nn.Sequential(conv(nn.Linear, latent, features, {}, bias=True), nn.LeakyReLU(0.2))
        self.of_both = nn.Sequential(
            conv(nn.Linear, 2 * features, features, {}, bias=True),
            nn.LeakyReLU(0.2),
            conv(nn.Linear, features, 1, {}),
        )
        initialise(self, generator)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Images (B, channels, image_size, image_size) and latents (B, latent) to (B,)."""
        require_images(x, self.channels, self.image_size)
        if z.shape != (len(x), self.latent):
            raise ValueError(f"latents must have shape ({len(x)}, {self.latent}), got {tuple(z.shape)}")
        return self.of_both(torch.cat([self.of_image(x), self.of_latent(z)], dim=1)).reshape(-1)
