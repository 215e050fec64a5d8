"""Loaders of image sets: MNIST, CIFAR-10, folders, arrays, scikit-learn's digits. They run no code from what they read.

Every loader returns an ``ImageSet`` and raises FileNotFoundError or ValueError naming the file, what was found and what
was expected.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from . import validate
from .given import whole
from .plain_pickle import read_plain_pickle

Split = Literal["train", "test"]
PathLike = str | os.PathLike[str]
T = TypeVar("T")

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
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


def load_mnist(folder: PathLike, split: Split = "train") -> ImageSet:
    """MNIST (or a set in its format, as Fashion-MNIST) from the original idx files, gzipped or not.

    Args:
        folder: holds ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, or ``t10k-...`` for the test set,
            with or without ``.gz``.
        split: ``"train"`` or ``"test"``.
    """
    folder, prefix = _folder(folder), {"train": "train", "test": "t10k"}[_split(split)]
    files = [_idx_file(folder, f"{prefix}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    images, labels = read_idx(files[0], dimensions=3), read_idx(files[1], dimensions=1)
    if len(images) != len(labels):
        raise ValueError(f"{files[1]}: {len(labels)} labels for the {len(images)} images of {files[0].name}")
    return ImageSet(images[:, None], labels.astype(np.int64))


def read_idx(path: PathLike, dimensions: int | None = None) -> npt.NDArray[np.uint8]:
    """An idx file of unsigned bytes, gzipped or not (http://yann.lecun.com/exdb/mnist, "the IDX file format").

    Args:
        path: the file.
        dimensions: how many the array has to have; any when None.
    """
    path = _file(path)
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if zipped else raw as file:
                return _read_idx(path, file, dimensions)  # type: ignore[arg-type]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: its gzip data is cut short or damaged ({error})") from error


def _read_idx(path: Path, file: BinaryIO, dimensions: int | None) -> npt.NDArray[np.uint8]:
    magic = file.read(4)
    wanted = "00 00 08 and the number of dimensions" if dimensions is None else f"00 00 08 {dimensions:02x}"
    if len(magic) < 4 or magic[:3] != b"\x00\x00\x08" or magic[3] == 0 or dimensions not in (None, magic[3]):
        found = magic.hex(" ") or "nothing"
        raise ValueError(f"{path}: not an idx file of unsigned bytes: starts with {found}, expected {wanted}")
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError(f"{path}: cut short in its header: {4 + len(header)} bytes, expected {4 + 4 * magic[3]}")
    shape = tuple(np.frombuffer(header, dtype=">u4").tolist())
    size = 1
    for length in shape:
        size *= length
    data = _read_at_most(file, size + 1)
    if len(data) != size:
        found = f"{len(data)} bytes" if len(data) < size else "more"
        announced = "x".join(map(str, shape))
        raise ValueError(f"{path}: its header announces {announced} = {size} bytes of data, found {found}")
    try:
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    except ValueError as error:
        raise ValueError(f"{path}: its header announces a shape that no array can have, {shape}") from error


def _read_at_most(file: BinaryIO, size: int) -> bytearray:
    # Piece by piece: a header that lies about its size must not make us reserve that much.
    data = bytearray()
    while len(data) < size and (part := file.read(min(size - len(data), 1 << 24))):
        data += part
    return data


def load_cifar10(path: PathLike, split: Split = "train") -> ImageSet:
    """CIFAR-10: (N, 3, 32, 32) uint8 with labels 0..9 and class names.

    Args:
        path: an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test`` (images N x 32 x 32 x 3); or the
            original ``cifar-10-python.tar.gz``; or the folder ``cifar-10-batches-py`` (or the one that holds it). The
            original batches are pickles: they are read by a reader that knows plain data and refuses all else.
        split: ``"train"`` or ``"test"``.
    """
    path, names = Path(path), None
    if path.is_dir():
        inner = path / "cifar-10-batches-py"
        images, labels, names = _cifar_batches(_batches_of_folder(inner if inner.is_dir() else path, _split(split)))
    elif tarfile.is_tarfile(_file(path)):
        images, labels, names = _cifar_batches(_batches_of_tar(path, _split(split)))
    else:
        with _Npz(path) as file:
            images, labels = file.array(f"x_{_split(split)}"), file.array(f"y_{split}").reshape(-1)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
            raise ValueError(f"{path}: x_{split} is {images.dtype} {images.shape}, expected uint8 (N, 32, 32, 3)")
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    whole = labels.dtype.kind in "iu" and len(labels) == len(images)
    if not whole or (len(labels) and not 0 <= labels.min() <= labels.max() < 10):
        raise ValueError(f"{path}: expected {len(images)} labels in 0..9, found {len(labels)} of type {labels.dtype}")
    return ImageSet(images, labels.astype(np.int64), names, CIFAR10_CLASSES)


def _cifar_members(split: str) -> list[str]:
    return [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]


def _batches_of_folder(folder: Path, split: str) -> Iterator[tuple[str, bytes]]:
    for name in _cifar_members(split):
        yield str(folder / name), _file(folder / name).read_bytes()


def _batches_of_tar(path: Path, split: str) -> Iterator[tuple[str, bytes]]:
    # Read as one stream, into memory: nothing is unpacked to disk, so no member's name or link matters.
    wanted, found = _cifar_members(split), {}
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in wanted and member.isfile():
                    file = tar.extractfile(member)
                    assert file is not None  # of a regular file
                    found[name] = file.read()
                if len(found) == len(wanted):
                    break
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: a damaged archive ({error})") from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(f"{path}: the archive holds no {', '.join(missing)}")
    for name in wanted:
        yield f"{path}:{name}", found[name]


def _cifar_batches(
    batches: Iterator[tuple[str, bytes]],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], tuple[str, ...] | None]:
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    names: list[str] = []
    for source, data in batches:
        batch = read_plain_pickle(data, source)
        if not isinstance(batch, dict):
            raise ValueError(f"{source}: holds a {type(batch).__name__}, expected a dict")
        # Keys are bytes in the original files, which Python 2 wrote, and text in copies by Python 3.
        batch = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, classes, files = batch.get("data"), batch.get("labels"), batch.get("filenames")
        if not isinstance(pixels, np.ndarray):
            raise ValueError(f"{source}: data is a {type(pixels).__name__}, expected an array")
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
            raise ValueError(f"{source}: data is {pixels.dtype} {pixels.shape}, expected uint8 (N, 3072)")
        classes = classes.tolist() if isinstance(classes, np.ndarray) else classes
        listed = isinstance(classes, list) and all(type(label) is int for label in classes)
        if classes is None or not listed or len(classes) != len(pixels):
            raise ValueError(f"{source}: labels are not a list of {len(pixels)} whole numbers")
        images.append(pixels.reshape(-1, 3, 32, 32))
        labels += classes
        if isinstance(files, list) and len(files) == len(pixels):
            names += [file.decode("latin1") if isinstance(file, bytes) else str(file) for file in files]
    complete = tuple(names) if len(names) == len(labels) else None
    return np.concatenate(images), np.array(labels, dtype=np.int64), complete


def load_arrays(
    path: PathLike,
    *,
    images: str | None = None,
    labels: str | None = None,
    layout: Literal["auto", "NCHW", "NHWC"] = "auto",
) -> ImageSet:
    """Images, and labels where there are any, from a ``.npy`` or ``.npz`` file.

    Args:
        path: the file. Images in it: (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 or float in [-1, 1].
        images: name of the images in an ``.npz``; needed where more than one array has three or four dimensions.
        labels: name of the labels in an ``.npz``, whole numbers (N,); when None, ``labels`` or ``y`` if there is one.
        layout: which axis holds the channels; ``"auto"`` takes the one of length 1 or 3.
    """
    path = _file(path)
    if layout not in ("auto", "NCHW", "NHWC"):
        raise ValueError(f"layout must be 'auto', 'NCHW' or 'NHWC', got {layout!r}")
    classes = None
    if zipfile.is_zipfile(path):
        with _Npz(path) as file:
            if images is None:
                candidates = [name for name in file.names if file.array(name).ndim in (3, 4)]
                if len(candidates) != 1:
                    listed = ", ".join(candidates) or "none"
                    raise ValueError(
                        f"{path}: one array has to be the images, candidates: {listed}: name it by images="
                    )
                images = candidates[0]
            if labels is None:
                labels = next((name for name in ("labels", "y") if name in file.names), None)
            pixels = file.array(images)
            classes = None if labels is None else file.array(labels)
    else:
        try:
            pixels = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path}: not a .npy or .npz file of plain numbers: {error}") from error
    if classes is not None and (classes.ndim != 1 or classes.dtype.kind not in "iu"):
        found = f"{classes.dtype} {classes.shape}"
        raise ValueError(f"{path}: {labels} is {found}, expected whole numbers ({len(pixels)},)")
    try:
        pixels = _channels_first(pixels, layout)
        if pixels.dtype != np.uint8:
            pixels = to_model_range(pixels)
        return ImageSet(pixels, None if classes is None else classes.astype(np.int64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _channels_first(images: npt.NDArray[Any], layout: str) -> npt.NDArray[Any]:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise ValueError(f"images of shape {images.shape}, expected (N, H, W), (N, C, H, W) or (N, H, W, C)")
    if layout == "auto":
        first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
        if first == last:
            which = "does not tell which axis holds the channels: give layout='NCHW' or 'NHWC'"
            raise ValueError(f"shape {images.shape} {which}")
        layout = "NCHW" if first else "NHWC"
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if layout == "NHWC" else images


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
    folder = _folder(path)
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
                raise ValueError(f"{file}: {found}: give size= to resize them")
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


class _Npz:
    """An .npz file of plain arrays, each read when asked for, and once."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, dict[str, npt.NDArray[Any]]()
        try:
            file = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not an .npz file ({error})") from error
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError(f"{path}: not an .npz file")
        self._file = file
        self.names = list(file.files)

    def __enter__(self) -> _Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def array(self, name: str) -> npt.NDArray[Any]:
        if name not in self.names:
            raise ValueError(f"{self.path}: holds no {name}, but {', '.join(self.names) or 'nothing'}")
        if name not in self._read:
            try:
                self._read[name] = self._file[name]
            except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
                raise ValueError(f"{self.path}: {name} is damaged, or no array of plain numbers ({error})") from error
        return self._read[name]


def _idx_file(folder: Path, name: str) -> Path:
    dotted = name.replace("-idx", ".idx")  # as some copies of the set are named
    names = (name, f"{name}.gz", dotted, f"{dotted}.gz")
    for candidate in names:
        if (folder / candidate).is_file():
            return folder / candidate
    raise FileNotFoundError(f"{folder}: holds none of {', '.join(names)}")


def _split(split: str) -> str:
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return split


def _file(path: PathLike) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path


def _folder(path: PathLike) -> Path:
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    return path
