"""Windows: that they cover an image, and that its one number does not grow with how many there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adgan_fast
from adgan_fast import Scorer, windows
from adgan_fast.models import DCGANGenerator
from adgan_fast.training import CheckpointError, load_generator, save_generator
from adgan_fast.windows import Windows, WindowScorer, WindowScores

RANDOM = np.random.default_rng(0)
GENERATOR = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh(), torch.nn.Unflatten(1, (2, 4, 4))).eval()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_a_grid_covers_the_image_and_ends_with_it(height: int, width: int, size: int, stride: int) -> None:
    if min(height, width) < size or stride > size:
        with pytest.raises(ValueError, match=r"pixels, a window|stride must be at most"):
            windows.corners(height, width, size, stride)
        return
    at = windows.corners(height, width, size, stride)
    assert len({tuple(corner) for corner in at}) == len(at)
    covered = np.zeros((height, width), bool)
    for y, x in at:
        assert 0 <= y <= height - size and 0 <= x <= width - size
        covered[y : y + size, x : x + size] = True
    assert covered.all()


def test_windows_are_parts_of_the_image() -> None:
    image = RANDOM.integers(0, 256, (3, 11, 9), dtype=np.uint8)
    at = windows.corners(11, 9, 4, 3)
    cut = windows.cut(image, at, 4)
    assert cut.dtype == np.uint8 and cut.shape == (len(at), 3, 4, 4)
    assert all(np.array_equal(window, image[:, y : y + 4, x : x + 4]) for window, (y, x) in zip(cut, at, strict=True))


def test_random_windows_come_from_every_place_alike_and_a_seed_repeats() -> None:
    small, large = np.zeros((1, 4, 4), np.uint8), np.arange(1, 31, dtype=np.uint8).reshape(1, 5, 6)
    found = windows.random_windows([small, large], 4, 7000, seed=3)
    assert np.array_equal(found, windows.random_windows([small, large], 4, 7000, seed=3))
    corner, counts = np.unique(found[:, 0, 0, 0], return_counts=True)  # one place in the small, 2 times 3 in the large
    assert corner.tolist() == [0, 1, 2, 3, 7, 8, 9]
    assert (np.abs(counts - 1000) < 4 * np.sqrt(1000)).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one image"),
        ([np.zeros((1, 3, 9))], r"image 0 of shape \(1, 3, 9\) is smaller than a window of 4"),
        ([np.zeros((1, 5, 5)), np.zeros((2, 5, 5))], "one number of channels"),
        ([np.zeros((1, 5, 5)), np.zeros((1, 5, 5), np.uint8)], "one dtype"),
        ([np.zeros((5, 5))], r"must be \(C, H, W\)"),
    ],
)
def test_images_that_windows_cannot_be_cut_from_are_refused(images: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        windows.random_windows(images, 4, 1)


def test_a_standardized_window_has_lost_its_light_which_is_kept() -> None:
    texture = RANDOM.normal(0, 1, (1, 2, 8, 8)).clip(-2, 2)
    texture = (texture - texture.mean()) / texture.std()
    lit = np.concatenate([0.1 * texture + 0.3, 0.02 * texture - 0.5, np.full((1, 2, 8, 8), 0.25)]).astype(np.float32)
    found = windows.standardized(lit)
    np.testing.assert_allclose(found.windows[0], (texture[0] / 3).clip(-1, 1), atol=1e-5)
    np.testing.assert_allclose(found.windows[0], found.windows[1], atol=1e-4)
    np.testing.assert_allclose(found.mean, [0.3, -0.5, 0.25], atol=1e-6)
    np.testing.assert_allclose(found.scale, [0.1, 0.02, 0], atol=1e-6)
    assert not found.windows[2].any()


def test_the_windows_of_an_image_are_scored_as_images_are() -> None:
    image = RANDOM.uniform(-1, 1, (2, 9, 6)).astype(np.float32)
    scorer = WindowScorer(Scorer(GENERATOR, n_seed=2, steps=1), 4, 3)
    found = scorer(image)
    assert found.shape == (9, 6) and found.mean is None
    cut = windows.cut(image, found.corners, 4)
    assert np.array_equal(found.scores, adgan_fast.score(GENERATOR, cut, n_seed=2, steps=1).astype(np.float64))
    both = list(scorer.each([RANDOM.uniform(-1, 1, (2, 4, 4)).astype(np.float32), image]))
    assert np.array_equal(both[1].scores, found.scores) and both[0].map().shape == (4, 4)
    plain = WindowScorer(Scorer(GENERATOR, n_seed=2, steps=1), 4, 3, standardize=True)
    np.testing.assert_allclose(plain(image * 0.5 + 0.2).scores, plain(image).scores, rtol=1e-3)
    with pytest.raises(ValueError, match=r"must have shape \(C, H, W\), got \(9, 6\)"):
        scorer(image[0])


def test_a_pixel_has_the_mean_of_its_windows() -> None:
    at = windows.corners(3, 5, 3, 2)
    assert at.tolist() == [[0, 0], [0, 2]]
    found = windows.overlap_average([1.0, 4.0], at, (3, 5), 3)
    assert found.tolist() == [[1.0, 1.0, 2.5, 4.0, 4.0]] * 3
    assert np.isnan(windows.overlap_average([1.0], at[:1], (3, 5), 3)[0]).tolist() == [False] * 3 + [True] * 2


def of_scores(scores: np.ndarray) -> WindowScores:
    return WindowScores(scores, np.zeros((len(scores), 2), np.int64), (1, 1), 1)


@pytest.mark.parametrize("count", [1, 9, 100, 900])
def test_normal_images_keep_their_rate_of_false_alarms_however_large_they_are(count: int) -> None:
    """Of 400 normal images with as many windows each, scores of neighbours alike; over 20 calibrations."""
    random, alpha, images, alarms, largest = np.random.default_rng(count), 0.05, 400, 0, 0

    def scores(n: int, windows_: int) -> np.ndarray:  # half of the variance is the image's own
        return random.normal(0, 1, (n, 1)) + random.normal(0, 1, (n, windows_))

    for _ in range(20):
        calibration = scores(4000, 1).ravel()
        found = [of_scores(row) for row in scores(images, count)]
        alarms += int((windows.image_p_values(found, calibration) <= alpha).sum())
        largest += int((np.array([each.scores.max() for each in found]) > np.quantile(calibration, 1 - alpha)).sum())
    # A calibration moves all images of a run, and neighbours move together: three standard deviations of 20 runs.
    assert alarms / (20 * images) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) * (1 / (20 * images) + 1 / (20 * 4000)))
    assert count < 100 or largest / (20 * images) > 0.4  # what the largest score would do


def test_p_values_are_those_of_simes_over_conformal_ranks() -> None:
    calibration = np.arange(1, 20.0)
    found = of_scores(np.array([18.5, 3.0, 25.0, 10.0]))
    ranks = sorted([(1 + 1) / 20, (1 + 17) / 20, 1 / 20, (1 + 10) / 20])
    assert windows.image_p_values([found], calibration)[0] == pytest.approx(
        min(4 * ranks[i] / (i + 1) for i in range(4))
    )
    assert np.isnan(windows.image_p_values([of_scores(np.array([1.0, np.nan]))], calibration)[0])
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="calibration must be one or more finite scores"):
            windows.image_p_values([found], bad)


def test_a_quantile_of_the_windows_has_one_middle_however_many_they_are() -> None:
    random = np.random.default_rng(0)
    for count in (20, 60, 500):  # the usual estimate lies at 1.43, 1.56, 1.63
        found = windows.image_scores([of_scores(row) for row in random.normal(size=(1500, count))])
        assert abs(np.median(found) - 1.645) < 0.06, count


def test_a_quantile_of_the_windows_is_one_number_and_the_largest_is_refused() -> None:
    found = of_scores(np.arange(101.0))
    expected = np.interp(0.9 * (101 + 1 / 3) + 1 / 3 - 1, np.arange(101), np.arange(101))
    np.testing.assert_allclose(windows.image_scores([found, found], 0.9), [expected, expected])
    for wrong in (1, -0.1, "0.5"):
        with pytest.raises(ValueError, match="quantile must be a number from 0 to below 1"):
            windows.image_scores([found], wrong)


def test_how_images_are_cut_is_kept_with_a_generator_and_damage_is_told(tmp_path: Path) -> None:
    made = DCGANGenerator(8, 1, 4, 2)
    assert made.windows is None
    for how in (Windows(8), Windows(8, 3, standardize=True, quantile=0.5)):
        made.windows = how
        assert Windows.read(how.described()) == how
        assert load_generator(save_generator(made, tmp_path / "g.safetensors")).windows == how
    data = (tmp_path / "g.safetensors").read_bytes()
    (tmp_path / "g.safetensors").write_bytes(data.replace(b'stride\\": 3', b'stride\\": 9'))
    with pytest.raises(CheckpointError, match="stride must be at most size"):
        load_generator(tmp_path / "g.safetensors")
    for wrong in ({"size": 0}, {"size": 8, "stride": 9}, {"stride": 2}, {"size": 8, "more": 1}, [8], {"size": "8"}):
        with pytest.raises(ValueError, match=r"size|windows must be an object"):
            Windows.read(wrong)
