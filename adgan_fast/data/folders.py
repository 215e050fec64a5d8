"""Folders of pictures."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..given import whole
from .image_set import ImageSet
from .paths import PathLike, existing_folder

T = TypeVar("T")
_IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
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


def load_folder(path: PathLike, *, size: int | tuple[int, int] | None = None, channels: int | None = None) -> ImageSet:
    """A folder of pictures, sorted by name; or of one subfolder for each class, which then gives labels.

    Pictures are turned as their EXIF data says, where it can be read; transparency is dropped; of several frames or
    pages the first is taken. Passed over are files that are not named like pictures, hidden files and folders (".x"),
    and ``__MACOSX``; and, with a warning, links that lead nowhere and linked folders below a class.

    Args:
        path: the folder.
        size: (height, width), or a side length: pictures are resized to it; when None they must be of one size.
        channels: 1 (greyscale) or 3 (RGB); when None, 1 if all pictures are greyscale: of a grey mode, or of a palette
            from which they use greys alone.

    Returns:
        uint8 images; ``names`` are paths below the folder; ``classes`` the subfolders' names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no pictures; or, naming the file, one that is damaged, cannot be read, has more than 8 bits a
            channel, more pixels than Pillow allows, or another size.
    """
    folder = existing_folder(path)
    if channels is not None and whole("channels", channels, 1) not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels!r}")
    sides = None if size is None else _sides(size)
    files, labels, classes = _pictures(folder)
    heads = [_head(file) for file in files]
    if channels is None:
        channels = 1 if all(head.grey for head in heads) else 3
    if sides is None:
        sides = heads[0].sides
        for file, head in zip(files, heads, strict=True):
            if head.sides != sides:
                found = f"{head.sides[0]}x{head.sides[1]} pixels, {files[0].name} has {sides[0]}x{sides[1]}"
                raise ValueError(f"{file}: {found}; load_folder(..., size=) resizes them")
    images = np.empty((len(files), channels, *sides), dtype=np.uint8)
    for image, file in zip(images, files, strict=True):
        image[...] = _decode(file, channels, sides)
    return ImageSet(images, labels, tuple(file.relative_to(folder).as_posix() for file in files), classes)


def _sides(size: Any) -> tuple[int, int]:
    both = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(both) != 2:
        raise ValueError(f"size must be a side length or (height, width), got {size!r}")
    return whole("size", both[0], 1), whole("size", both[1], 1)


def _pictures(folder: Path) -> tuple[list[Path], npt.NDArray[np.int64] | None, tuple[str, ...] | None]:
    links: list[Path] = []  # that are passed over
    files = [path for path in _entries(folder) if _is_picture(path)]
    by_class = {}
    for path in _entries(folder):
        if path.is_dir():
            by_class[path.name] = _pictures_below(path, links)
        elif not path.exists():
            links.append(path)
    by_class = {name: found for name, found in by_class.items() if found}
    if links:
        listed = ", ".join(str(path.relative_to(folder)) for path in links[:5]) + (", ..." if len(links) > 5 else "")
        remedy = "copy the pictures there, or link each of them"
        warnings.warn(
            f"{folder}: passed over {len(links)} links that lead nowhere or to folders: {listed}: {remedy}",
            stacklevel=3,
        )
    if files and by_class:
        beside = f"{len(files)} pictures lie beside class folders ({', '.join(by_class)})"
        raise ValueError(f"{folder}: {beside}: expected one or the other")
    if by_class:
        labels = np.repeat(np.arange(len(by_class)), [len(found) for found in by_class.values()])
        return [file for found in by_class.values() for file in found], labels, tuple(by_class)
    if not files:
        raise ValueError(f"{folder}: no pictures; looked for {', '.join(sorted(_IMAGE_SUFFIXES))}")
    return files, None, None


def _pictures_below(place: Path, links: list[Path]) -> list[Path]:
    """Pictures of a class folder and its subfolders; adds to ``links`` those that lead nowhere or to a folder."""
    found = []
    for path in _entries(place):
        if path.is_symlink() and not path.is_file():  # a linked folder could lead back here, and round for ever
            links.append(path)
        elif path.is_dir():
            found += _pictures_below(path, links)
        elif _is_picture(path):
            found.append(path)
    return found


def _entries(place: Path) -> list[Path]:
    """What lies in a folder, by name; without what systems and editors leave there."""
    try:
        return sorted(path for path in place.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX")
    except OSError as error:
        raise ValueError(f"{place}: cannot be read ({error.strerror})") from error


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _IMAGE_SUFFIXES and path.is_file()


class _Head(NamedTuple):
    sides: tuple[int, int]  # (height, width), once it is turned upright
    grey: bool
    deep: bool  # more than 8 bits a channel


def _head(file: Path) -> _Head:
    def look(picture: Image.Image) -> _Head:
        # 16 bits a channel: grey has a mode of its own, colour is cut to 8 bits as it is decoded ("RGB;16B"). Asked
        # first: to look for EXIF data can decode a picture, which leaves no trace of that.
        cut = any(re.search(";16[BLNS]", str(tile)) for tile in getattr(picture, "tile", ()))
        width, height = picture.size
        if picture.format != "TIFF" and _orientation(picture) >= 5:  # of a TIFF, Pillow tells the size after turning
            width, height = height, width
        return _Head((height, width), _is_grey(picture), cut or picture.mode.startswith(("I", "F")))

    head = _read(file, look)
    if head.deep:
        raise ValueError(f"{file}: more than 8 bits a channel, expected 8: convert it, or use load_arrays")
    return head


def _decode(file: Path, channels: int, sides: tuple[int, int]) -> npt.NDArray[np.uint8]:
    def look(picture: Image.Image) -> Image.Image:
        picture.load()  # turns a TIFF, and lets go of its orientation
        turn = _TURNS.get(_orientation(picture))
        upright = picture if turn is None else picture.transpose(turn)
        return upright.convert("L" if channels == 1 else "RGB")

    upright = _read(file, look)
    if (upright.height, upright.width) != sides:
        upright = upright.resize((sides[1], sides[0]), Image.Resampling.LANCZOS)
    pixels = np.asarray(upright, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _read(file: Path, look: Callable[[Image.Image], T]) -> T:
    """What ``look`` finds in the picture; whatever goes wrong becomes a ValueError that names the file."""
    try:
        # Opened here, and not by Pillow: of files that it opens itself it maps some, and then mixes up the sides of a
        # TIFF that is to be turned (seen with Pillow 13.0).
        with warnings.catch_warnings(), open(file, "rb") as raw:
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # which would not name the file
            if not raw.peek(1):
                raise ValueError("the file is empty")
            with Image.open(raw, formats=_FORMATS) as picture:
                return look(picture)
    except UnidentifiedImageError as error:
        expected = f"damaged, or none of {', '.join(_FORMATS)}"
        raise ValueError(f"{file}: not a picture, or a damaged one (its head is {expected})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        remedy = "if the file is to be trusted, raise PIL.Image.MAX_IMAGE_PIXELS"
        raise ValueError(f"{file}: too many pixels ({error}): {remedy}") from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the content
            raise ValueError(f"{file}: cannot be read ({error.strerror})") from error
        raise ValueError(f"{file}: not a picture, or a damaged one ({error})") from error


def _orientation(picture: Image.Image) -> int:
    """1 to 8, as EXIF numbers them; 1 where there is none, and where it is broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF data
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
