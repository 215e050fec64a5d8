"""LSUN (Yu et al. 2015): scenes, each an lmdb of encoded pictures."""

from __future__ import annotations

import numpy as np

from ..given import whole
from .image_set import ImageSet
from .paths import PathLike, existing_folder
from .pictures import decode_square


def load_lsun(path: PathLike, size: int, *, most: int | None = None) -> ImageSet:
    """One lmdb of LSUN, ``bedroom_train_lmdb`` say: pictures cut to their middle square and resized, in order of keys.

    Args:
        path: the lmdb, a folder with ``data.mdb``. It is opened for reading alone.
        size: side of the images.
        most: read the first so many pictures; all when None. All of them are held in memory.

    Returns:
        (N, 3, size, size) uint8; ``names`` are the keys.

    Raises:
        FileNotFoundError: there is no such lmdb.
        ImportError: the package lmdb is not installed, with the remedy.
        ValueError: not an lmdb, or a damaged one; an empty one; naming path and key, what is no picture or damaged.
    """
    folder, size = existing_folder(path), whole("size", size, 1)
    if not (folder / "data.mdb").is_file():
        raise FileNotFoundError(f"{folder}: holds no data.mdb")
    try:
        import lmdb
    except ImportError as error:
        raise ImportError("LSUN's files need the package lmdb: pip install 'adgan-fast[lsun]'") from error
    try:
        with (
            lmdb.open(str(folder), readonly=True, lock=False, readahead=False) as environment,
            environment.begin() as transaction,
        ):
            count = min(transaction.stat()["entries"], whole("most", most, 1) if most is not None else 1 << 62)
            images, names = np.empty((count, 3, size, size), np.uint8), []
            for image, (key, data) in zip(images, transaction.cursor(), strict=False):
                names.append(key.decode(errors="replace"))
                image[...] = decode_square(folder / names[-1], data, size)
    except lmdb.Error as error:
        raise ValueError(f"{folder}: not an lmdb, or a damaged one ({error})") from error
    if not names:
        raise ValueError(f"{folder}: holds no pictures")
    return ImageSet(images, names=tuple(names))
