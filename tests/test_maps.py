"""Maps of residuals: what they add up to, how they are smoothed, and how they are measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import adgan_fast
from adgan_fast import Scorer, maps
from adgan_fast import scorer as scorer_module
from adgan_fast.core.residuals import mean_over_starts
from adgan_fast.engine import engines
from adgan_fast.models import DCGANGenerator

GENERATOR = DCGANGenerator(8, 2, 3, 2, generator=torch.Generator().manual_seed(0)).eval()
IMAGES = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
CPU_ENGINES = [info.name for info in engines() if info.available and info.name != "triton"]


@pytest.mark.parametrize("engine", CPU_ENGINES)
@pytest.mark.parametrize("loss", ["l2", "l1"])
@pytest.mark.parametrize("weights", ["per_seed", "per_sample"])
def test_a_map_adds_up_to_the_score_in_every_engine(engine: str, loss: str, weights: str) -> None:
    found = adgan_fast.search(
        GENERATOR, IMAGES, maps=True, engine=engine, loss=loss, weights=weights, n_seed=3, steps=2
    )
    assert found.maps is not None and found.maps.shape == (5, 8, 8)
    torch.testing.assert_close(found.maps.sum((1, 2)), found.scores, rtol=1e-5, atol=0)


def test_maps_change_nothing_else_and_are_left_out_unless_asked_for() -> None:
    plain = adgan_fast.search(GENERATOR, IMAGES, n_seed=3, steps=2)
    mapped = adgan_fast.search(GENERATOR, IMAGES, n_seed=3, steps=2, maps="weighted")
    assert plain.maps is None
    for name in ("scores", "losses", "latents", "reconstructions"):
        assert torch.equal(getattr(plain, name), getattr(mapped, name)), name


@pytest.mark.parametrize("weighting", ["mean", "weighted"])
def test_a_map_depends_on_its_image_alone(weighting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(GENERATOR, n_seed=3, steps=2)
    whole = scorer.search(IMAGES, maps=weighting).maps
    monkeypatch.setattr(scorer_module, "MAPS_BYTES", 2 * 3 * 8 * 8 * 4)  # two images in a block
    parted = scorer.search(IMAGES, maps=weighting).maps
    alone = torch.cat([scorer.search(image[None], maps=weighting).maps for image in IMAGES])
    assert torch.equal(whole, parted) and torch.equal(whole, alone)


def test_weights_are_the_reciprocals_of_the_losses_and_a_perfect_start_counts_alone() -> None:
    residuals = torch.arange(3.0).reshape(1, 3, 1, 1).expand(2, 3, 1, 1)
    losses = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 5.0]])
    expected = (0 * 1 + 1 / 2 + 2 / 4) / (1 + 1 / 2 + 1 / 4)
    found = mean_over_starts(residuals, losses, "weighted").flatten()
    torch.testing.assert_close(found, torch.tensor([expected, 1.0]))
    torch.testing.assert_close(mean_over_starts(residuals, losses, "mean").flatten(), torch.ones(2))


def test_an_image_that_is_not_finite_has_a_map_of_nan() -> None:
    images = IMAGES.clone()
    images[2, 0, 3, 3] = float("nan")
    with pytest.warns(RuntimeWarning, match="1 of 5"):
        found = adgan_fast.search(GENERATOR, images, n_seed=2, steps=1, maps=True).maps
    assert found is not None
    assert found.isnan().all((1, 2)).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("wrong", ["best", 1, None])
def test_what_maps_may_be(wrong: Any) -> None:
    with pytest.raises(ValueError, match="maps must be True, False, 'mean' or 'weighted'"):
        adgan_fast.search(GENERATOR, IMAGES, maps=wrong)


def test_smoothing_keeps_the_sum_and_spreads_a_point_as_a_gaussian() -> None:
    point = np.zeros((1, 21, 21))
    point[0, 10, 10] = 1.0
    spread = maps.smoothed(point, 2.0)
    assert spread.sum() == pytest.approx(1.0)
    assert spread[0, 10, 12] / spread[0, 10, 10] == pytest.approx(np.exp(-(2**2) / (2 * 2.0**2)), rel=1e-2)
    assert np.array_equal(maps.smoothed(point, 0), point)
    assert np.array_equal(maps.smoothed(torch.from_numpy(point), 1.5), maps.smoothed(point, 1.5))
    for sigma in (-1, float("nan"), "2"):
        with pytest.raises(ValueError, match="sigma"):
            maps.smoothed(point, sigma)
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        maps.smoothed(point[0], 1.0)


def two_regions() -> tuple[np.ndarray, np.ndarray]:
    """Two images: a region of 20 pixels and one of a single pixel in the first, none in the second."""
    masks = np.zeros((2, 12, 12), bool)
    masks[0, 1:5, 1:6] = True
    masks[0, 9, 9] = True
    found = np.random.default_rng(0).uniform(0, 1, masks.shape)
    return found, masks


def test_the_per_region_overlap_is_the_mean_over_regions_of_what_is_flagged() -> None:
    found, masks = two_regions()
    regions = [masks & (np.arange(12) < 7), masks & (np.arange(12) >= 7)]
    points = [(0.0, float(np.mean([np.mean(found[region] > found[~masks].max()) for region in regions])))]
    for threshold in np.sort(found[~masks])[::-1]:  # every threshold by hand
        points.append((np.mean(found[~masks] >= threshold), np.mean([np.mean(found[r] >= threshold) for r in regions])))
    grid = np.linspace(0, 0.3, 30001)
    curve = np.interp(grid, *zip(*points, strict=True))
    assert maps.per_region_overlap(found, masks) == pytest.approx(np.mean(curve), abs=1e-3)


def test_a_map_that_knows_the_masks_has_an_overlap_of_one_and_a_blind_one_of_none() -> None:
    _, masks = two_regions()
    assert maps.per_region_overlap(masks + 0.0, masks) == pytest.approx(1.0)
    assert maps.per_region_overlap(1.0 - masks, masks) == 0.0
    blank = np.zeros(masks.shape)  # says nothing: as good as chance, by this measure as by the other
    assert maps.per_region_overlap(blank, masks, 1.0) == maps.pixel_auroc(blank, masks) == 0.5
    assert maps.per_region_overlap(blank, masks, 0.3) == pytest.approx(0.15)
    small, large = masks.copy(), masks.copy()
    small[0, :8], large[0, 8:] = False, False
    chance = 0.5 * 0.15  # of the region that the map does not tell from normal pixels
    assert maps.per_region_overlap(small + 0.0, masks) == pytest.approx(0.5 + chance)  # whatever the size of the other
    assert maps.per_region_overlap(large + 0.0, masks) == pytest.approx(0.5 + chance)


def test_the_pixel_auroc_is_of_all_pixels() -> None:
    found, masks = two_regions()
    assert maps.pixel_auroc(torch.from_numpy(found), masks) == roc_auc_score(masks.ravel(), found.ravel())


@pytest.mark.parametrize("measure", [maps.pixel_auroc, maps.per_region_overlap])
def test_what_cannot_be_measured_is_refused(measure: Any) -> None:
    found, masks = two_regions()
    with pytest.raises(ValueError, match=r"maps have shape \(2, 12, 12\), masks \(1, 12, 12\)"):
        measure(found, masks[:1])
    with pytest.raises(ValueError, match="both anomalous and normal"):
        measure(found, np.zeros_like(masks))
    found[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 2 maps hold NaN"):
        measure(found, masks)
