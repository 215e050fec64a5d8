"""Checks of a generator and a loss before a search: what they do with latents of the prior, and what they must not do.

Every error names the generator, what it did, and the remedy.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..core import random_state
from ..core.losses import Loss
from ..core.precision import arithmetic
from .look import Look, Shape, look, same, sums
from .working_copy import copied, mixed_dtypes

LOOKS = 64
"""Latents that are looked at before a generator is said to ignore its latent: two, as long as these tell."""


@arithmetic("float32")  # by default cuDNN may sum in another order at each call, which would look like noise
def check_generator(
    module: nn.Module, probes: torch.Tensor, image_shape: Shape, learn: bool = True, given: object = None
) -> Look:
    """Run `module`, a working copy, on the latents `probes` (LOOKS, *latent), one at a time; returns the first look.

    Random states are moved: see `random_state.kept`.

    Args:
        learn: whether its weights are.
        given: what the caller gave, of which `module` is a copy.

    Raises:
        ValueError: if it cannot take the latent, does not make one image of `image_shape`, returns NaN or Inf, runs
            with the caller's weights instead of its own, changes itself, is random, ignores its latent, or lets no
            gradient reach it.
    """
    name, before = f"generator {type(module).__name__}", _values(module)
    with _dtypes_named(given, probes.dtype):
        met_first = look(copied(module), probes[1:2], image_shape, learn=False).image
    states = [random_state.state(probes.device)]
    looks = []
    for z in (probes[:1], probes[1:2], probes[:1]):
        looks.append(look(module, z, image_shape, learn))
        states.append(random_state.state(probes.device))
    drawn = [kind for kind in states[0] if any(a[kind] != b[kind] for a, b in itertools.pairwise(states))]
    if drawn and (drawn := _drawn(module, probes[:1], drawn)):
        raise ValueError(
            f"{name} is random: it draws random numbers in forward (from the state of {', '.join(drawn)}); a score "
            "would mean nothing. Switch noise and dropout off, or draw the noise once and keep it in a buffer"
        )
    changed = _changed(module, before)
    if not same(looks[0], looks[2]):
        if changed:
            raise ValueError(
                f"{name} is random: one start makes two images, as it changes its own {changed} in forward (a spectral "
                "norm that iterates in eval mode?). Have it do so in training mode alone, or put the finished weights "
                "in its place (torch.nn.utils.parametrize.remove_parametrizations, or remove_spectral_norm)"
            )
        raise ValueError(
            f"{name} is random: one start makes two images; a score would mean nothing. Switch noise and dropout off, "
            "or draw the noise once and keep it in a buffer"
        )
    if not _close(met_first, looks[1].image):
        what = f"its own {changed}" if changed else "something that it keeps"
        raise ValueError(
            f"{name} changes {what} at its first forward pass (an initialisation from data, a cache?), so its images "
            "depend on the latents it meets. Run it on a batch before it is used, or switch that off"
        )
    _refuse_foreign(name, module, probes[:1], given)
    _refuse_unmoved(name, module, looks[:2], probes)
    return looks[0]


@contextlib.contextmanager
def _dtypes_named(given: object, dtype: torch.dtype) -> Iterator[None]:
    """Add to an error that the caller's weights were of several dtypes, where they were."""
    try:
        yield
    except ValueError as error:
        if dtypes := mixed_dtypes(given):
            raise ValueError(f"{error}. (Its weights are {dtypes}; a search runs in {dtype} alone)") from error
        raise


def _image(module: nn.Module, z: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        image: torch.Tensor = module(z.clone())
    return image


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Up to rounding, which is another where autograd does not record, or memory lies elsewhere."""
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def _drawn(module: nn.Module, z: torch.Tensor, kinds: list[str]) -> list[str]:
    """Of random states that a forward moves, those that it draws from: one that it seeds itself ends the same."""
    ends = []
    for number in (1, 2):
        random_state.seed(number)
        _image(module, z)
        ends.append(random_state.state(z.device))
    return [kind for kind in kinds if ends[0][kind] != ends[1][kind]]


def _values(module: nn.Module) -> dict[str, tuple[float, ...]]:
    """Each parameter and buffer by its sums."""
    tensors = {
        **{f"parameter {name!r}": w for name, w in module.named_parameters()},
        **{f"buffer {name!r}": b for name, b in module.named_buffers()},
    }
    return {name: sums(tensor) for name, tensor in tensors.items() if tensor.layout == torch.strided}


def _changed(module: nn.Module, before: dict[str, tuple[float, ...]]) -> str:
    """The first parameter or buffer that has another value now, in words, or ""."""
    return next((name for name, now in _values(module).items() if str(before.get(name, now)) != str(now)), "")


class _Storages(TorchDispatchMode):
    """Notes the memory of every tensor that an operation is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.update(filter(None, map(_storage, tree_leaves((args, kwargs or {})))))
        return func(*args, **(kwargs or {}))


def _storage(value: object) -> int:
    """The address of a tensor's memory; 0 where there is none."""
    plain = type(value) in (torch.Tensor, nn.Parameter) and value.layout == torch.strided  # type: ignore[attr-defined]
    return value.untyped_storage().data_ptr() if plain else 0  # type: ignore[attr-defined]


def _refuse_foreign(name: str, module: nn.Module, z: torch.Tensor, given: object) -> None:
    """ValueError where a copy runs with the caller's tensors, as a function that holds the caller's module does."""
    if not isinstance(given, nn.Module):
        return
    with _Storages() as storages:
        _image(module, z)
    for path, tensor in (*given.named_parameters(), *given.named_buffers()):
        if _storage(tensor) in storages.seen:
            raise ValueError(
                f"{name}: a copy of it runs with the weight {path!r} of the original, so that it cannot have weights "
                "of its own: a function kept in it (a forward that was replaced, a hook, torch.compile of a method) "
                "holds the original. Define forward in its class, or wrap or compile the whole module"
            )


def _refuse_unmoved(name: str, module: nn.Module, looks: list[Look], probes: torch.Tensor) -> None:
    """ValueError where the image, or its gradient, has nothing to do with the latent."""

    def tells(seen: list[Look]) -> bool:
        differ = any(not torch.equal(seen[0].image, other.image) for other in seen[1:])
        return differ and any(one.of_latent is not None and bool(one.of_latent.any()) for one in seen)

    if tells(looks):
        return
    seen = list(looks)
    image_shape = tuple(looks[0].image.shape[1:])
    for z in probes[2:]:
        seen.append(look(module, z.unsqueeze(0), image_shape, learn=False))
        if tells(seen):
            return
    if all(torch.equal(seen[0].image, other.image) for other in seen[1:]):
        raise ValueError(f"{name} ignores its latent z: {len(seen)} starts make the same image")
    raise ValueError(
        f"{name} cannot be searched: no gradient reaches its latent z (a forward under torch.no_grad or "
        "inference_mode, a detach, .data, rounding?). Take that out of its forward"
    )


@torch.no_grad()
def made_range(module: nn.Module, probes: torch.Tensor) -> tuple[float, float]:
    """The least and the largest pixel that the generator makes of some probes, one at a time."""
    low, high = torch.aminmax(torch.cat([module(z[None].clone()) for z in probes[:4]]))
    return float(low), float(high)


def warn_of_range(module: nn.Module, made: tuple[float, float], images: torch.Tensor) -> None:
    """Warn where images lie in [-1, 1] (uint8 is scaled to it) and a generator makes [0, 1], or the other way round."""
    low, high = made
    if images.dtype != torch.uint8:
        if images.numel() and low < -0.5 and float(images.min()) >= 0 and 0.5 < float(images.max()) <= 1:
            warnings.warn(
                f"all images lie in [0, 1], but generator {type(module).__name__} makes images in [-1, 1] (seen: "
                f"[{low:.3g}, {high:.3g}]); if these are floats scaled to [0, 1], pass x * 2 - 1",
                RuntimeWarning,
                stacklevel=5,
            )
    elif low >= 0 and high <= 1:
        warnings.warn(
            f"generator {type(module).__name__} makes images in [0, 1] (seen: [{low:.3g}, {high:.3g}]), but uint8 "
            "images are scaled to [-1, 1]; if it was trained on [0, 1], pass images as floats in [0, 1] (images / 255)",
            RuntimeWarning,
            stacklevel=5,
        )


@arithmetic("float32")
def check_loss(loss: Loss, reconstruction: torch.Tensor) -> None:
    """Call a loss on reconstructions (1, C, H, W), moved a little: on two at once, on each alone, and again.

    Raises ValueError if it does not map to (B,), gives nothing to descend by, is random, or mixes a batch's images.
    """
    leaf = reconstruction.detach().clone().requires_grad_()
    rows = loss(leaf, (leaf * 0.9).detach())
    if not rows.requires_grad:
        raise ValueError(f"loss {loss.name!r} does not depend on the reconstruction in a way that has a gradient")
    if loss.builtin:
        return
    with torch.no_grad():
        pair, target = torch.cat([leaf * 0.8, leaf * 0.5 + 0.1]).detach(), torch.cat([leaf, leaf]).detach()
        alone = torch.cat([loss(pair[i : i + 1], target[i : i + 1]) for i in range(2)])
        again = torch.cat([loss(pair[i : i + 1], target[i : i + 1]) for i in range(2)])
        if not torch.allclose(alone, again, rtol=1e-4, equal_nan=True):
            raise ValueError(
                f"loss {loss.name!r} is random: the same images give {alone.tolist()} and {again.tolist()}"
            )
        together = loss(pair, target)
        if not torch.allclose(together, alone, rtol=1e-4, equal_nan=True):
            raise ValueError(
                f"loss {loss.name!r} mixes the images of a batch: two give {together.tolist()} together, and "
                f"{alone.tolist()} each alone; it must sum or average over C, H, W only"
            )
