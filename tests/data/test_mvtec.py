"""MVTec's layout: images, kinds of defects, and masks that lie where the defects do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adgan_fast.data import load_mvtec


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def category(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for place, count in (("train/good", 3), ("test/good", 2), ("test/crack", 2), ("test/spot", 1)):
        for index in range(count):
            save(tmp_path / place / f"{index:03d}.png", random.integers(0, 256, (12, 10), dtype=np.uint8))
    for kind, index, row in (("crack", 0, 2), ("crack", 1, 5), ("spot", 0, 8)):
        mask = np.zeros((12, 10), np.uint8)
        mask[row] = 255
        save(tmp_path / "ground_truth" / kind / f"{index:03d}_mask.png", mask)
    return tmp_path


def test_images_have_their_kinds_and_defects_their_masks(category: Path) -> None:
    found = load_mvtec(category)
    assert found.images.classes == ("crack", "good", "spot")
    assert found.images.images.shape == (5, 1, 12, 10) and found.masks.shape == (5, 12, 10)
    assert found.anomalous.tolist() == [True, True, False, False, True]
    assert [np.flatnonzero(mask.any(1)).tolist() for mask in found.masks] == [[2], [5], [], [], [8]]
    train = load_mvtec(category, "train")
    assert not train.masks.any() and not train.anomalous.any() and len(train.images) == 3


def test_masks_are_resized_with_their_images(category: Path) -> None:
    found = load_mvtec(category, size=(24, 20))
    assert found.masks.shape == (5, 24, 20)
    assert np.flatnonzero(found.masks[0].all(1)).tolist() == [4, 5]


def test_a_thin_defect_stays_where_images_are_made_much_smaller(category: Path) -> None:
    scratch = np.zeros((12, 10), np.uint8)
    scratch[7, 2:9] = 255
    save(category / "ground_truth" / "spot" / "000_mask.png", scratch)
    assert load_mvtec(category, size=3).masks[4].tolist() == [[False] * 3, [True] * 3, [False] * 3]


def test_what_lacks_or_does_not_fit_is_named(category: Path) -> None:
    with pytest.raises(ValueError, match="'train' or 'test', got 'val'"):
        load_mvtec(category, "val")
    save(category / "ground_truth" / "spot" / "000_mask.png", np.zeros((9, 10), np.uint8))
    with pytest.raises(ValueError, match=r"000_mask\.png: 9x10 pixels, its image has 12x10"):
        load_mvtec(category)
    (category / "ground_truth" / "crack" / "001_mask.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"crack.001_mask.png: the mask of .*001.png is not there"):
        load_mvtec(category)
    save(category / "odd" / "test" / "a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="without folders of kinds"):
        load_mvtec(category / "odd")
