"""Sources of images, read whole; and files to read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adgan_fast.jobs.source import Source, Unreadable


def read_all(source: Source) -> list[Any]:
    """What `read` gives for every item: (C, H, W), or the reason why not."""
    count = sum(1 for _ in source.items())
    found = list(source.read(0, count))
    assert len(found) == count
    return [str(each) if isinstance(each, Unreadable) else each for each in found]


def ids(source: Source) -> list[str]:
    return [item.id for item in source.items()]


def labels(source: Source) -> list[str | None]:
    return [item.label for item in source.items()]


def encoded(pixels: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    """A tar file of these members; a TarInfo is one without content, a link say."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
