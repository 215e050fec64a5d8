"""What a single picture's file may hold: orientation, depth, palettes."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adgan_fast.data import (
    load_folder,
)
from tests.support.pictures import random_bytes, write_picture


def test_pictures_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    pixels = random_bytes(4, 6)
    write_picture(tmp_path / "a.png", pixels, exif=exif)
    assert np.array_equal(load_folder(tmp_path).images[0, 0], np.rot90(pixels, -1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "TIFF, compressed"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_put_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = np.zeros((8, 16), np.uint8)
    upright[:4, :4], upright[:4, -4:], upright[-4:, :4] = 255, 170, 85  # three corners tell every turn
    stored = {
        2: upright[:, ::-1], 3: np.rot90(upright, 2), 4: upright[::-1], 5: upright.T, 6: np.rot90(upright),
        7: np.rot90(upright, 2).T, 8: np.rot90(upright, -1),
    }.get(orientation, upright)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if kind.endswith("compressed") else {"quality": 100} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    write_picture(tmp_path / "a.png", np.ascontiguousarray(stored), format=kind[:4], exif=exif, **options)
    found = load_folder(tmp_path, channels=1).images[0, 0]
    np.testing.assert_allclose(found.astype(int), upright, atol=3)


def png(pixels: np.ndarray, colour: int, *chunks: tuple[bytes, bytes], depth: int | None = None) -> bytes:
    """A PNG, its bytes written one by one: rows of unfiltered samples, (H, W, samples) of 8 or 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, depth or 8 * pixels.itemsize, colour, 0, 0, 0)
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


BROKEN_EXIF = {
    "nothing": b"",
    "no header": b"\xff" * 10,
    "cut short": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    "a text": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x03ab\0\0",
    "a 9": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0",
}


@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_broken_exif_is_no_orientation(tmp_path: Path, exif: str) -> None:
    pixels = random_bytes(4, 6, 1)
    (tmp_path / "a.png").write_bytes(png(pixels, 0, (b"eXIf", BROKEN_EXIF[exif])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(load_folder(tmp_path).images[0, 0], pixels[..., 0])


@pytest.mark.parametrize(
    ("colour", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "RGB", "grey and alpha", "RGBA"]
)
def test_more_than_8_bits_a_channel_are_never_cut(tmp_path: Path, colour: int, samples: int) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(png(np.full((4, 6, samples), 200, np.uint8), colour))
    assert (load_folder(tmp_path).images == 200).all()
    path.write_bytes(png(np.full((4, 6, samples), 200, np.uint16), colour))  # 12 bits of a camera, say: cut, all black
    for options in ({}, {"size": 8}, {"channels": 1}):
        with pytest.raises(ValueError, match=r"deep\.png: more than 8 bits a channel, expected 8: convert") as caught:
            load_folder(tmp_path, **options)  # type: ignore[arg-type]
        assert "in an .npy" in str(caught.value)


def test_16_bits_of_a_tiff_are_refused_and_of_a_ppm_scaled(tmp_path: Path) -> None:
    pixels = np.full((4, 6, 3), 51400, np.uint16)  # 200 of 255
    after = 8 + 2 + 9 * 12 + 4  # of head and directory: three sizes of a sample, and then the pixels
    entries = [(256, 6), (257, 4), (259, 1), (262, 2), (273, after + 6), (277, 3), (278, 4), (279, pixels.nbytes)]
    directory = struct.pack("<HHII", 258, 3, 3, after)
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 9)
    (tmp_path / "a.tif").write_bytes(head + directory + bytes(4) + struct.pack("<HHH", 16, 16, 16) + pixels.tobytes())
    with pytest.raises(ValueError, match=r"a\.tif: more than 8 bits a channel"):
        load_folder(tmp_path)
    (tmp_path / "a.tif").unlink()
    (tmp_path / "a.ppm").write_bytes(b"P6 6 4 65535\n" + pixels.astype(">u2").tobytes())
    assert (load_folder(tmp_path).images == 200).all()


def test_grey_palettes_are_grey(tmp_path: Path) -> None:
    pixels = random_bytes(5, 6)
    write_picture(tmp_path / "a.gif", pixels)
    indices = np.arange(30, dtype=np.uint8).reshape(5, 6, 1) % 4
    palette = bytes([9, 9, 9, 90, 90, 90, 200, 200, 200, 30, 30, 30, 255, 0, 0])  # the last, red, is never used
    (tmp_path / "b.png").write_bytes(png(indices, 3, (b"PLTE", palette)))
    loaded = load_folder(tmp_path)
    assert loaded.images.shape == (2, 1, 5, 6)
    assert np.array_equal(loaded.images[0, 0], pixels)
    assert np.array_equal(loaded.images[1, 0], np.array([9, 90, 200, 30], np.uint8)[indices[..., 0]])
    indices[0, 0] = 4
    (tmp_path / "b.png").write_bytes(png(indices, 3, (b"PLTE", palette)))
    loaded = load_folder(tmp_path)
    assert loaded.images.shape == (2, 3, 5, 6)
    assert loaded.images[1, :, 0, 0].tolist() == [255, 0, 0]
