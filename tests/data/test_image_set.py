"""A set of images: subsets, scaling, and the digits of scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from adgan_fast.data import (
    ImageSet,
    load_digits,
    to_model_range,
)
from tests.support.pictures import random_bytes


def test_subsets_keep_images_labels_and_names_together() -> None:
    images = random_bytes(5, 1, 2, 2)
    whole = ImageSet(images, np.array([1, 0, 1, 2, 0]), tuple("abcde"), ("x", "y", "z", "empty"))
    ones = whole.of_class(1)
    assert np.array_equal(ones.images, images[[0, 2]])
    assert ones.names == ("a", "c")
    assert whole.of_class("x").names == ("b", "e")
    assert whole.subset(slice(3, None)).names == ("d", "e")
    assert whole.subset(whole.labels != 0).names == ("a", "c", "d")
    assert whole.subset([4, 0]).labels.tolist() == [0, 1]  # type: ignore[union-attr]
    assert len(whole.subset([False] * 5)) == 0
    with pytest.raises(ValueError, match=r"label 3; the labels are \[0, 1, 2\]"):
        whole.of_class("empty")
    with pytest.raises(ValueError, match="no class named 'w'"):
        whole.of_class("w")
    with pytest.raises(ValueError, match="no labels"):
        ImageSet(images).of_class(0)


def test_an_image_set_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(5, 2, 2\)"):
        ImageSet(random_bytes(5, 2, 2))
    with pytest.raises(ValueError, match="labels must have one entry for each of 5 images, got 4"):
        ImageSet(random_bytes(5, 1, 2, 2), np.arange(4))
    with pytest.raises(ValueError, match="names must have"):
        ImageSet(random_bytes(5, 1, 2, 2), names=("a",))


def test_scaling_is_the_contracts() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    scaled = to_model_range(every)
    assert scaled.dtype == np.float32
    assert (scaled.min(), scaled.max()) == (-1, 1)
    np.testing.assert_allclose(scaled, every / 127.5 - 1, atol=1e-7)
    assert torch.equal(to_model_range(torch.from_numpy(every)), torch.from_numpy(scaled))
    assert np.array_equal(to_model_range(scaled.astype(np.float64)), scaled)
    for bad in (every.astype(np.float32), np.full((1, 1, 2, 2), np.nan), np.full((1, 1, 2, 2), -1.01)):
        with pytest.raises(ValueError, match=r"\[-1, 1\]|NaN"):
            to_model_range(bad)
    with pytest.raises(TypeError, match="int64"):
        to_model_range(every.astype(np.int64))


def test_digits_are_scaled_to_the_generators_range() -> None:
    digits = load_digits()
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype == np.float32
    assert (digits.images.min(), digits.images.max()) == (-1, 1)
    assert digits.labels is not None
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(digits.of_class("7")) == 179


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        load_digits()
