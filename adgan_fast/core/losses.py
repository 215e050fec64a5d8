"""Reconstruction losses: one number for each (reconstruction, image) row.

``l2`` and ``l1`` are sums over C, H, W. ``laplacian`` is the Laplacian pyramid L1 the paper proposes in Sect. 5
(ref. [28]), weighted as in Bojanowski et al. 2018 (the paper's ref. [4]).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

COARSEST = 4  # the pyramid stops before a side falls below this many pixels


def l2(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Sum over C, H, W of squared differences: (B, C, H, W) twice to (B,) (Sect. 4.2)."""
    return (reconstruction - image).square().flatten(1).sum(1)


def l1(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Sum over C, H, W of absolute differences: (B, C, H, W) twice to (B,)."""
    return (reconstruction - image).abs().flatten(1).sum(1)


def laplacian(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Laplacian pyramid L1: (B, C, H, W) twice to (B,).

    sum over levels j of 4^j · ‖L_j(r − x)‖₁. L_j is the difference of a level and the blurred, halved and
    re-expanded one (5-tap binomial filter, edges repeated); the last level is the coarsest image itself. The pyramid
    is linear, so it is taken once, of the difference. 4^j gives each level's mean the same weight.
    """
    level = reconstruction - image
    total = level.new_zeros(level.shape[0])
    weight = 1.0
    while min(level.shape[-2:]) >= 2 * COARSEST:
        coarse = _blur(level)[..., ::2, ::2]
        total = total + weight * (level - _expand(coarse, level.shape[-2:])).abs().flatten(1).sum(1)
        level, weight = coarse, 4 * weight
    return total + weight * level.abs().flatten(1).sum(1)


def _binomial(like: torch.Tensor) -> torch.Tensor:
    """The (5, 5) binomial filter [1, 4, 6, 4, 1] ⊗ [1, 4, 6, 4, 1] / 256, once for each channel: (C, 1, 5, 5)."""
    row = torch.full((5,), 1 / 16, dtype=like.dtype, device=like.device)  # filled there: a CUDA graph records no copy
    row[1:4] = 4 / 16
    row[2] = 6 / 16
    return torch.outer(row, row).expand(like.shape[-3], 1, 5, 5)


def _blur(images: torch.Tensor) -> torch.Tensor:
    return F.conv2d(_repeat_edges(images), _binomial(images), groups=images.shape[-3])


def _repeat_edges(images: torch.Tensor) -> torch.Tensor:
    """Two pixels more on each side. On a CUDA device PyTorch's own padding has a backward in no fixed order."""
    if not images.is_cuda:
        return F.pad(images, (2, 2, 2, 2), mode="replicate")
    return joined_edges(joined_edges(images, -1), -2)


def joined_edges(images: torch.Tensor, dim: int) -> torch.Tensor:
    """The first and the last slice along `dim` twice more."""
    first, last = images.narrow(dim, 0, 1), images.narrow(dim, images.shape[dim] - 1, 1)
    return torch.cat([first, first, images, last, last], dim)


def _expand(coarse: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Twice the size: each pixel repeated to its 2×2 place, then blurred."""
    repeated = coarse.repeat_interleave(2, -2).repeat_interleave(2, -1)
    return _blur(repeated[..., : size[0], : size[1]])


BY_NAME: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"l2": l2, "l1": l1, "laplacian": laplacian}


class Loss:
    """The loss of a config, by name or callable, with its result checked."""

    def __init__(self, loss: str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor], name: str = ""):
        self.name = name or (loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__))
        self.builtin = isinstance(loss, str)
        self._function = BY_NAME[loss] if isinstance(loss, str) else loss

    def __call__(self, reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) twice to (B,); ValueError if a callable returns anything else."""
        if self.builtin:
            return self._function(reconstruction, image)
        # Copies of its own, to keep or to write into as it likes.
        own = (x.clone(memory_format=torch.contiguous_format) for x in (reconstruction, image))
        rows = self._function(*own)
        if not isinstance(rows, torch.Tensor) or rows.shape != reconstruction.shape[:1]:
            seen = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
            raise ValueError(
                f"loss {self.name!r} must map (B, C, H, W) and (B, C, H, W) to (B,) = ({reconstruction.shape[0]},), "
                f"it returned {seen}"
            )
        return rows
