"""Folders of pictures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..given import whole
from . import pictures
from .image_set import ImageSet
from .paths import PathLike, existing_folder

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


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
    heads = [pictures.head(file) for file in files]
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
        image[...] = pictures.decode(file, channels, sides)
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
        raise ValueError(f"{folder}: no pictures; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
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
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
