"""Sources by what a user names: folder, pattern, parquet, tar, arrays. None runs code from what it reads."""

from __future__ import annotations

import glob
import os
from typing import Any

from ...data.folders import IMAGE_SUFFIXES
from ..source import Source
from .arrays import DIGITS, ArraySource, Held
from .files import Files
from .names import as_text
from .shaping import RESIZES, Shaping
from .table import Table, is_parquet
from .tar import Tar

__all__ = ["RESIZES", "ArraySource", "Files", "Held", "Shaping", "Table", "Tar", "open_source", "reopened"]


def open_source(
    name: str | os.PathLike[str],
    shaping: Shaping | None = None,
    *,
    labels: bool = False,
    column: str | None = None,
    within: str | os.PathLike[str] | None = None,
) -> Source:
    """The source of images that ``name`` stands for.

    Args:
        name: a folder of pictures, or of parquet files; a pattern (``shots/**/*.png``) or one picture; a parquet file;
            a tar file; an .npy, .npz or idx file; or ``sklearn:digits``.
        shaping: how images become the generator's shape; when None they are taken as they are.
        labels: take labels where the source has them, see each class.
        column: of a table, or the array of an .npz, which holds the images.
        within: of a table with paths, the folder that these may not leave; None: the table's own.

    Raises:
        FileNotFoundError, ValueError, ImportError: see the classes.
    """
    text = os.fspath(name)
    suffix = os.path.splitext(text)[1].lower()
    if is_parquet(text) or _holds_tables(text):
        return Table(text, shaping, column=column, labels=labels, within=within)
    if within is not None:
        raise ValueError(f"{as_text(text)}: within= (--within) is of parquet files alone, got {str(within)!r}")
    if column is not None:
        if os.path.isfile(text) and suffix == ".npz":
            return ArraySource(text, shaping, labels=labels, column=column)
        raise ValueError(f"{as_text(text)}: a column is of parquet and .npz files alone, got {column!r}")
    if text == DIGITS:
        return ArraySource(text, shaping, labels=labels)
    if os.path.isfile(text) and suffix not in IMAGE_SUFFIXES:
        if suffix == ".tar" or text.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
            return Tar(text, shaping, labels=labels)
        return ArraySource(text, shaping, labels=labels)
    if not os.path.exists(text) and not glob.has_magic(text):
        raise FileNotFoundError(f"{as_text(text)}: no such file or folder")
    return Files(text, shaping, labels=labels)


def reopened(fingerprint: dict[str, Any], expected: tuple[int, int, int] | None = None) -> Source:
    """The source that a job's description tells of, with its shaping; whether it holds the same is not looked at.

    Args:
        fingerprint: of one of the classes here, as job.json has it in "source".
        expected: (C, H, W) of its images.

    Raises:
        ValueError: it says nothing of where the images lie: they were in memory, or the class is the user's own.
        FileNotFoundError, ImportError, ValueError: as `open_source`.
    """
    kind, path = fingerprint.get("kind"), fingerprint.get("path")
    if not isinstance(path, str):
        raise ValueError(f"a source of the kind {kind!r} cannot be opened again: it does not say where its images lie")
    size = fingerprint.get("size")
    shaping = Shaping(
        tuple(size) if size else None, fingerprint.get("channels"), fingerprint.get("resize") or "fit", expected
    )
    labels, column, within = bool(fingerprint.get("labels")), fingerprint.get("column"), fingerprint.get("within")
    return open_source(path, shaping, labels=labels, column=column, within=within)


def _holds_tables(folder: str) -> bool:
    """Whether parquet files lie in a folder, and no pictures beside them."""
    if not os.path.isdir(folder):
        return False
    names = os.listdir(folder)
    pictures = any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names)
    return not pictures and any(is_parquet(name) for name in names)
