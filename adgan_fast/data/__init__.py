"""Loaders of image sets: MNIST, CIFAR-10, LSUN, MVTec's layout, folders, arrays, scikit-learn's digits.

They run no code from what they read.

Every loader returns an ``ImageSet`` and raises FileNotFoundError or ValueError naming the file, what was found and what
was expected.
"""

from .arrays import load_arrays
from .cifar import CIFAR10_CLASSES, load_cifar10
from .digits import load_digits
from .folders import load_folder
from .image_set import ImageSet, to_model_range
from .lsun import load_lsun
from .mnist import load_mnist, read_idx
from .mvtec import MaskedSet, load_mvtec
from .paths import PathLike, Split

__all__ = [
    "CIFAR10_CLASSES",
    "ImageSet",
    "MaskedSet",
    "PathLike",
    "Split",
    "load_arrays",
    "load_cifar10",
    "load_digits",
    "load_folder",
    "load_lsun",
    "load_mnist",
    "load_mvtec",
    "read_idx",
    "to_model_range",
]
