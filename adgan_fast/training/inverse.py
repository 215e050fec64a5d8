"""A regression encoder: given a trained generator g, e descends mean |e(g(z)) - z|², z ~ N(0, I).

Once learned, e(x) is a start for the search that lies near the latent of an image that g can make (Deecke et al. 2018,
Sect. 5: starts from an approximate inversion of the generator). `encoder_starts` makes such starts, of this encoder or
another one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .. import validate
from ..core import starts
from ..core.ambient import neutral
from ..generator.working_copy import working_copy
from ..given import is_number, one_of, whole
from ..models import DCGANEncoder
from ..models.parts import IMAGE_SIZES
from .config import TrainConfig
from .trainer import Trainer

_AT_ONCE = 256  # images in one pass of an encoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseConfig(TrainConfig):
    """Settings of a regression encoder, those of ``TrainConfig``:
    `latent` is the generator's, `width` the encoder's.
    """


class Inverse(Trainer):
    """Encoder (B, latent) of a given generator, which is not changed.

    Its loss, ``"latent_error"``: the mean of |e(g(z)) - z|², a sum over the latent: latent for an e that knows nothing.

    Args:
        generator: from latents (B, latent) to images (B, C, H, H).

    Raises:
        TypeError, ValueError: no such generator, naming what is wrong.
    """

    kind = "inverse"
    losses = ("latent_error",)
    shown = ("error", "latent_error")
    source = "weights"
    config: InverseConfig

    def __init__(self, generator: nn.Module, config: InverseConfig) -> None:
        if not isinstance(generator, nn.Module):
            kind = type(generator).__name__
            raise TypeError(f"an InverseConfig trains the inverse of a generator: give a torch.nn.Module, not a {kind}")
        device = torch.device(config.device or "cpu")
        self.given = working_copy(generator, device, torch.float32)
        super().__init__(config, _image_shape(self.given, config.latent, device), _fingerprint(self.given))

    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        config = self.config
        self.encoder = DCGANEncoder(self.image_size, self.channels, config.latent, config.width, generator=init)
        return {"encoder": self.encoder}

    def update(self, stream: np.random.Generator) -> dict[str, torch.Tensor]:
        z = self.latents(stream, self.config.batch_size)
        with torch.no_grad():
            images = self.given(z)
        loss = (self.encoder(images) - z).square().sum(1).mean()
        self.descend(loss, "encoder")
        return {"latent_error": loss.detach()}


@neutral()
def encoder_starts(
    encoder: nn.Module,
    images: torch.Tensor | npt.NDArray[Any],
    n_seed: int = 1,
    *,
    others: str = "jitter",
    jitter: float = 0.5,
    latent: int | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Starts for ``adgan_fast.score(generator, images, starts=...)``: (N, n_seed, latent) float32, on the CPU.

    The first start of an image x is e(x). A row depends on its image and these arguments alone.

    Args:
        encoder: from images (B, C, H, W) to codes (B, latent); put into eval mode for the call.
        images: (N, C, H, W), or (N, H, W) for C = 1: uint8, or float in [-1, 1].
        n_seed: starts of each image.
        others: what the starts after the first are: ``"jitter"``, e(x) + jitter · ε with ε ~ N(0, I), the same for all
            images; ``"prior"``, the first starts that a search of this ``seed`` draws from N(0, I).
        jitter: the standard deviation of the jitter.
        latent: how many of the encoder's outputs are the code (a VAE's encoder gives means, then log variances, so its
            latent); all when None.
        seed: of jitter or prior.

    Raises:
        TypeError, ValueError: naming the argument that is wrong.
    """
    n_seed = whole("n_seed", n_seed, 1)
    one_of("others", others, ("jitter", "prior"))
    if not is_number(jitter) or not 0 <= jitter < float("inf"):
        raise ValueError(f"jitter must be a finite number of at least 0, got {jitter!r}")
    given = validate.as_images(images)
    validate.scan(given, strict=True)
    codes = encode(encoder, given).cpu()
    codes = codes if latent is None else codes[:, : whole("latent", latent, 1)]
    more = starts.draw(seed, None, n_seed, tuple(codes.shape[1:]), "normal")[:-1].float()  # the first is the code
    further = codes[:, None] + jitter * more if others == "jitter" else more.expand(len(codes), *more.shape)
    return torch.cat([codes[:, None], further], dim=1)


@torch.no_grad()
def encode(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Codes (N, outputs) of images (N, C, H, W), uint8 or float in [-1, 1], on the encoder's device and in eval mode.

    The encoder's own mode is put back.
    """
    modes = [(module, module.training) for module in encoder.modules()]
    device = next(encoder.parameters()).device
    encoder.eval()
    try:
        parts = [encoder(validate.to_range(part, torch.float32).to(device)) for part in images.split(_AT_ONCE)]
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.cat(parts)


def _image_shape(generator: nn.Module, latent: int, device: torch.device) -> tuple[int, ...]:
    """(C, H, H) of what it makes; ValueError where it takes other latents, or makes what no encoder takes."""
    own = getattr(generator, "latent_shape", (latent,))
    if tuple(own) != (latent,):
        raise ValueError(f"latent must be the generator's: its latents have shape {tuple(own)}, got latent={latent}")
    with torch.no_grad():
        made = generator(torch.zeros(2, latent, device=device))
    if not isinstance(made, torch.Tensor) or made.dim() != 4 or made.shape[2] != made.shape[3]:
        seen = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
        raise ValueError(f"the generator must make square images (B, C, H, H), it made {seen}")
    if made.shape[2] not in IMAGE_SIZES:
        raise ValueError(
            f"the generator's images must have a side of {', '.join(map(str, IMAGE_SIZES))}, got {made.shape[2]}"
        )
    return tuple(made.shape[1:])


def _fingerprint(generator: nn.Module) -> str:
    """Content of its state, so that a run is not resumed for another generator."""
    digest = hashlib.sha256()
    for name, value in generator.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"{type(generator).__name__} {digest.hexdigest()[:16]}"
