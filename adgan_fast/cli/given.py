"""What a user names on the command line: a generator, images, a shape. A mistake ends in one line, not a traceback."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import nn

from ..core.starts import draw
from ..generator.latent_shape import said
from ..generator.look import described
from ..generator.working_copy import Generator, home_of, working_copy
from ..models import DCGANGenerator

KEY = 0x1A6E5
"""Of the random images."""


class Mistake(typer.TyperException):
    """A user's mistake: the message names what was given, what was expected, and the remedy."""

    exit_code = 2


class Failure(typer.TyperException):
    """What was asked could not be done: the message says why."""

    exit_code = 1


class Interrupted(typer.TyperException):
    """The user has ended it: the message says what is needed to go on."""

    exit_code = 130


def generator(text: str) -> Generator:
    """A generator by its file (.safetensors, .pt2), the folder of its training run, or `module:callable`."""
    path = Path(text)
    if path.suffix == ".pt2":
        if not path.is_file():
            raise Mistake(f"{text}: no such file")
        return path
    if path.exists() or path.suffix in (".safetensors", ".json"):
        from ..training import load_generator

        try:
            return load_generator(path)
        except (OSError, ValueError) as error:
            raise Mistake(str(error)) from error
    if ":" not in text:
        raise Mistake(f"{text}: no such file; expected a .safetensors or .pt2 file, or module:callable")
    return _made(text)


def require_folder(out: Path) -> None:
    """Mistake where --out, a folder to be made or written into, is a file or lies below one."""
    there = next((path for path in (out, *out.parents) if path.exists()), None)
    if there is not None and not there.is_dir():
        raise Mistake(f"--out {out} is to be a folder, but {there} is a file: give another name")


def detector(text: str) -> Path | None:
    """The folder of a detector, if that is what is there."""
    from ..training.checkpoint import has_checkpoint, load_checkpoint

    folder = Path(text)
    if not (folder.is_dir() and has_checkpoint(folder)):
        return None
    try:
        _, meta = load_checkpoint(folder)
    except (OSError, ValueError) as error:
        raise Mistake(str(error)) from error
    return folder if meta.get("kind") == "detector" else None


def _made(text: str) -> Generator:
    """What the callable of `module:callable` returns. An error in the user's own code keeps its traceback."""
    make = called(text)
    name = text.partition(":")[2]
    if not callable(make):
        raise Mistake(f"{text}: {name} is a {type(make).__name__}; expected a callable that returns a torch.nn.Module")
    _require_no_arguments(text, name, make)
    made = make()
    if not isinstance(made, nn.Module):
        raise Mistake(f"{text}: {name}() returned a {type(made).__name__}, expected a torch.nn.Module")
    return made


def called(text: str, option: str = "") -> Any:
    """What `module:name` stands for, its module imported: from the current folder, or an installed package."""
    module, _, name = text.partition(":")
    before = f"{option}: " if option else ""
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise Mistake(f"{before}{text}: no such file, nor a name of the form module:callable")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        looked = "the current folder and the installed packages are looked through"
        raise Mistake(f"{before}{text}: {error}; {looked}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise Mistake(f"{before}{text}: {module} has no {name}")
        found = getattr(found, part)
    return found


def _require_no_arguments(text: str, name: str, make: Any) -> None:
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # some of C have none
        return
    try:
        signature.bind()
    except TypeError as error:
        raise Mistake(f"{text}: {name} is called without arguments, but: {error}") from error


def images(name: str, count: int, column: str | None = None, within: str | None = None) -> torch.Tensor:
    """The first `count` images that can be read of what IMAGES may be, see images.py: (n, C, H, W).

    column, within: as for `open_source`.
    """
    from ..jobs.source import Unreadable
    from ..jobs.sources import open_source

    found: list[npt.NDArray[Any]] = []
    reason = ""
    try:
        for image in open_source(name, column=column, within=within).read(0, 2**62):
            if len(found) == count:
                break
            if isinstance(image, Unreadable):
                reason = reason or f", the first: {image}"
                continue
            if found and image.shape != found[0].shape:
                raise Mistake(f"--images: {name}: images of several shapes, {found[0].shape} and {image.shape}")
            found.append(image)
    except (OSError, TypeError, ValueError) as error:
        raise Mistake(f"--images: {error}") from error
    if not found:
        raise Mistake(f"--images: {name} holds no image" + (f" that can be read{reason}" if reason else ""))
    return torch.from_numpy(np.stack(found))


def random_images(module: nn.Module, latent: tuple[int, ...], prior: str, count: int) -> torch.Tensor:
    """Uniform noise in [-1, 1] of a fixed key, of the shape that the generator makes from a latent."""
    made = image_shape(module, latent, prior)
    return draw(KEY, None, count, made, "uniform").to(home_of(module)[1])


def image_shape(module: nn.Module, latent: tuple[int, ...], prior: str) -> tuple[int, ...]:
    """(C, H, W) that the generator makes from a latent of this shape."""
    device, dtype = home_of(module)
    z = draw(0, None, 1, latent, prior).to(device, dtype)
    try:
        with torch.no_grad():
            made = module(z)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise Mistake(
            f"{type(module).__name__} does not take a latent of shape {tuple(z.shape)}: {error}; --latent-shape has to "
            "be the one that it takes"
        ) from error
    if not isinstance(made, torch.Tensor) or made.dim() != 4 or len(made) != 1:
        raise Mistake(f"{type(module).__name__} returned {described(made)} from one latent, expected (1, C, H, W)")
    return tuple(made.shape[1:])


def shape(text: str | None) -> tuple[int, ...] | None:
    """A shape as "256" or "64,4,4"."""
    if text is None:
        return None
    sizes = text.replace("x", ",").split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise Mistake(f"--latent-shape must be sizes like 256 or 64,4,4, got {text!r}")
    return tuple(map(int, sizes))


def module(text: str, device: Any = None) -> nn.Module:
    """A copy of the generator as a module of its own, on `device` (its own when None)."""
    try:
        torch.device(device or "cpu")
    except RuntimeError as error:
        raise Mistake(f"--device {device} is not a torch device: {error}") from error
    return copied(generator(text), device)


def copied(made: Generator, device: Any = None) -> nn.Module:
    """A copy of a generator as a module of its own, on `device` (its own when None)."""
    try:
        return working_copy(made, device)
    except (OSError, TypeError, ValueError) as error:
        raise Mistake(str(error)) from error


def said_latent_shape(module: nn.Module) -> tuple[int, ...] | None:
    """The latent's shape, where the generator says it itself."""
    return (module.latent,) if isinstance(module, DCGANGenerator) else said(module)


def own_latent_shape(module: nn.Module) -> tuple[int, ...]:
    """The latent's shape where a generator says it itself; without images there is nothing to try shapes by."""
    if shape := said_latent_shape(module):
        return shape
    raise Mistake(
        f"{type(module).__name__} does not say the shape of its latent: give --latent-shape, or --images to find it by"
    )
