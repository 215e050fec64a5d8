"""The shape of a generator's latent, found by trying what its layers and attributes suggest."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..core.starts import draw
from .look import Shape, described, first_line, remedy
from .working_copy import copied

ATTRIBUTES = (
    "latent_dim", "latent_size", "latent_channels", "n_latent", "dim_latent", "latents", "latent", "nz", "n_z", "z_dim",
    "dim_z", "z_size", "z_channels", "zdim", "noise_dim", "noise_size", "code_dim", "code_size", "embed_dim",
    "embedding_dim", "in_dim", "input_dim", "input_size", "in_channels", "hidden_dim",
)  # fmt: skip
"""Where generators keep the size of their latent."""
LARGE = 8
"""A latent of more than so many times an image's numbers is tried by its shape first: some modules take all but its
last dimension for a batch, and what they would make of that may not fit into memory."""
HALVINGS = 7  # of the image's sides, down to which a spatial latent is looked for


def latent_shape(module: nn.Module, image_shape: Shape, device: torch.device, dtype: torch.dtype) -> Shape:
    """The one shape, of those that the generator's own layers suggest, from which it makes images of `image_shape`.

    A `latent_shape` attribute of the module says it. Shapes that differ in sizes of one, and make the same image of the
    same numbers, count as one. Raises ValueError naming what was tried and what came of it.
    """
    if given := said(module):
        return given
    trial = copied(module)  # a forward may change a module's state
    good: dict[Shape, torch.Tensor] = {}
    others: dict[Shape, str] = {}
    raised: list[str] = []

    def made_from(shape: Shape) -> object:
        """What the generator makes of a latent of this shape, kept in `good` or `others`; None where it raises."""
        z = draw(0, None, 1, shape, "normal").to(device, dtype)
        try:
            with torch.no_grad():
                large = math.prod(shape) > LARGE * math.prod(image_shape)
                made = _in_shape(trial, z) if large else trial(z)
                if large and _is_image(made, image_shape):
                    made = trial(z)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a shape that does not suit may have the module's own code raise anything
            raised.append(f"{first_line(error)}{remedy(module, error)}")
            return None
        if isinstance(made, torch.Tensor) and _is_image(made, image_shape):
            good[shape] = made
        else:
            others[shape] = described(made)
        return made

    sizes = list(dict.fromkeys(_sizes(module)))
    for shape in dict.fromkeys((*_attributes(module), *((size,) for size in sizes), *((size, 1, 1) for size in sizes))):
        made_from(shape)
    for size in sizes:
        for height, width in _maps(image_shape):
            shape = (size, height, width)
            if shape in (*good, *others) or shape == image_shape:  # an image to image map is no generator
                continue
            made = made_from(shape)
            if isinstance(made, torch.Tensor) and made.dim() == 4 and made.shape[2] > image_shape[1]:
                break  # from a larger map a larger image
    return _only(f"generator {type(module).__name__}", image_shape, _distinct(good), others, sizes, raised)


def _in_shape(module: nn.Module, z: torch.Tensor) -> object:
    """What a module makes of z, without its numbers: neither memory nor time is spent on them."""
    shapes_that_do_not_suit = logging.getLogger("torch._subclasses.fake_tensor")  # it shows each as an error
    shapes_that_do_not_suit.addFilter(_nothing)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            return module(mode.from_tensor(z))
    finally:
        shapes_that_do_not_suit.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _is_image(made: object, image_shape: Shape) -> bool:
    return isinstance(made, torch.Tensor) and tuple(made.shape) == (1, *image_shape)


def said(module: nn.Module) -> Shape | None:
    """What the module's own `latent_shape` says, where it is a size or sizes."""
    given = getattr(module, "latent_shape", None)
    if isinstance(given, int):
        return (given,)
    if isinstance(given, (tuple, list)) and given and all(isinstance(size, int) for size in given):
        return tuple(given)
    return None


def _only(
    name: str, image_shape: Shape, found: list[Shape], others: dict[Shape, str], sizes: list[int], raised: list[str]
) -> Shape:
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"latent_shape of {name} is ambiguous: {', '.join(map(str, found))} each make images of shape "
            f"{image_shape}; say which, for example latent_shape={found[0]}"
        )
    wanted = f"(N, {', '.join(map(str, image_shape))})"
    if others:
        seen = "; ".join(f"{what} from a latent (1, {', '.join(map(str, shape))})" for shape, what in others.items())
        raise ValueError(
            f"images have shape {wanted}, and a generator must return one tensor (B, C, H, W) of that size, but {name} "
            f"returned {seen}. Give images of its size and channels, as (N, C, H, W), have it return the image "
            "alone, or pass its latent_shape"
        )
    raise ValueError(
        f"latent_shape of {name} cannot be found: {f'none of the sizes {sizes[:12]}' if sizes else 'nothing'} that its "
        f"layers suggest makes images of shape {wanted}; pass it, for example latent_shape=(256,)"
        + (f". (The first that was tried: {raised[0]})" if raised else "")
    )


def _attributes(module: nn.Module) -> Iterator[Shape]:
    """Shapes that the attributes of a module, and of the modules in it, may mean."""
    for owner in module.modules():
        for name in ATTRIBUTES:
            for value in (getattr(owner, name, None), _setting(owner, name)):
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    yield from ((value,), (value, 1, 1))
                elif isinstance(value, (tuple, list)) and value and all(isinstance(v, int) and v > 0 for v in value):
                    yield tuple(value)


def _maps(image_shape: Shape) -> list[tuple[int, int]]:
    """Height and width of maps from which an image may grow: its own, halved again and again; the smallest first."""
    height, width = image_shape[1:]
    found = {(-(-height // 2**halving), -(-width // 2**halving)) for halving in range(HALVINGS)}
    return sorted(found - {(1, 1)})


def _setting(owner: nn.Module, name: str) -> Any:
    """An attribute of a module's `config`, `opt` or `args`."""
    for holder in ("config", "opt", "args", "cfg", "hparams"):
        held = getattr(owner, holder, None)
        value = held.get(name) if isinstance(held, dict) else getattr(held, name, None)
        if value is not None:
            return value
    return None


def _sizes(module: nn.Module) -> Iterator[int]:
    """What layers take in, by their own word where they have one, else by the shapes of their parameters."""
    for owner in module.modules():
        for name in ("in_features", "in_channels", "num_features", "num_channels", "embedding_dim"):
            value = getattr(owner, name, None)
            if isinstance(value, int) and value > 0:
                yield value
        for tensor in (*owner.parameters(recurse=False), *owner.buffers(recurse=False)):
            yield from (size for size in tensor.shape[:2][::-1] if size > 1)  # a size of one would broadcast to any


def _distinct(good: dict[Shape, torch.Tensor]) -> list[Shape]:
    """Of shapes that are the same numbers to the generator, the one with the fewest dimensions."""
    kept: list[Shape] = []
    for shape in sorted(good, key=len):
        if not any(_numbers(shape) == _numbers(other) and torch.equal(good[shape], good[other]) for other in kept):
            kept.append(shape)
    return kept


def _numbers(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
