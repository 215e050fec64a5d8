"""``--windows``: large images by windows, for every command that reads images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from torch import nn

from ..window_settings import Windows
from . import images, say
from .given import Failure, Mistake

if TYPE_CHECKING:
    from ..jobs.source import Source

CROPS = 20_000

Option = Annotated[
    str | None,
    typer.Option(
        "--windows",
        metavar="SIZE[,STRIDE]",
        help="take images of any size by windows of SIZE pixels, the generator's side (for train 8, 16, 28, 32 or 64); "
        "scored are those of a grid, STRIDE apart",
    ),
]
Standardize = Annotated[
    bool | None,
    typer.Option(
        "--standardize/--no-standardize",
        help="with --windows: each loses its own mean and scale, as under changing light",
    ),
]
Quantile = Annotated[
    float | None,
    typer.Option(help="with --windows and no detector: of an image's window scores, its score [default: 0.95]"),
]
Crops = Annotated[int | None, typer.Option(min=1, help=f"with --windows: random ones to train on [default: {CROPS}]")]


def given(text: str | None, standardize: bool | None, quantile: float | None = None) -> Windows | None:
    """What the options say; None without --windows, which the others go with."""
    if text is None:
        more = {"--standardize": standardize, "--quantile": quantile}
        if named := [name for name, value in more.items() if value is not None]:
            raise Mistake(f"{' and '.join(named)} go with --windows SIZE, or with a generator that was trained by it")
        return None
    parts = text.split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise Mistake(f"--windows must be SIZE or SIZE,STRIDE, as 32 or 32,16, got {text!r}")
    size, *stride = (int(part) for part in parts)
    try:
        of = Windows(size, stride[0] if stride else None, bool(standardize))
        return of if quantile is None else dataclasses.replace(of, quantile=quantile)
    except ValueError as error:
        raise Mistake(f"--windows {text}: {error}") from error


def of_generator(
    module: nn.Module, text: str | None, standardize: bool | None, quantile: float | None
) -> Windows | None:
    """What the options say, which must agree with what the generator was trained by; without options, the latter."""
    known: Windows | None = getattr(module, "windows", None)
    if known is None:
        return given(text, standardize, quantile)
    mine = given(text or f"{known.size},{known.stride}", known.standardize if standardize is None else standardize)
    assert mine is not None
    if (mine.size, mine.standardize) != (known.size, known.standardize):
        how = "standardized" if known.standardize else "not standardized"
        raise Mistake(f"the generator was trained by windows of {known.size}, {how}: leave out what differs")
    try:
        return dataclasses.replace(mine, quantile=known.quantile if quantile is None else quantile)
    except ValueError as error:
        raise Mistake(f"--quantile: {error}") from error


def fitting(source: Source, windows: Windows, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """(C, SIZE, SIZE), of the first image; None where none can be read. Mistake where the generator makes another."""
    from ..jobs.sources.shaping import mismatch

    first = images.first_shape(source)
    if first is None:
        return None
    channels = first[0]
    found = (channels, windows.size, windows.size)
    if shape is not None and shape[1:] != found[1:]:
        raise Mistake(f"--windows must be of the size that the generator makes, {shape[1]}, got {windows.size}")
    if shape is not None and shape[0] != channels:
        raise Mistake(f"{source.name}: {mismatch(found, shape)}")
    return found


def crops(source: Source, windows: Windows, count: int, seed: int, bad: say.Bad) -> np.ndarray:
    """Random windows of all images that can be read, (count, C, S, S); the images are read twice, one at a time.

    Those that cannot, or are smaller than a window, are told.
    """
    from ..windows import BLOCK, random_places, standardized, too_small

    def fitting(bad: say.Bad | None) -> Iterator[tuple[int, str, np.ndarray]]:
        return images.readable(source, bad, lambda image: too_small(image, windows.size))

    changed = Failure(f"{source.name}: images have changed while they were read")
    try:
        sides: dict[int, tuple[int, ...]] = {}
        kinds: set[tuple[Any, ...]] = set()
        for number, _, image in fitting(bad):
            sides[number] = image.shape[1:]
            kinds.add((len(image), image.dtype))
        if len(kinds) != 1:
            what = "no image is as large as a window" if not kinds else "images differ in channels: --gray or --color"
            raise Mistake(f"{source.name}: {what}")
        channels, dtype = kinds.pop()
        places = random_places(list(sides.values()), windows.size, count, seed)
        made = np.empty((count, channels, windows.size, windows.size), dtype)
        there = enumerate(sides.items())
        for number, _, image in fitting(None):
            which, before = next(there, (0, None))
            if before != (number, image.shape[1:]):
                raise changed
            for row in np.flatnonzero(places[:, 0] == which):
                _, y, x = places[row]
                made[row] = image[:, y : y + windows.size, x : x + windows.size]
        if next(there, None):
            raise changed
        if not windows.standardize:
            return made
        plain = np.empty(made.shape, np.float32)
        for first in range(0, count, BLOCK):
            plain[first : first + BLOCK] = standardized(made[first : first + BLOCK]).windows
        return plain
    except ValueError as error:
        raise Failure(str(error)) from error
