"""Overlays: the image where the map is low, colour where it is high."""

from __future__ import annotations

import numpy as np
import pytest

from adgan_fast.report import overlays


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_image_shows_where_the_map_is_low_and_colour_where_it_is_high(channels: int) -> None:
    images = np.full((2, channels, 6, 6), 0.2)
    maps = np.zeros((2, 6, 6))
    maps[1, 2, 3] = 4.0
    drawn = overlays(images, maps)
    assert drawn.shape == (2, 6, 6, 3) and drawn.dtype == np.uint8
    grey = round(255 * 0.6)
    assert (drawn[0] == grey).all() and (drawn[1, 0, 0] == grey).all()
    hot = drawn[1, 2, 3].astype(int)
    assert hot[0] > 200 and hot[0] - hot[2] > 50  # the bright end of the colours is yellow


def test_one_scale_holds_for_all_and_can_be_given() -> None:
    images, maps = np.zeros((2, 1, 4, 4)), np.ones((2, 4, 4))
    maps[1] = 10.0
    assert not np.array_equal(*overlays(images, maps))
    assert np.array_equal(*overlays(images, maps, scale=1.0))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 1, 4, 4\) and \(2, 4, 5\)"):
        overlays(np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 5)))
    with pytest.raises(ValueError, match="finite"):
        overlays(np.zeros((1, 1, 4, 4)), np.full((1, 4, 4), np.nan))
    with pytest.raises(ValueError, match="scale must be positive, got -1"):
        overlays(np.zeros((1, 1, 4, 4)), np.zeros((1, 4, 4)), scale=-1)
