"""Checks on what a user hands in; every error names what was given, what was expected, and the remedy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from .losses import Loss

RANGE_SLACK = 1e-3
SCAN_IMAGES = 1024


def as_images(images: Any, device: torch.device | None = None) -> torch.Tensor:
    """Images as a tensor (N, C, H, W) that shares the caller's memory where it can; dtype as given.

    Takes a tensor or ndarray of floats or uint8, (N, C, H, W) or (N, H, W). Raises TypeError or ValueError.
    """
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 and images.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64):
            raise TypeError(f"images must be floats in [-1, 1] or uint8, got an array of {images.dtype}")
        if any(stride < 0 for stride in images.strides) or not images.dtype.isnative:
            images = np.array(images, dtype=images.dtype.newbyteorder("="))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writ")  # nobody writes to it
            images = torch.from_numpy(images)
    if not isinstance(images, torch.Tensor):
        raise TypeError(f"images must be a tensor or an ndarray, got {type(images).__name__}")
    if images.dtype not in (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"images must be floats in [-1, 1] or uint8, got {images.dtype}")
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4:
        raise ValueError(f"images must have shape (N, C, H, W) or (N, H, W), got {tuple(images.shape)}")
    return images.detach()


def to_range(images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Images in `dtype`, scaled to [-1, 1] if uint8 (x / 127.5 − 1); images with NaN or Inf come back as zeros."""
    if images.dtype == torch.uint8:
        return images.to(dtype) / 127.5 - 1
    images = images.to(dtype)
    return torch.where(_finite(images)[:, None, None, None], images, torch.zeros_like(images))


def scan(images: torch.Tensor, strict: bool) -> torch.Tensor:
    """Whether each image is finite: (N,) bool. Reads a part at a time, so that a mapped file stays on disk.

    Raises ValueError if a finite value lies outside [-1, 1] by over 1e-3, or if `strict` and any image has NaN or Inf;
    else those are counted in a warning.
    """
    if images.dtype == torch.uint8:
        return torch.ones(len(images), dtype=torch.bool, device=images.device)
    finite = [torch.ones(0, dtype=torch.bool, device=images.device)]
    for part in images.split(SCAN_IMAGES) if images.numel() else ():
        good = _finite(part)
        finite.append(good)
        if bool(good.any()):
            _check_range(*(float(x) for x in torch.aminmax(part[good])))
    every = torch.cat(finite)
    bad = int((~every).sum())
    if bad and strict:
        raise ValueError(f"{bad} of {len(images)} images hold NaN or Inf (strict=True)")
    if bad:
        warnings.warn(f"{bad} of {len(images)} images hold NaN or Inf; they score NaN", RuntimeWarning, stacklevel=4)
    return every


def _finite(images: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(images).flatten(1).all(1)


def _check_range(low: float, high: float) -> None:
    if low < -1 - RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise ValueError(
            f"images must lie in [-1, 1], they span [{low:.4g}, {high:.4g}]; scale them there "
            "(x * 2 - 1 from [0, 1]), or pass uint8, which is scaled as x / 127.5 - 1"
        )


def first_latent_shapes(module: nn.Module) -> list[tuple[int, ...]]:
    """What the latent's shape may be, from the first layer with weights: () of shapes to try, likeliest first."""
    given = getattr(module, "latent_shape", None)
    if isinstance(given, int):
        return [(given,)]
    if isinstance(given, (tuple, list)) and all(isinstance(size, int) for size in given):
        return [tuple(given)]
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            return [(layer.in_features,)]
        if isinstance(layer, nn.ConvTranspose2d):
            return [(layer.in_channels,), (layer.in_channels, 1, 1)]
        if any(True for _ in layer.parameters(recurse=False)):
            break
    return []


def latent_shape(
    module: nn.Module, image_shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> tuple[int, ...]:
    """The latent's shape: of the candidates, the one from which `module` makes an image of `image_shape`.

    Raises ValueError asking for latent_shape where none does.
    """
    candidates = first_latent_shapes(module)
    seen = []
    for shape in candidates:
        try:
            with torch.no_grad():
                made = module(torch.zeros((1, *shape), device=device, dtype=dtype))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            seen.append(
                f"{shape}: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
            )
            continue
        if isinstance(made, torch.Tensor) and made.dim() == 4:
            if tuple(made.shape[1:]) == tuple(image_shape) or len(candidates) == 1:
                return shape
            seen.append(f"{shape}: makes {tuple(made.shape[1:])}")
        else:
            seen.append(f"{shape}: does not make one image")
    tried = f" (tried {'; '.join(seen)})" if seen else ""
    raise ValueError(
        f"latent_shape cannot be read off the first layer of {type(module).__name__}{tried}; "
        "pass it, for example latent_shape=(256,)"
    )


def check_generator(module: nn.Module, starts: torch.Tensor, image_shape: tuple[int, ...]) -> torch.Tensor:
    """Run `module` on two starts (2, *latent), one at a time, and check what it makes; returns the first image.

    Raises ValueError if it cannot take the latent, does not make one image of `image_shape`, returns NaN or Inf, makes
    the same image of both, or another image of the same start the second time.
    """
    name = type(module).__name__
    made = []
    with torch.no_grad():
        for z in (starts[:1], starts[1:2], starts[:1]):
            try:
                made.append(module(z))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise ValueError(f"generator {name} cannot take a latent of shape {tuple(z.shape)}: {error}") from error
    for image in made:
        if not isinstance(image, torch.Tensor):
            raise ValueError(
                f"generator {name} must return one tensor (B, C, H, W), it returned {type(image).__name__}"
            )
        if tuple(image.shape) != (1, *image_shape):
            raise ValueError(
                f"images have shape (N, {', '.join(map(str, image_shape))}), but from a latent (1, "
                f"{', '.join(map(str, starts.shape[1:]))}) generator {name} makes {tuple(image.shape)}"
            )
        if not bool(torch.isfinite(image).all()):
            raise ValueError(f"generator {name} returns NaN or Inf")
    if torch.equal(made[0], made[1]):
        raise ValueError(f"generator {name} ignores its latent z: two starts make the same image")
    if not torch.equal(made[0], made[2]):
        raise ValueError(f"generator {name} is random: one start makes two images; a score would mean nothing")
    return made[0]


def check_loss(loss: Loss, reconstruction: torch.Tensor) -> None:
    """Call a loss on a reconstruction (1, C, H, W), against itself moved a little.

    Raises ValueError if it does not map to (1,), or gives nothing to descend by.
    """
    leaf = reconstruction.detach().clone().requires_grad_()
    rows = loss(leaf, (leaf * 0.9).detach())
    if not rows.requires_grad:
        raise ValueError(f"loss {loss.name!r} does not depend on the reconstruction in a way that has a gradient")
