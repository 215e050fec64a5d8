"""Starts: the published Philox vectors, the prior's distribution, and the same bits on every machine."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adgan_fast
from adgan_fast import SearchConfig
from adgan_fast.core.starts import Starts, draw, inverse_normal, philox, uniforms
from tests.support.families import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")

NORMAL = statistics.NormalDist()


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0, 0, 0, 0], 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, 0xFFFFFFFFFFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            0x299F31D0_A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zeros", "ones", "digits of pi"],
)
def test_philox_gives_the_published_vectors(counter, key, words):
    """Random123's known answers for philox4x32-10 (kat_vectors)."""
    found = philox(np.array([counter, counter], dtype=np.uint32), key)
    assert found.dtype == np.uint32
    for row in found:
        assert " ".join(f"{word:08x}" for word in row) == words


PINNED = {
    (0, None, 2, "normal"): [
        "-0x1.05f49f2746419p-2", "0x1.42a76ea5b0d6ep-1", "0x1.ea308c1ad276fp+0",
        "-0x1.abe7f267f1b15p-3", "-0x1.f0d8af0e85109p-4", "-0x1.7265e48001531p-3",
    ],
    (2**64 - 1, 4, 1, "normal"): ["0x1.0bde663b45e64p-5", "0x1.a7a6c73d397d8p-2", "0x1.87525264fcfdep-4"],
    (0, None, 1, "uniform"): ["-0x1.9d8172a1e9638p-3", "0x1.e2bd6264d806cp-2", "0x1.e393329172c82p-1"],
}  # fmt: skip


@pytest.mark.parametrize("key", PINNED, ids=str)
def test_starts_have_the_same_bits_on_every_machine(key):
    seed, image, n_seed, prior = key
    found = draw(seed, image, n_seed, (3,), prior)
    assert found.dtype == torch.float64
    assert [value.hex() for value in found.flatten().tolist()] == PINNED[key]


def test_pinned_starts_are_the_published_words_through_the_inverse_normal():
    """The first two numbers of seed 0 from the published answer to counter 0, key 0."""
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    for value, (high, low) in zip(draw(0, None, 1, (2,), "normal")[0].tolist(), (words[:2], words[2:]), strict=True):
        uniform = (((high << 20) | (low >> 12)) + 0.5) / 2**52
        assert value == pytest.approx(NORMAL.inv_cdf(uniform), rel=1e-14)


@given(st.lists(st.floats(1e-300, 1.0, exclude_max=True), min_size=1, max_size=50))
def test_the_inverse_normal_is_the_standard_librarys(values):
    found = inverse_normal(np.array(values))
    for value, x in zip(values, found.tolist(), strict=True):
        assert x == pytest.approx(NORMAL.inv_cdf(value), rel=1e-13, abs=1e-15)


def test_the_inverse_normal_is_odd_rising_and_finite_at_both_ends_of_the_draw():
    ends = np.array([0.5 * 2.0**-52, 1 - 0.5 * 2.0**-52])
    found = inverse_normal(ends)
    assert np.isfinite(found).all()
    assert found[0] == -found[1]
    grid = inverse_normal(np.linspace(1e-6, 1 - 1e-6, 20001))
    assert (np.diff(grid) > 0).all()
    assert inverse_normal(np.array([0.5]))[0] == 0


def kolmogorov_smirnov(sample: np.ndarray, cdf) -> float:
    """sqrt(n) times the largest distance between the sample's distribution and `cdf`."""
    ordered = np.sort(sample)
    want = np.array([cdf(x) for x in ordered.tolist()])
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return math.sqrt(len(ordered)) * float(max((steps[1:] - want).max(), (want - steps[:-1]).max()))


@pytest.mark.parametrize("image", [None, 0, 7])
@pytest.mark.parametrize(
    ("prior", "cdf"), [("normal", NORMAL.cdf), ("uniform", lambda x: (x + 1) / 2)], ids=["normal", "uniform"]
)
def test_the_draw_follows_the_prior(prior, cdf, image):
    sample = draw(3, image, 100, (25,), prior).numpy()
    assert kolmogorov_smirnov(sample.ravel(), cdf) < 1.63  # passed by 99 % of true samples
    centred = sample.reshape(100, 25) / sample.std()
    across = np.corrcoef(centred.T) - np.eye(25)  # between the numbers of a start
    between = np.corrcoef(centred) - np.eye(100)  # between the starts
    assert np.abs(across).max() < 5 / math.sqrt(100)
    assert np.abs(between).max() < 5 / math.sqrt(25)


@given(
    st.integers(0, 2**64 - 1), st.one_of(st.none(), st.integers(0, 2**40)), st.integers(1, 9), st.integers(1, 9),
    st.integers(1, 7), st.sampled_from(["normal", "uniform"]),
)  # fmt: skip
def test_fewer_starts_are_the_first_of_more(seed, image, few, more, size, prior):
    few, more = sorted((few, more))
    assert torch.equal(draw(seed, image, more, (size,), prior)[:few], draw(seed, image, few, (size,), prior))


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_shorter_latent_is_the_beginning_of_a_longer_one(short, long):
    short, long = sorted((short, long))
    assert torch.equal(draw(5, None, 3, (long,), "normal")[:, :short], draw(5, None, 3, (short,), "normal"))


def test_the_latents_shape_changes_no_number():
    assert torch.equal(draw(1, None, 2, (3, 2, 1), "normal").flatten(1), draw(1, None, 2, (6,), "normal"))


def test_seeds_images_and_the_shared_draw_have_nothing_in_common():
    keys = [(0, None), (1, None), (2**32, None), (2**63, None), (0, 0), (0, 1), (0, 2**32 - 1), (0, 2**32), (1, 0)]
    drawn = torch.stack([draw(seed, image, 4, (8,), "normal").flatten() for seed, image in keys])
    flat = drawn.flatten()
    assert len(flat.unique()) == len(flat)


def test_uniforms_never_reach_the_ends():
    values = uniforms(1, None, 50, 400)
    assert values.dtype == np.float64
    assert (values > 0).all()
    assert (values < 1).all()


@settings(max_examples=20)
@given(st.integers(0, 6), st.integers(0, 6))
def test_no_start_is_drawn_from_the_global_random_state(seed, n):
    torch.manual_seed(seed)
    np.random.seed(seed)
    before = torch.get_rng_state()
    drawn = draw(1, n, 2, (3,), "normal")
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(drawn, draw(1, n, 2, (3,), "normal"))


# -- as a run hands them out -------------------------------------------------------------------------------------


def make(starts, n_seed=2, latent_shape=(4,), dtype=torch.float64) -> Starts:
    config = SearchConfig(starts=starts, seed=9, n_seed=n_seed)
    return Starts(config, latent_shape, device=torch.device("cpu"), dtype=dtype)


def test_shared_starts_are_the_same_for_every_image():
    starts = make("shared")
    assert torch.equal(starts.of_images([0, 2]), draw(9, None, 2, (4,), "normal").expand(2, 2, 4))
    assert torch.equal(starts.common, draw(9, None, 2, (4,), "normal"))


def test_independent_starts_are_keyed_by_the_index_of_the_image():
    starts = make("independent")
    assert starts.common is None
    for image in (0, 2, 1):
        assert torch.equal(starts.of_images([image])[0], draw(9, image, 2, (4,), "normal"))


def test_given_starts_for_all_images_and_for_each():
    shared, each = torch.randn(5, 4), torch.randn(3, 5, 4)
    assert torch.equal(make(shared, dtype=torch.float32).of_images([1, 2]), shared.expand(2, 5, 4))
    assert torch.equal(make(each, dtype=torch.float32).of_images([2, 0]), each[[2, 0]])
    assert make(shared).n_seed == make(each).n_seed == 5


@pytest.mark.parametrize(
    ("shape", "latent_shape"),
    [
        ((4,), (4,)), ((2, 5), (4,)), ((3, 2, 5), (4,)), ((1, 3, 2, 4), (4,)), ((4, 3, 2, 4), (4,)),
        ((5, 4), (4, 1, 1)), ((5, 4, 1), (4, 1, 1)), ((4, 1, 1), (4, 1, 1)), ((), (4,)),
    ],
)  # fmt: skip
def test_starts_of_a_wrong_shape_are_refused_with_both_shapes(shape, latent_shape):
    with pytest.raises(ValueError, match="starts") as caught:
        make(torch.zeros(shape), latent_shape=latent_shape)
    assert str(tuple(shape)) in str(caught.value)
    assert str(latent_shape) in str(caught.value)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_starts_for_another_number_of_images_are_refused_with_both_numbers(n):
    with pytest.raises(ValueError, match=rf"starts.*\b{n}\b.*\b3\b"):
        make(torch.zeros(n, 2, 4)).check_images(3)


def test_no_start_at_all_is_refused():
    with pytest.raises(ValueError, match="starts"):
        make(torch.zeros(0, 4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("shape", [(2, 4), (3, 2, 4)])
def test_starts_with_nan_or_inf_are_refused(shape, bad):
    starts = torch.zeros(shape)
    starts[..., 1] = bad
    with pytest.raises(ValueError, match="starts"):
        make(starts)


def test_given_starts_are_searched_from_and_not_changed():
    case = FAMILIES["DCGAN of 8"]
    starts = torch.randn(3, *case.latent_shape, generator=torch.Generator().manual_seed(1))
    before = starts.clone()
    found = adgan_fast.search(case.module, case.images(2), starts=starts, steps=0)
    assert torch.equal(found.latents, starts.expand(2, *starts.shape))
    assert torch.equal(starts, before)
    each = torch.stack([starts, starts + 1])
    assert torch.equal(adgan_fast.search(case.module, case.images(2), starts=each, steps=0).latents, each)


def test_drawn_starts_given_as_a_tensor_make_no_difference():
    case = FAMILIES["DCGAN of 8"]
    drawn = draw(5, None, 3, case.latent_shape, "normal")
    by_seed = adgan_fast.score(case.module, case.images(2), seed=5, n_seed=3)
    assert torch.equal(adgan_fast.score(case.module, case.images(2), starts=drawn), by_seed)
    each = torch.stack([draw(5, i, 3, case.latent_shape, "normal") for i in range(2)])
    by_seed = adgan_fast.score(case.module, case.images(2), seed=5, n_seed=3, starts="independent")
    assert torch.equal(adgan_fast.score(case.module, case.images(2), starts=each), by_seed)
