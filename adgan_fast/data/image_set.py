"""`ImageSet`, what every loader returns, and the range in which a generator makes images."""

from __future__ import annotations

import dataclasses
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch

from .. import validate


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with what is known of them.

    Attributes:
        images: (N, C, H, W), uint8 or float32 in [-1, 1].
        labels: class of each image, int64 (N,), or None.
        names: name of each image (its file, say), or None.
        classes: name of each class, by label, or None.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.int64] | None = None
    names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ValueError(f"images must have shape (N, C, H, W), got {self.images.shape}")
        for name, values in (("labels", self.labels), ("names", self.names)):
            if values is not None and len(values) != len(self.images):
                raise ValueError(f"{name} must have one entry for each of {len(self.images)} images, got {len(values)}")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: npt.ArrayLike | slice) -> ImageSet:
        """The images at ``index``: a slice, positions, or a mask of N booleans."""
        positions = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        return ImageSet(
            self.images[positions],
            None if self.labels is None else self.labels[positions],
            None if self.names is None else tuple(self.names[position] for position in positions),
            self.classes,
        )

    def of_class(self, label: int | str) -> ImageSet:
        """The images of one class, given by its label or, where ``classes`` are known, by its name."""
        if self.labels is None:
            raise ValueError("these images have no labels")
        if isinstance(label, str):
            if self.classes is None or label not in self.classes:
                raise ValueError(f"no class named {label!r}; the names are {self.classes}")
            label = self.classes.index(label)
        mask = self.labels == label
        if not mask.any():
            raise ValueError(f"no image has label {label!r}; the labels are {np.unique(self.labels).tolist()}")
        return self.subset(mask)


@overload
def to_model_range(images: torch.Tensor) -> torch.Tensor: ...
@overload
def to_model_range(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]: ...
def to_model_range(images: Any) -> Any:
    """Images as a generator makes them: float32 (N, C, H, W) in [-1, 1]; a tensor for a tensor, an array for an array.

    Args:
        images: (N, C, H, W) or (N, H, W); uint8, which becomes x / 127.5 - 1, or floats, which have to lie there.

    Raises:
        TypeError, ValueError: another type of number, another shape, values out of range, NaN or Inf.
    """
    tensor = validate.as_images(images)
    validate.scan(tensor, strict=True)
    scaled = validate.to_range(tensor, torch.float32)
    return scaled if isinstance(images, torch.Tensor) else scaled.numpy()
