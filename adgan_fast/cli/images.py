"""IMAGES, and the options that say how images get their shape: of every command that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .given import Mistake

if TYPE_CHECKING:  # each function imports what it needs: help, info and check do without pyarrow
    from ..jobs.source import Source
    from ..jobs.sources import Shaping

Images = Annotated[str, typer.Argument(help="see above")]
Size = Annotated[str | None, typer.Option(help="side, or HEIGHTxWIDTH, that images are brought to")]
Gray = Annotated[bool | None, typer.Option("--gray/--color", help="make images grey, or of three channels")]
Resize = Annotated[
    str | None,
    typer.Option(help="fit, crop or pad: another aspect is stretched, cut to its middle, or padded with black"),
]
Column = Annotated[str | None, typer.Option(help="of a parquet file, the column of images or of their paths")]


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


def opened(name: str, shaping: Shaping, *, labels: bool = False, column: str | None = None) -> Source:
    """The source that IMAGES stands for."""
    from ..jobs.sources import open_source

    try:
        return open_source(name, shaping, labels=labels, column=column)
    except (OSError, ValueError) as error:
        raise Mistake(str(error)) from error


def first_shape(source: Source, most: int = 256) -> tuple[int, ...]:
    """(C, H, W) of the first image that can be read, among the first `most`; Mistake where there is none.

    A job on images none of which fits is so refused before it begins.
    """
    from ..jobs.source import Unreadable

    reason = ""
    try:
        for image in source.read(0, most):
            if not isinstance(image, Unreadable):
                return tuple(image.shape)
            reason = reason or str(image)
        if not reason:
            raise Mistake(f"{source.name}: holds no image")
    except ValueError as error:
        raise Mistake(str(error)) from error
    first = next(iter(source.items())).id
    raise Mistake(f"{source.name}: no image can be used; the first, {first!r}: {reason}")
