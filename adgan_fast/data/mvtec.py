"""MVTec's layout of a category: normal images, images with defects, and masks of these (Bergmann et al. 2019).

CATEGORY/train/good/*.png
CATEGORY/test/good/*.png, CATEGORY/test/<defect>/*.png
CATEGORY/ground_truth/<defect>/<name>_mask.png
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import pictures
from .folders import load_folder
from .image_set import ImageSet
from .paths import PathLike, existing_folder

GOOD = "good"


class MaskedSet(NamedTuple):
    """Images, and where they are anomalous.

    Attributes:
        images: with labels by the kind of defect; ``classes`` has "good" for normal ones.
        masks: bool (N, H, W), True where a pixel is anomalous.
    """

    images: ImageSet
    masks: npt.NDArray[np.bool_]

    @property
    def anomalous(self) -> npt.NDArray[np.bool_]:
        """Which images are, (N,)."""
        assert self.images.labels is not None and self.images.classes is not None
        return np.array([self.images.classes[label] != GOOD for label in self.images.labels])


def load_mvtec(
    path: PathLike, part: str = "test", *, size: int | tuple[int, int] | None = None, channels: int | None = None
) -> MaskedSet:
    """A part of a category of MVTec AD, or of any set in its layout.

    Args:
        path: the category's folder.
        part: "train" or "test".
        size, channels: as for ``load_folder``; masks are resized with their images.

    Raises:
        FileNotFoundError: no such folder, or a defect without its mask, naming it.
        ValueError: as ``load_folder``; another part; a mask of another size than its image.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part must be 'train' or 'test', got {part!r}")
    folder = existing_folder(path)
    images = load_folder(existing_folder(folder / part), size=size, channels=channels)
    if images.labels is None or images.classes is None or images.names is None:
        raise ValueError(
            f"{folder / part}: pictures without folders of kinds; expected {GOOD}/ and one for each defect"
        )
    masks = np.zeros((len(images), *images.images.shape[2:]), dtype=bool)
    for mask, label, name in zip(masks, images.labels, images.names, strict=True):
        if images.classes[label] != GOOD:
            mask[...] = _mask(folder, folder / part / name, images.classes[label], masks.shape[1:])
    return MaskedSet(images, masks)


def _mask(folder: Path, image: Path, kind: str, sides: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Of one image, resized to `sides` as it was."""
    file = folder / "ground_truth" / kind / f"{image.stem}_mask.png"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: the mask of {image} is not there")
    expected, found = pictures.head(image).sides, pictures.head(file).sides
    if found != expected:
        raise ValueError(f"{file}: {found[0]}x{found[1]} pixels, its image has {expected[0]}x{expected[1]}")
    mask = Image.fromarray((pictures.decode(file, 1, found)[0] >= 128).astype(np.float32))
    # By area: a pixel is anomalous where any part of it is, so that no thin defect is lost.
    return np.asarray(mask.resize((sides[1], sides[0]), Image.Resampling.BOX)) > 0
