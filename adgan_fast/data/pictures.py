"""One encoded picture, in a file or in memory, as pixels: upright, of 8 bits a channel."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from . import paths

T = TypeVar("T")
# Of Pillow's readers those for these suffixes: others start programs (Ghostscript, for EPS), whatever a file is named.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow raises for a damaged or hostile file.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    struct.error, zlib.error,
)  # fmt: skip
# How a picture of each EXIF orientation is put upright; 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Head(NamedTuple):
    """What a picture is, told without its pixels."""

    sides: tuple[int, int]  # (height, width), once it is turned upright
    grey: bool
    deep: bool  # more than 8 bits a channel


def head(file: Path) -> Head:
    """Of the picture in a file; ValueError naming it where it is damaged, or has more than 8 bits a channel."""

    def look(picture: Image.Image) -> Head:
        # Asked first: to look for EXIF data can decode a picture, which leaves no trace of its depth.
        deep = _is_deep(picture)
        width, height = picture.size
        if picture.format != "TIFF" and _orientation(picture) >= 5:  # of a TIFF, Pillow tells the size after turning
            width, height = height, width
        return Head((height, width), _is_grey(picture), deep)

    found = _read(file, look)
    if found.deep:
        raise _too_deep(file)
    return found


def upright(file: Path, channels: int | None = None, data: bytes | None = None) -> Image.Image:
    """The picture in a file, or in `data` and then `file` is its name: upright, of mode L (1 channel) or RGB (3).

    Args:
        channels: 1 or 3; when None, 1 where it is grey.

    Raises:
        ValueError: naming the file, where it is damaged, or has more than 8 bits a channel.
    """

    def look(picture: Image.Image) -> Image.Image | None:
        if _is_deep(picture):
            return None
        return _upright(picture, channels or (1 if _is_grey(picture) else 3))

    found = _read(file, look, data)
    if found is None:
        raise _too_deep(file)
    return found


def decode(file: Path, channels: int, sides: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(channels, *sides) of the picture in a file, resized to it; ValueError naming the file where it is damaged."""
    picture = _read(file, lambda picture: _upright(picture, channels))
    if (picture.height, picture.width) != sides:
        picture = picture.resize((sides[1], sides[0]), Image.Resampling.LANCZOS)
    return pixels(picture)


def decode_square(name: Path, data: bytes, size: int) -> npt.NDArray[np.uint8]:
    """(3, size, size): the middle square of an encoded picture, resized; ValueError with `name` where it is damaged."""
    picture = _read(name, lambda picture: _upright(picture, 3), data)
    return pixels(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS))


def _upright(picture: Image.Image, channels: int) -> Image.Image:
    picture.load()  # turns a TIFF, and lets go of its orientation
    turn = _TURNS.get(_orientation(picture))
    upright = picture if turn is None else picture.transpose(turn)
    return upright.convert("L" if channels == 1 else "RGB")


def _is_deep(picture: Image.Image) -> bool:
    """Whether it has more than 8 bits a channel; to be asked before it is decoded."""
    # Grey has a mode of its own, colour is cut to 8 bits as it is decoded ("RGB;16B").
    cut = any(re.search(";16[BLNS]", str(tile)) for tile in getattr(picture, "tile", ()))
    return cut or picture.mode.startswith(("I", "F"))


def _too_deep(file: Path) -> ValueError:
    return ValueError(
        f"{file}: more than 8 bits a channel, expected 8: convert it, or store it as floats in [-1, 1] in an .npy"
    )


def pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """(1, H, W) or (3, H, W) of a picture of mode L or RGB."""
    found = np.asarray(picture, dtype=np.uint8)
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)


def _read(file: Path, look: Callable[[Image.Image], T], data: bytes | None = None) -> T:
    """What ``look`` finds in the picture; whatever goes wrong becomes a ValueError that names the file.

    With ``data`` that is the picture, and ``file`` a name alone.
    """
    try:
        # Opened here, and not by Pillow: of files that it opens itself it maps some, and then mixes up the sides of a
        # TIFF that is to be turned (seen with Pillow 13.0).
        with paths.opened(file) if data is None else io.BytesIO(data) as raw:
            if not raw.read(1):
                raise ValueError("the file is empty")
            raw.seek(0)
            with _warnings_are("error", Image.DecompressionBombWarning):  # which would not name the file
                opened = Image.open(raw, formats=_FORMATS)
            with opened as picture:
                return look(picture)
    except UnidentifiedImageError as error:
        expected = f"damaged, or none of {', '.join(_FORMATS)}"
        raise ValueError(f"{file}: not a picture, or a damaged one (its head is {expected})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        remedy = "make it smaller, or cut it; in Python, PIL.Image.MAX_IMAGE_PIXELS is the limit"
        raise ValueError(f"{file}: too many pixels ({error}): {remedy}") from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the content
            raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
        raise ValueError(f"{file}: not a picture, or a damaged one ({error})") from error


_filters = threading.Lock()


@contextlib.contextmanager
def _warnings_are(action: Literal["error", "ignore"], kind: type[Warning]) -> Iterator[None]:
    """Python's filters of warnings are one for all threads: who changes them waits for whoever has changed them."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter(action, kind)
        yield


def _orientation(picture: Image.Image) -> int:
    """1 to 8, as EXIF numbers them; 1 where there is none, and where it is broken."""
    try:
        with _warnings_are("ignore", Warning):  # of broken EXIF data
            value = picture.getexif().get(0x0112, 1)
    except _DAMAGED:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode != "P":
        return picture.mode in ("1", "L", "LA", "La")
    used = [index for _, index in picture.getcolors() or ()]
    colours = np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    colours = colours[[index for index in used if isinstance(index, int) and index < len(colours)]]
    return bool((colours == colours[:, :1]).all())
