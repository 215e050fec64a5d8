"""Checks of a generator and a loss before a search: what they do with latents of the prior, and what they must not do.

Every error names the generator, what it did, and the remedy.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import warnings
from collections.abc import Iterator

import torch
from torch import nn

from .losses import Loss
from .working_copy import copied

LOOKS = 64
"""Latents that are looked at before a generator is said to ignore its latent: two, as long as these tell."""

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Look:
    """What a generator makes of one latent: an image (1, C, H, W), and the gradient of a sum over it.

    `of_latent` is None where no gradient reaches the latent. Of the gradient of each weight that is learned the sum of
    absolute values is kept, None where there is none.
    """

    image: torch.Tensor
    of_latent: torch.Tensor | None
    of_weights: tuple[float | None, ...]


def check_generator(module: nn.Module, probes: torch.Tensor, image_shape: Shape, learn: bool = True) -> torch.Tensor:
    """Run `module`, a working copy, on the latents `probes` (LOOKS, *latent), one at a time; returns the first image.

    `learn`: whether its weights are.

    Raises ValueError if it cannot take the latent, does not make one image of `image_shape`, returns NaN or Inf,
    changes its own state, is random, ignores its latent, or lets no gradient reach it.
    """
    name, state = f"generator {type(module).__name__}", _State(module)
    random = [_random_state(probes.device)]
    looks = []
    for z in (probes[:1], probes[1:2], probes[:1]):
        looks.append(look(module, z, image_shape, learn))
        random.append(_random_state(probes.device))
    drew = any(not torch.equal(a, b) for a, b in itertools.pairwise(random))
    if not _same(looks[0], looks[2]):
        changed = state.changed()
        if changed:
            raise ValueError(
                f"{name} is random: one start makes two images, as it changes its own {changed} in forward (a spectral "
                "norm that iterates in eval mode?). Have it do so in training mode alone, or put the finished weights "
                "in its place (torch.nn.utils.parametrize.remove_parametrizations, or remove_spectral_norm)"
            )
        cause = ", as it draws random numbers in forward" if drew else ""
        raise ValueError(
            f"{name} is random: one start makes two images{cause}; a score would mean nothing. Switch noise and "
            "dropout off, or draw the noise once and keep it in a buffer"
        )
    changed = state.changed()
    if changed:
        raise ValueError(
            f"{name} changes its own {changed} at its first forward pass (an initialisation from data?), so its images "
            "depend on the latents it meets. Run it on a batch before it is used, or switch that off"
        )
    _refuse_unmoved(name, module, looks[:2], probes)
    return looks[0].image


def look(module: nn.Module, z: torch.Tensor, image_shape: Shape, learn: bool) -> Look:
    """Run `module` on a latent (1, *latent), forward and backward. ValueError where it cannot, or makes no image."""
    name, shape = f"generator {type(module).__name__}", tuple(z.shape)
    latent = z.detach().clone().requires_grad_()
    weights = [w for w in module.parameters() if w.is_floating_point()]
    before = [w.requires_grad for w in weights]
    for w in weights:
        w.requires_grad_(learn)
    try:
        made = module(latent.clone())  # a copy: a first layer may work in place
        image = _image(name, made, shape, image_shape)
        if not image.requires_grad:
            return Look(image.detach().clone(), None, ())
        learned = weights if learn else []
        found = torch.autograd.grad((image * _direction(image)).sum(), [latent, *learned], allow_unused=True)
        sizes = (None if g is None else float(g.double().abs().sum()) for g in found[1:])
        return Look(image.detach().clone(), found[0], tuple(sizes))
    except _RAISED as error:
        if "in-place" in str(error) or "inplace" in str(error):
            raise ValueError(f"{name} cannot be differentiated: {_in_place(module, z, str(error))}") from error
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise ValueError(f"{name} cannot take a latent of shape {shape}: {_first_line(error)}") from error
    finally:
        for w, requires in zip(weights, before, strict=True):
            w.requires_grad_(requires)


# What a module's code raises over a latent that does not suit it.
_RAISED = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError,
           NotImplementedError)  # fmt: skip


def described(made: object) -> str:
    """What a generator returned, in words."""
    if isinstance(made, torch.Tensor):
        return f"a tensor {tuple(made.shape)}"
    if isinstance(made, dict):
        return f"a {type(made).__name__} of {', '.join(f'{key!r}: {described(item)}' for key, item in made.items())}"
    if isinstance(made, (tuple, list)):
        return f"a {type(made).__name__} of {', '.join(map(described, made)) or 'nothing'}"
    return "None" if made is None else f"a {type(made).__name__}"


def _image(name: str, made: object, latent: Shape, image_shape: Shape) -> torch.Tensor:
    """The image that was made, checked."""
    if not isinstance(made, torch.Tensor) or made.dim() != 4:
        remedy = ": wrap it in a module that returns the image alone, as (B, C, H, W)"
        raise ValueError(f"{name} must return one tensor (B, C, H, W), it returned {described(made)}{remedy}")
    if tuple(made.shape) != (1, *image_shape):
        raise ValueError(
            f"images have shape (N, {', '.join(map(str, image_shape))}), but from a latent {latent} {name} makes "
            f"{tuple(made.shape)}"
        )
    if not made.is_floating_point():
        raise ValueError(f"{name} must return floating-point images, it returned {made.dtype}")
    if not bool(torch.isfinite(made).all()):
        raise ValueError(f"{name} returns NaN or Inf")
    return made


def _direction(image: torch.Tensor) -> torch.Tensor:
    """A fixed direction that no symmetric image is at right angles to, shaped as `image`."""
    steps = torch.arange(image.numel(), dtype=torch.float64, device=image.device)
    return (1 + 0.5 * torch.sin(steps + 1)).to(image.dtype).view_as(image)


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


def _same(a: Look, b: Look) -> bool:
    """Whether two looks at one latent saw the same: the image to the last bit, gradients nearly.

    (A GPU adds them up in any order.) NaN is the same as NaN.
    """
    if not torch.equal(a.image, b.image) or (a.of_latent is None) is not (b.of_latent is None):
        return False
    if a.of_latent is not None and b.of_latent is not None:
        least = 1e-3 * float(a.of_latent.abs().max())
        if not torch.allclose(a.of_latent, b.of_latent, rtol=1e-3, atol=least, equal_nan=True):
            return False
    return all(
        x is y or (x is not None and y is not None and (math.isclose(x, y, rel_tol=1e-3) or math.isnan(x + y)))
        for x, y in zip(a.of_weights, b.of_weights, strict=True)
    )


def _random_state(device: torch.device) -> torch.Tensor:
    state = torch.random.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state


class _State:
    """A module's floating-point parameters and buffers, to see whether its forward changes them."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._versions = {name: (id(tensor), tensor._version) for name, tensor in self._tensors()}
        self._buffers = {name: buffer.clone() for name, buffer in module.named_buffers() if buffer.is_floating_point()}

    def changed(self) -> str:
        """The first that has another value now, in words, or ""."""
        for name, tensor in self._tensors():
            if self._versions.get(name) == (id(tensor), tensor._version):
                continue
            if name not in self._buffers:
                return f"parameter {name!r}"
            if not torch.equal(tensor, self._buffers[name]):
                return f"buffer {name!r}"
        return ""

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in (*self._module.named_parameters(), *self._module.named_buffers()):
            if tensor.is_floating_point():
                yield name, tensor


def _in_place(module: nn.Module, z: torch.Tensor, raised: str) -> str:
    """Which work in place spoils a gradient, in words: the layer without which there is one, or whose output it is."""
    for name, layer in module.named_modules():
        if getattr(layer, "inplace", False) is not True:
            continue
        trial = copied(module)
        trial.get_submodule(name).inplace = False  # type: ignore[assignment]
        try:
            trial(z.detach().clone().requires_grad_().clone()).sum().backward()
        except _RAISED:
            continue
        return f"layer {name!r} ({type(layer).__name__}) changes in place what a gradient needs; give it inplace=False"
    spoilt = re.search(r"output \d+ of (\w+)", raised)
    what = f"the output of {spoilt[1].removesuffix('Backward0')}" if spoilt else "a tensor"
    return (
        f"{what} is changed in place (by x += 1, x.relu_(), x[i] = …, or several layers with inplace=True) and a "
        "gradient needs it as it was; make a new tensor there"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def warn_of_range(module: nn.Module, probes: torch.Tensor, images: torch.Tensor) -> None:
    """Warn where images are uint8, scaled to [-1, 1], and all that the generator makes lies in [0, 1]."""
    if images.dtype != torch.uint8:
        return
    with torch.no_grad():
        low, high = (float(x) for x in torch.aminmax(torch.cat([module(z[None].clone()) for z in probes[:4]])))
    if low >= 0 and high <= 1:
        warnings.warn(
            f"generator {type(module).__name__} makes images in [0, 1] (seen: [{low:.3g}, {high:.3g}]), but uint8 "
            "images are scaled to [-1, 1]; if it was trained on [0, 1], pass images as floats in [0, 1] (images / 255)",
            RuntimeWarning,
            stacklevel=5,
        )


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
