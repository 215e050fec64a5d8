"""Sources by what a user names: folder, pattern, parquet, tar, arrays. None runs code from what it reads."""

from __future__ import annotations

import glob
import os

from ...data.folders import IMAGE_SUFFIXES
from ..source import Source
from .arrays import DIGITS, ArraySource, Held
from .files import Files
from .names import as_text
from .shaping import RESIZES, Shaping
from .table import Table, is_parquet
from .tar import Tar

__all__ = ["RESIZES", "ArraySource", "Files", "Held", "Shaping", "Table", "Tar", "open_source"]


def open_source(
    name: str | os.PathLike[str], shaping: Shaping | None = None, *, labels: bool = False, column: str | None = None
) -> Source:
    """The source of images that ``name`` stands for.

    Args:
        name: a folder of pictures, or of parquet files; a pattern (``shots/**/*.png``) or one picture; a parquet file;
            a tar file; an .npy, .npz or idx file; or ``sklearn:digits``.
        shaping: how images become the generator's shape; when None they are taken as they are.
        labels: take labels where the source has them, see each class.
        column: of a table, which holds the images.

    Raises:
        FileNotFoundError, ValueError, ImportError: see the classes.
    """
    text = os.fspath(name)
    suffix = os.path.splitext(text)[1].lower()
    if is_parquet(text) or _holds_tables(text):
        return Table(text, shaping, column=column, labels=labels)
    if column is not None:
        raise ValueError(f"{as_text(text)}: a column is of parquet files alone, got {column!r}")
    if text == DIGITS:
        return ArraySource(text, shaping, labels=labels)
    if os.path.isfile(text) and suffix not in IMAGE_SUFFIXES:
        if suffix == ".tar" or text.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
            return Tar(text, shaping, labels=labels)
        return ArraySource(text, shaping, labels=labels)
    if not os.path.exists(text) and not glob.has_magic(text):
        raise FileNotFoundError(f"{as_text(text)}: no such file or folder")
    return Files(text, shaping, labels=labels)


def _holds_tables(folder: str) -> bool:
    """Whether parquet files lie in a folder, and no pictures beside them."""
    if not os.path.isdir(folder):
        return False
    names = os.listdir(folder)
    pictures = any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names)
    return not pictures and any(is_parquet(name) for name in names)
