"""A look at a generator: one latent through it, forward and backward, with every way that this may fail in words."""

from __future__ import annotations

import dataclasses
import math
import re

import torch
from torch import nn

from .working_copy import copied

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Look:
    """What a generator makes of one latent: an image (1, C, H, W), and the gradient of a sum over it.

    `of_latent` is None where no gradient reaches the latent. Of each learned weight's gradient some `sums` are kept,
    None where there is none.
    """

    image: torch.Tensor
    of_latent: torch.Tensor | None
    of_weights: tuple[tuple[float, ...] | None, ...]


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
        if any(g is not None and g.layout != torch.strided for g in found):
            raise ValueError(f"{name} has a weight whose gradient is sparse; use sparse=False in its F.embedding")
        return Look(image.detach().clone(), found[0], tuple(None if g is None else sums(g) for g in found[1:]))
    except RAISED as error:
        if "in-place" in str(error) or "inplace" in str(error):
            raise ValueError(f"{name} cannot be differentiated: {_in_place(module, z, str(error))}") from error
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise ValueError(
            f"{name} cannot take a latent of shape {shape}: {first_line(error)}{remedy(module, error)}"
        ) from error
    finally:
        for w, requires in zip(weights, before, strict=True):
            w.requires_grad_(requires)


# What a module's code raises over a latent that does not suit it.
RAISED = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError,
           NotImplementedError, NameError)  # fmt: skip


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


def same(a: Look, b: Look) -> bool:
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
        x is y or (x is not None and y is not None and _near(x, y))
        for x, y in zip(a.of_weights, b.of_weights, strict=True)
    )


def _near(x: tuple[float, ...], y: tuple[float, ...]) -> bool:
    """Whether sums of two gradients differ by no more than 1e-3 of the sums of absolute values."""
    return all(math.isnan(a + b) or math.isclose(a, b, abs_tol=1e-3 * abs(x[0])) for a, b in zip(x, y, strict=True))


def sums(tensor: torch.Tensor) -> tuple[float, ...]:
    """What tells a tensor from others: the sum of its absolute values, its sum, and that of every second number."""
    numbers = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).detach().reshape(-1)
    size = torch.linalg.vector_norm(numbers, 1) if numbers.is_floating_point() else numbers.sum()
    return float(size), float(numbers.sum(dtype=torch.float64)), float(numbers[::2].sum(dtype=torch.float64))


def _in_place(module: nn.Module, z: torch.Tensor, raised: str) -> str:
    """Which work in place spoils a gradient, in words: the layer without which there is one, or whose output it is."""
    for name, layer in module.named_modules():
        if getattr(layer, "inplace", False) is not True:
            continue
        trial = copied(module)
        trial.get_submodule(name).inplace = False  # type: ignore[assignment]
        try:
            trial(z.detach().clone().requires_grad_().clone()).sum().backward()
        except RAISED:
            continue
        return f"layer {name!r} ({type(layer).__name__}) changes in place what a gradient needs; give it inplace=False"
    spoilt = re.search(r"output \d+ of (\w+)", raised)
    what = f"the output of {spoilt[1].removesuffix('Backward0')}" if spoilt else "a tensor"
    return (
        f"{what} is changed in place (by x += 1, x.relu_(), x[i] = …, or several layers with inplace=True) and a "
        "gradient needs it as it was; make a new tensor there"
    )


def remedy(module: nn.Module, error: Exception) -> str:
    """What to do about some errors that a generator's own code raises."""
    words = str(error)
    if isinstance(error, TypeError) and words.startswith(f"{type(module).forward.__qualname__}() missing"):
        return ". A search passes the latent alone: wrap it in a module that fixes the others"
    if "use_reentrant" in words or "Checkpointing is not compatible" in words:
        return ". Give torch.utils.checkpoint use_reentrant=False, or leave it out: it saves no memory here"
    return ""


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
