"""How an image becomes the generator's shape, and what is said where it does not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adgan_fast.jobs.source import Unreadable
from adgan_fast.jobs.sources import Shaping
from tests.support.pictures import random_bytes
from tests.support.sources import encoded

WIDE = np.zeros((4, 8), np.uint8)
WIDE[:, 2:6] = 200  # the middle square is bright


def picture(shaping: Shaping, pixels: np.ndarray) -> np.ndarray:
    found = shaping.of_picture("a.png", encoded(pixels))
    assert not isinstance(found, Unreadable), str(found)
    return found


@pytest.mark.parametrize("array", [False, True])
def test_another_aspect_is_stretched_cut_or_padded(array: bool) -> None:
    def shaped(resize: str) -> np.ndarray:
        shaping = Shaping(size=(4, 4), resize=resize)  # type: ignore[arg-type]
        found = shaping.of_array(WIDE[None]) if array else picture(shaping, WIDE)
        assert found.shape == (1, 4, 4) and found.dtype == np.uint8
        return found[0]

    assert 0 < shaped("fit").mean() < 200 and shaped("fit")[0, 0] < 100
    assert (shaped("crop") == 200).all()
    assert (shaped("pad")[[0, -1]] == 0).all() and shaped("pad")[1:3].max() > 150


def test_floats_stay_in_their_range_and_are_padded_with_black() -> None:
    wide = WIDE[None] / np.float32(100) - 1
    for resize in ("fit", "crop", "pad"):
        found = Shaping(size=(4, 4), resize=resize).of_array(wide)  # type: ignore[arg-type]
        assert found.dtype == np.float32 and found.shape == (1, 4, 4) and np.abs(found).max() <= 1
    assert (Shaping(size=(4, 4), resize="pad").of_array(wide)[0, 0] == -1).all()


def test_grey_and_colour() -> None:
    colour, grey = random_bytes(5, 5, 3), random_bytes(5, 5)
    luma = np.asarray(Image.fromarray(colour).convert("L"))
    assert picture(Shaping(), grey).shape == (1, 5, 5) and picture(Shaping(), colour).shape == (3, 5, 5)
    assert np.array_equal(picture(Shaping(channels=1), colour)[0], luma)
    assert np.array_equal(picture(Shaping(channels=3), grey), np.stack([grey] * 3))
    channels_first = colour.transpose(2, 0, 1)
    assert np.array_equal(Shaping(channels=1).of_array(channels_first)[0], luma)
    assert np.array_equal(Shaping(channels=3).of_array(grey[None]), np.stack([grey] * 3))
    floats = Shaping(channels=1).of_array(channels_first / np.float32(127.5) - 1)
    np.testing.assert_allclose((floats[0] + 1) * 127.5, luma, atol=1)


def test_an_image_that_is_right_is_not_touched() -> None:
    image = random_bytes(3, 4, 5)
    for shaping in (Shaping(), Shaping(size=(4, 5), channels=3, resize="crop", expected=(3, 4, 5))):
        assert np.array_equal(shaping.of_array(image), image)


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        ((3, 40, 30), (1, 28, 28), ["(3, 40, 30)", "(1, 28, 28)", "--resize fit, crop or pad and --gray"]),
        ((1, 28, 28), (3, 28, 28), ["(1, 28, 28)", "(3, 28, 28)", ": --color would convert it"]),
        ((1, 8, 8), (1, 9, 9), ["(1, 8, 8)", "(1, 9, 9)", ": --resize fit, crop or pad would convert it"]),
        ((3, 8, 8), (5, 8, 8), ["(3, 8, 8)", "(5, 8, 8)"]),
    ],
)
def test_a_mismatch_names_both_shapes_and_the_option(
    found: tuple[int, ...], expected: tuple[int, int, int], words: list[str]
) -> None:
    wrong = Shaping(expected=expected).of_array(random_bytes(*found))
    assert isinstance(wrong, Unreadable) and all(word in str(wrong) for word in words)
    assert ("convert" in str(wrong)) == (expected[0] in (1, 3))


def test_floats_out_of_range_are_named_and_nan_is_left_to_the_search() -> None:
    wrong = Shaping().of_array(np.full((1, 2, 2), 255.0))
    assert isinstance(wrong, Unreadable) and "[255, 255]" in str(wrong) and "[-1, 1]" in str(wrong)
    holes = np.array([[[np.nan, 0.5], [np.inf, -1.0]]])
    np.testing.assert_array_equal(Shaping().of_array(holes), holes.astype(np.float32))
    assert isinstance(Shaping(channels=1).of_array(random_bytes(4, 2, 2)), Unreadable)
    for resize in ("fit", "crop", "pad"):
        for hole in (np.nan, np.inf, -np.inf):
            image = np.zeros((1, 4, 12), np.float32)
            image[0, 0, 0] = hole  # of which a crop leaves nothing
            found = Shaping(size=(2, 2), resize=resize).of_array(image)
            assert not isinstance(found, Unreadable) and found.shape == (1, 2, 2) and np.isnan(found).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 8}, "size must be"),
        ({"size": (8, 0)}, "size must be"),
        ({"channels": 2}, "channels must be 1 or 3"),
        ({"resize": "stretch"}, "resize must be one of 'fit', 'crop', 'pad'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Shaping(**settings)  # type: ignore[arg-type]


def test_memory_that_runs_out_spoils_one_picture_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    out = io.BytesIO()
    Image.fromarray(WIDE).save(out, "PNG")
    monkeypatch.setattr(Image.Image, "load", no_memory)
    found = Shaping().of_picture("a.png", out.getvalue())
    assert isinstance(found, Unreadable) and "memory" in str(found)
