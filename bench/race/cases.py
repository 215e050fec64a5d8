"""What is timed: generators (DCGAN's, or of families.py), images and starts, the same on every machine.

DCGAN's have random weights and batch-norm statistics collected from samples of the prior, so that about
half of each ReLU's inputs are open, as in a trained one. (Fitting one to MNIST for 60 steps moved the open share of its
layers from 0.50, 0.50, 0.50 to 0.49, 0.51, 0.46.) The share matters, since an engine may skip what is closed; it is
measured and printed. ``--generator FILE`` times a trained one instead.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from adgan_fast import data
from adgan_fast.config import SearchConfig
from adgan_fast.core.starts import draw
from adgan_fast.models import DCGANGenerator

from . import families
from .families import FAMILIES

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Where real images may lie: shared/data beside the repository."""

SHAPES = {"dcgan32x1": (32, 1), "dcgan32x3": (32, 3), "dcgan64x3": (64, 3)}
"""Name of a case to image size and channels; latent 256 and width 64, as in the paper."""


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One input of the bench.

    Attributes:
        name: of generator and images, "dcgan32x1-mnist" say.
        gen: in eval mode, float32.
        images: (N, C, H, W) in [-1, 1].
        starts: (S, *latent).
        config: everything else that is timed.
        open_shares: share of positive outputs of each ReLU at the starts.
    """

    name: str
    gen: nn.Module
    images: torch.Tensor
    starts: torch.Tensor
    config: SearchConfig
    open_shares: tuple[float, ...]

    @property
    def key(self) -> str:
        """Name with the settings that change the work."""
        c = self.config
        key = f"{self.name}/s{len(self.starts)}/k{c.steps}/{c.weights}"
        return key if c.precision == "float32" else f"{key}/{c.precision}"


def build(
    shape: str,
    config: SearchConfig,
    *,
    images: int,
    device: str = "cpu",
    width: int = 64,
    latent: int = 256,
    generator: str | os.PathLike[str] | None = None,
) -> Case:
    """The case `shape` (a name of SHAPES or FAMILIES, or one like "dcgan16x1") with `images` images; deterministic.

    Real images where they lie in DATA and fit the shape, smooth random ones otherwise. `generator`: a file of
    ``adgan_fast.training.checkpoint.save_generator`` in place of the calibrated random one.
    """
    if shape in FAMILIES:
        size, channels, latent_shape = 32, FAMILIES[shape].channels, FAMILIES[shape].latent_shape
        gen, label = families.made(shape), shape
        if generator is not None:
            raise ValueError(f"--generator takes the place of a DCGAN, not of {shape}")
    else:
        size, channels = SHAPES.get(shape) or tuple(map(int, shape.removeprefix("dcgan").split("x")))
        gen, label = _dcgan(shape, size, channels, latent, width, generator)
        latent_shape = (int(gen.latent),)  # type: ignore[arg-type]  # nn.Module hides that it is a number
    origin, pictures = real_images(size, channels, images)
    if pictures is None:
        origin, pictures = "smooth", smooth_images(size, channels, images)
    starts = draw(config.seed, None, config.n_seed, latent_shape, config.prior).float()
    shares = open_shares(gen, starts)
    return Case(f"{label}-{origin}", gen.to(device), pictures.to(device), starts.to(device), config, shares)


def _dcgan(
    shape: str, size: int, channels: int, latent: int, width: int, file: str | os.PathLike[str] | None
) -> tuple[nn.Module, str]:
    """The generator of a file, or a calibrated one, and how the case calls it."""
    if file is not None:
        from adgan_fast.training.checkpoint import load_generator

        return load_generator(file), f"{shape}-{Path(file).stem}"
    label = shape if (latent, width) == (256, 64) else f"{shape}-latent{latent}-width{width}"
    return calibrated(size, channels, latent, width), label


def calibrated(size: int, channels: int, latent: int, width: int) -> nn.Module:
    """A generator with random weights, its batch-norm statistics those of 1,024 samples of the prior; in eval mode."""
    return copy.deepcopy(_calibrated(size, channels, latent, width))


@functools.cache
def _calibrated(size: int, channels: int, latent: int, width: int) -> nn.Module:
    random = torch.Generator().manual_seed(0)
    gen = DCGANGenerator(size, channels, latent, width, generator=random)
    families.collect_statistics(gen, (latent,), random)
    return gen.eval()


def open_shares(gen: nn.Module, z: torch.Tensor) -> tuple[float, ...]:
    """Share of positive outputs of each ReLU of `gen` at the latents `z` (B, *latent), in order of execution."""
    shares: list[float] = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: shares.append((out > 0).float().mean().item()))
        for module in gen.modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        with torch.no_grad():
            gen(z)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(shares)


def real_images(size: int, channels: int, count: int, split: data.Split = "test") -> tuple[str, torch.Tensor | None]:
    """("mnist", (N, 1, 32, 32)), padded, or ("cifar10", (N, 3, 32, 32)): the first images; None if not there."""
    if (size, channels) == (32, 1) and (DATA / "mnist").is_dir():
        raw = data.load_mnist(DATA / "mnist", split).images[:count]
        return "mnist", F.pad(torch.as_tensor(data.to_model_range(raw)), (2, 2, 2, 2), value=-1.0)
    if (size, channels) == (32, 3) and (DATA / "cifar10.npz").is_file():
        raw = data.load_cifar10(DATA / "cifar10.npz", split).images[:count]
        return "cifar10", torch.as_tensor(data.to_model_range(raw))
    return "", None


def smooth_images(size: int, channels: int, count: int) -> torch.Tensor:
    """(N, C, size, size) in (-1, 1): random fields of 4 by 4 patches, interpolated, with strong contrast."""
    random = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, channels, 4, 4, generator=random)
    return torch.tanh(1.5 * F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False))
