"""What score and search give back, and show."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from tests.support.engines import on_cpu
from tests.support.layers import randomise
from tests.support.small import CASE, FAST

pytestmark = pytest.mark.usefixtures("one_thread")


def test_score_is_the_scores_of_search_and_comes_back_as_images_came():
    images = CASE.images(3)
    found = adgan_fast.search(CASE.module, images, **FAST)
    as_tensor = adgan_fast.score(CASE.module, images, **FAST)
    as_array = adgan_fast.score(CASE.module, images.numpy(), **FAST)
    assert isinstance(as_tensor, torch.Tensor)
    assert isinstance(as_array, np.ndarray)
    assert torch.equal(as_tensor, found.scores)
    assert np.array_equal(as_array, found.scores.numpy())
    assert as_tensor.dtype == torch.float32
    assert not as_tensor.requires_grad


@on_cpu
def test_a_result_holds_no_graph_and_owns_its_memory(engine):
    found = adgan_fast.search(CASE.module, CASE.images(2), engine=engine, **FAST)
    for tensor in (found.scores, found.losses, found.initial_losses, found.latents, found.reconstructions):
        assert not tensor.requires_grad
        assert tensor.is_leaf
        assert not tensor.is_inference()
    assert found.config == adgan_fast.SearchConfig(engine=engine, **FAST)
    assert found.engine == engine


def test_overrides_take_precedence_over_the_config():
    config = adgan_fast.SearchConfig(n_seed=3, steps=1)
    found = adgan_fast.search(CASE.module, CASE.images(1), config=config, n_seed=2)
    assert found.losses.shape == (1, 2)
    assert found.config == config.replace(n_seed=2)
    assert config.n_seed == 3


def test_a_more_anomalous_image_scores_higher():
    module = CASE.double().eval()
    with torch.no_grad():
        usual = module(adgan_fast.core.starts.draw(77, None, 1, CASE.latent_shape, "normal"))
    scores = adgan_fast.score(module, torch.cat([usual, -usual.sign()]).clamp(-1, 1), n_seed=4)
    assert scores[1] > scores[0]


@pytest.mark.parametrize("latent_shape", [(3,), (3, 1, 1)])
def test_the_latents_shape_is_read_off_the_first_layer(latent_shape):
    layers = [nn.Unflatten(1, (3, 1, 1))] if latent_shape == (3,) else []
    module = randomise(nn.Sequential(*layers, nn.ConvTranspose2d(3, 1, 4)), 0)
    found = adgan_fast.search(module, torch.zeros(1, 1, 4, 4), **FAST)
    assert found.latents.shape == (1, 2, *latent_shape)


def test_a_latent_shape_that_cannot_be_read_is_asked_for_by_name():
    module = randomise(nn.Sequential(nn.Conv2d(2, 1, 1), nn.Upsample((4, 4))), 0)
    with pytest.raises(ValueError, match="latent_shape"):
        adgan_fast.score(module, torch.zeros(1, 1, 4, 4), **FAST)
    adgan_fast.score(module, torch.zeros(1, 1, 4, 4), latent_shape=(2, 2, 2), **FAST)


def test_float64_generators_are_searched_in_float64_and_half_ones_in_float32():
    images = CASE.images(1)
    assert adgan_fast.score(CASE.double(), images, **FAST).dtype == torch.float64
    half = copy.deepcopy(CASE.module).half()
    assert adgan_fast.score(half, images, **FAST).dtype == torch.float32
    assert next(half.parameters()).dtype == torch.float16


def test_two_threads_that_score_at_once_get_what_one_gets():
    want = adgan_fast.score(CASE.module, CASE.images(2), **FAST)
    before = (torch.get_num_threads(), torch.backends.cudnn.conv.fp32_precision)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(adgan_fast.score, CASE.module, CASE.images(2), **FAST) for _ in range(6)]
    for call in calls:
        assert torch.equal(call.result(), want)
    assert (torch.get_num_threads(), torch.backends.cudnn.conv.fp32_precision) == before


@on_cpu
def test_progress_counts_every_pair_and_is_silent_unless_asked_for(engine, capfd):
    adgan_fast.score(CASE.module, CASE.images(3), engine=engine, **FAST)
    assert capfd.readouterr() == ("", "")
    adgan_fast.score(CASE.module, CASE.images(3), engine=engine, progress=True, **FAST)
    out, err = capfd.readouterr()
    assert out == ""
    assert "6/6" in err


def test_engines_lists_each_with_its_reason():
    table = adgan_fast.engines()
    assert [e.name for e in table if e.available][-1] == "reference"
    assert {"reference", "eager", "grouped"} <= {e.name for e in table}
    for entry in table:
        assert entry.available == (entry.why_not == "")
