"""IMAGES, and the options that say how images get their shape: of every command that reads them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from .given import Failure, Mistake

if TYPE_CHECKING:  # each function imports what it needs: help, info and check do without pyarrow
    from ..jobs.source import Source
    from ..jobs.sources import Shaping
    from . import say

Images = Annotated[str, typer.Argument(help="see above")]
Size = Annotated[str | None, typer.Option(help="side, or HEIGHTxWIDTH, that images are brought to")]
Gray = Annotated[bool | None, typer.Option("--gray/--color", help="make images grey, or of three channels")]
Resize = Annotated[
    str | None,
    typer.Option(help="fit, crop or pad: another aspect is stretched, cut to its middle, or padded with black"),
]
Column = Annotated[
    str | None,
    typer.Option(help="of a parquet file the column of images or of their paths, of an .npz the array of images"),
]
Within = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="folder that paths in a parquet file may lead to; without it the file's own"),
]

ALL = 2**62
"""More than any source has."""
MISFITS = 256
"""So many images of which none fits are no accident: nothing more is read."""


def shaping(size: str | None, gray: bool | None, resize: str | None, shape: tuple[int, ...] | None = None) -> Shaping:
    """What the options say; with the `shape` (C, H, W) that a generator makes, where it is known, they have to fit it.

    Without an option an image has to have that shape.
    """
    from ..jobs.sources import Shaping

    sides = sizes(size)
    channels = None if gray is None else 1 if gray else 3
    expected = None
    if shape is not None:
        expected = (shape[0], shape[1], shape[2])
        if sides is not None and sides != expected[1:]:
            raise Mistake(f"--size {size} is {sides}, but the generator makes images of {expected[1:]}: leave it out")
        if channels is not None and channels != expected[0]:
            option = "--gray" if gray else "--color"
            raise Mistake(f"{option} makes images of {channels} channels, the generator makes {expected[0]}")
        if resize is not None:
            sides = expected[1:]
    if resize and sides is None:
        raise Mistake(f"--resize {resize} needs --size, the size to bring images to")
    try:
        return Shaping(sides, channels, "fit" if resize is None else resize, expected)  # type: ignore[arg-type]
    except ValueError as error:
        raise Mistake(f"--{error}") from error


def sizes(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "28" or "28x32"."""
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise Mistake(f"--size must be a side like 28, or HEIGHTxWIDTH like 28x32, got {text!r}")
    return int(parts[0]), int(parts[-1])


def opened(
    name: str, shaping: Shaping, *, labels: bool = False, column: str | None = None, within: str | None = None
) -> Source:
    """The source that IMAGES stands for."""
    from ..jobs.sources import open_source

    try:
        return open_source(name, shaping, labels=labels, column=column, within=within)
    except (OSError, ValueError) as error:
        raise Mistake(str(error)) from error


def first_shape(source: Source) -> tuple[int, ...] | None:
    """(C, H, W) of the first image that can be used; None where none can be read.

    Mistake where there is no image at all; and where there are such as do not fit (MISFITS of them, or all that can be
    read), but none that does: a job on these is refused before it begins.
    """
    from ..jobs.errors import JobError
    from ..jobs.source import Misfit, Unreadable

    misfits: list[tuple[int, str]] = []
    row = -1
    try:
        for row, image in enumerate(source.read(0, ALL)):
            if not isinstance(image, Unreadable):
                return tuple(image.shape)
            misfits += [(row, str(image))] if isinstance(image, Misfit) else []
            if len(misfits) == MISFITS:
                break
        if misfits:
            at, reason = misfits[0]
            first = next(itertools.islice(source.items(), at, None)).id
            raise Mistake(f"{source.name}: no image can be used; the first, {first!r}: {reason}")
    except ValueError as error:
        raise Mistake(str(error)) from error
    except JobError as error:
        raise Failure(str(error)) from error
    if row < 0:
        raise Mistake(f"{source.name}: holds no image")
    return None


def readable(
    source: Source, bad: say.Bad | None, why_not: Callable[[npt.NDArray[Any]], str] = lambda _: ""
) -> Iterator[tuple[int, str, npt.NDArray[Any]]]:
    """Number, name and image (C, H, W) of those that can be read, and taken; the others are told, unless `bad` is None.

    Failure where a file of them is damaged, or has changed.
    """
    from ..jobs.errors import JobError
    from ..jobs.source import Unreadable

    try:
        for number, (item, image) in enumerate(zip(source.items(), source.read(0, ALL), strict=True)):
            if why := (str(image) or "unreadable") if isinstance(image, Unreadable) else why_not(image):
                if bad is not None:
                    bad.add(item.id, why)
            else:
                assert isinstance(image, np.ndarray)
                yield number, item.id, image
    except (JobError, ValueError) as error:
        raise Failure(str(error)) from error


def whole(source: Source, bad: say.Bad) -> npt.NDArray[Any]:
    """All images of a source that can be read, (N, C, H, W); those that cannot are told."""
    found: npt.NDArray[Any] | None = None
    count, first = 0, ""
    for _, name, image in readable(source, bad):
        if found is None:
            found, first = np.empty((sum(1 for _ in source.items()), *image.shape), image.dtype), name
        if image.shape != found.shape[1:]:
            raise Mistake(
                f"{name!r} has shape {image.shape}, but {first!r} has {found.shape[1:]}: "
                "--size, and --gray or --color, bring them to one"
            )
        found[count] = image
        count += 1
    if found is None:
        bad.tell()
        raise Mistake(f"{source.name}: holds no image" + (" that can be read" if bad.count else ""))
    return found[:count]
