"""scikit-learn's digits."""

from __future__ import annotations

import numpy as np

from .image_set import ImageSet


def load_digits() -> ImageSet:
    """scikit-learn's handwritten digits: 1797 images (1, 8, 8), 0..16 scaled to [-1, 1] as float32, with labels 0..9.

    They come with scikit-learn: nothing is downloaded.
    """
    try:
        from sklearn.datasets import load_digits as fetch
    except ImportError as error:
        raise ImportError("load_digits needs scikit-learn: pip install scikit-learn") from error
    digits = fetch()
    images = (digits.images[:, None] / 8.0 - 1.0).astype(np.float32)
    return ImageSet(images, digits.target.astype(np.int64), classes=tuple(map(str, range(10))))
