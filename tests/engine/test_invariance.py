"""A score is a function of (generator, image, config) alone: to the last bit, whatever else is computed beside it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import adgan_fast
from adgan_fast import SearchResult
from tests.support.captured import captured_once
from tests.support.engines import FAST, ON_CPU, WEIGHTS, on_cpu
from tests.support.families import FAMILIES
from tests.support.generators import Case, cases
from tests.support.paths import ROOT
from tests.support.results import differences
from tests.support.tally import Tally

pytestmark = pytest.mark.usefixtures("threads", "one_thread")

# Odd sizes, and activations whose vectorised loop and its remainder round differently.
NAMES = ("pixel shuffle", "groups", "VAE decoder", "DCGAN of 28", "SIREN", "KL autoencoder", "MLP-Mixer")

fast = pytest.mark.parametrize("engine", FAST)
all_weights = pytest.mark.parametrize("weights", WEIGHTS)


def search(case: Case, images: torch.Tensor, engine: str, once: bool = True, **settings) -> SearchResult:
    """`once`: the generator is captured for the first search of it alone."""
    settings = {"n_seed": 5, "steps": 2, "verify": False, **settings}
    capture = captured_once(case.module) if once else contextlib.nullcontext()
    with capture:
        return adgan_fast.search(case.module, images, engine=engine, latent_shape=case.latent_shape, **settings)


def assert_equal(found: SearchResult, want: SearchResult, rows=slice(None)) -> None:
    assert not differences(found, want, rows)


@fast
@all_weights
@pytest.mark.parametrize("name", NAMES)
def test_an_image_scores_the_same_alone_as_among_others(engine, weights, name):
    case = FAMILIES[name]
    images = case.images(4)
    together = search(case, images, engine, weights=weights)
    for rows in (slice(3, 4), slice(1, 3)):
        assert_equal(search(case, images[rows], engine, weights=weights), together, rows)


@fast
@all_weights
def test_the_order_of_the_images_changes_nothing(engine, weights):
    case = FAMILIES["groups"]
    images, order = case.images(5), [3, 0, 4, 1, 2]
    want = search(case, images, engine, weights=weights)
    assert_equal(search(case, images[order], engine, weights=weights), want, order)


@fast
@all_weights
def test_the_chunk_size_changes_nothing(engine, weights):
    wrong = []
    for name in NAMES:
        case = FAMILIES[name]
        images = case.images(3)
        want = search(case, images, engine, weights=weights, chunk=1)
        for chunk in (2, 3, 5, 1000):
            try:
                assert_equal(search(case, images, engine, weights=weights, chunk=chunk), want)
            except AssertionError as error:
                wrong.append(f"{name}, chunk 1 against {chunk}: {str(error).splitlines()[0]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("engine", "weights"), [("reference", "per_seed"), *((engine, weights) for engine in FAST for weights in WEIGHTS)]
)
def test_the_number_of_threads_changes_nothing(engine, weights):
    case = FAMILIES["DCGAN of 28"]
    images = case.images(3)
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(search(case, images, engine, weights=weights))
        assert torch.get_num_threads() == threads
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])


@fast
@all_weights
def test_a_run_repeated_finds_the_same(engine, weights):
    case = FAMILIES["residual"]
    torch.set_num_threads(2)
    first = search(case, case.images(3), engine, once=False, weights=weights)
    assert_equal(search(case, case.images(3), engine, once=False, weights=weights), first)


@on_cpu
def test_independent_starts_follow_the_index_and_not_the_chunk(engine):
    case = FAMILIES["VAE decoder"]
    images = case.images(3)
    want = search(case, images, engine, starts="independent", chunk=1)
    assert_equal(search(case, images, engine, starts="independent", chunk=2), want)
    assert_equal(search(case, images[:2], engine, starts="independent", chunk=1), want, slice(0, 2))


@fast
@all_weights
def test_more_images_than_are_in_hand_at_once(engine, weights, monkeypatch):
    case = FAMILIES["DCGAN of 8"]
    images = case.images(7)
    want = search(case, images, engine, weights=weights, starts="independent", n_seed=2)
    monkeypatch.setattr(adgan_fast.core.plan, "BLOCK_IMAGES", 3)
    assert_equal(search(case, images, engine, weights=weights, starts="independent", n_seed=2), want)


@fast
def test_a_random_generators_scores_depend_on_neither_chunk_nor_batch(engine):
    tally = Tally()

    @settings(max_examples=8)
    @given(cases(), st.sampled_from(WEIGHTS), st.integers(2, 9))
    def check(case, weights, chunk):
        images = case.images(3)
        try:
            want = search(case, images, engine, weights=weights, chunk=1, n_seed=3)
        except ValueError as error:
            assume("ignores its latent" not in str(error))
            raise
        assert_equal(search(case, images[2:], engine, weights=weights, n_seed=3, chunk=1), want, slice(2, 3))
        assert_equal(search(case, images, engine, weights=weights, chunk=chunk, n_seed=3), want)
        tally.checked += 1

    check()
    tally.assert_enough(8, 0)


CHILD = """
import json, sys
import torch
import adgan_fast
from tests.support.families import FAMILIES
torch.set_num_threads(2)
case = FAMILIES["DCGAN of 28"]
scores = {e: adgan_fast.score(case.module, case.images(2), engine=e, n_seed=3).tolist() for e in sys.argv[1:]}
print(json.dumps(scores))
"""


def test_two_processes_find_the_same():
    command = [sys.executable, "-c", CHILD, *ON_CPU]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    elsewhere = json.loads(done.stdout.splitlines()[-1])
    case = FAMILIES["DCGAN of 28"]
    here = {e: adgan_fast.score(case.module, case.images(2), engine=e, n_seed=3).tolist() for e in ON_CPU}
    assert here == elsewhere
