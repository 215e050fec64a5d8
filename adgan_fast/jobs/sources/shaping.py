"""`Shaping`: how one image, from a picture or an array, becomes an image of the generator's shape."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ...data import pictures
from ...given import one_of, whole
from ...validate import RANGE_SLACK
from ..source import Misfit, Unreadable

Resize = Literal["fit", "crop", "pad"]
RESIZES: tuple[Resize, ...] = get_args(Resize)
Pixels = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Shaping:
    """How images become (C, H, W). Invalid values raise ValueError naming the field.

    Attributes:
        size: (height, width) that every image is brought to; None: as it is.
        channels: 1 makes images grey (ITU-R 601 luma), 3 colours of grey ones; None: as they are, a picture by its
            mode or palette.
        resize: what becomes of another aspect. ``"fit"``: stretched; ``"crop"``: its middle part, as large as possible;
            ``"pad"``: the whole of it, with black around.
        expected: (C, H, W) that an image has to have in the end; another one is Unreadable. None: any.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    resize: Resize = "fit"
    expected: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.size is not None:
            if not isinstance(self.size, (tuple, list)) or len(self.size) != 2:
                raise ValueError(f"size must be (height, width), got {self.size!r}")
            object.__setattr__(self, "size", tuple(whole("size", side, 1) for side in self.size))
        if self.channels is not None and whole("channels", self.channels, 1) not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels!r}")
        one_of("resize", self.resize, RESIZES)

    def described(self) -> dict[str, Any]:
        """What decides the pixels, as JSON has it."""
        size = None if self.size is None else list(self.size)
        return {"size": size, "channels": self.channels, "resize": self.resize if size else None}

    def of_picture(self, file: str | os.PathLike[str], data: bytes | None = None) -> npt.NDArray[np.uint8] | Unreadable:
        """(C, H, W) uint8 of the picture in a file, or in ``data``, and then ``file`` is its name."""
        path = Path(file)
        try:
            picture = pictures.upright(path, self.channels, data)
        except ValueError as error:
            return Unreadable(str(error).removeprefix(f"{path}: "))
        except MemoryError:
            return Unreadable("takes more memory to decode than there is")
        return self._checked(pictures.pixels(self._resized(picture)))

    def of_array(self, image: Pixels) -> Pixels | Unreadable:
        """(C, H, W) of an array (C, H, W): uint8, or float32 of floats, which have to lie in [-1, 1] or be NaN or Inf.

        Those are left for the search to say.
        """
        if image.dtype != np.uint8:
            image = image.astype(np.float32)
            finite = image[np.isfinite(image)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
            if low < -1 - RANGE_SLACK or high > 1 + RANGE_SLACK:
                return Misfit(
                    f"floats have to lie in [-1, 1], these span [{low:.4g}, {high:.4g}]: scale them, or store uint8"
                )
        if self.channels is not None and len(image) != self.channels:
            if len(image) not in (1, 3):
                return Misfit(f"an image of {len(image)} channels, of which none of {self.channels} can be made")
            image = np.repeat(image, 3, 0) if self.channels == 3 else _grey(image)
        if self.size is not None and image.shape[1:] != self.size:
            planes = [np.asarray(self._resized(Image.fromarray(np.ascontiguousarray(plane)))) for plane in image]
            all_finite = image.dtype == np.uint8 or bool(np.isfinite(image).all())
            image = np.stack(planes)
            if not all_finite:  # nor is it then, whatever was cut away
                image.fill(np.nan)
            elif image.dtype != np.uint8:
                image = image.clip(-1, 1)  # Lanczos overshoots
        return self._checked(np.ascontiguousarray(image))

    def _resized(self, picture: Image.Image) -> Image.Image:
        if self.size is None or (picture.height, picture.width) == self.size:
            return picture
        sides, how = (self.size[1], self.size[0]), Image.Resampling.LANCZOS
        if self.resize == "fit":
            return picture.resize(sides, how)
        if self.resize == "crop":
            return ImageOps.fit(picture, sides, how)
        black = -1 if picture.mode == "F" else 0
        return ImageOps.pad(picture, sides, how, color=black if picture.mode != "RGB" else (0, 0, 0))

    def _checked(self, image: Pixels) -> Pixels | Unreadable:
        if self.expected is None or image.shape == self.expected:
            return image
        return Misfit(mismatch(image.shape, self.expected))


def mismatch(found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What is wrong, and the options of the command line that put it right."""
    remedies = []
    if found[1:] != expected[1:]:
        remedies.append("--resize fit, crop or pad")
    if found[0] != expected[0] and expected[0] in (1, 3):
        remedies.append("--gray" if expected[0] == 1 else "--color")
    remedy = f": {' and '.join(remedies)} would convert it" if remedies else ""
    return f"an image of shape {found}, but the generator makes {expected}{remedy}"


def _grey(image: Pixels) -> Pixels:
    """(1, H, W) of (3, H, W): the luma that Pillow has for pictures."""
    if image.dtype == np.uint8:
        colours = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        return np.asarray(colours.convert("L"))[None]
    weights = np.array([299, 587, 114], np.float32) / np.float32(1000)
    return np.tensordot(weights, image, 1)[None]
