"""Images in every form, and images that are refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

import adgan_fast
from tests.support.engines import on_cpu
from tests.support.results import TENSORS
from tests.support.small import CASE, FAST

pytestmark = pytest.mark.usefixtures("one_thread")


BYTES = torch.randint(0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
SCALED = BYTES.double() / 127.5 - 1


def readonly(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def strided(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


FORMS: dict[str, Callable[[], object]] = {
    "float32 tensor": lambda: SCALED.float(),
    "float64 tensor": lambda: SCALED,
    "uint8 tensor": lambda: BYTES,
    "uint8 array": lambda: BYTES.numpy(),
    "float64 array": lambda: SCALED.numpy(),
    "float32 array": lambda: SCALED.float().numpy(),
    "(N, H, W)": lambda: SCALED[:, 0].float(),
    "(N, H, W) uint8 array": lambda: BYTES[:, 0].numpy(),
    "read-only array": lambda: readonly(SCALED.numpy()),
    "negative strides": lambda: np.ascontiguousarray(SCALED.float().numpy()[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
    "every second column": lambda: strided(SCALED.numpy()),
    "Fortran order": lambda: np.asfortranarray(SCALED.float().numpy()),
    "big-endian": lambda: SCALED.numpy().astype(">f8"),
    "channels last": lambda: SCALED.float().to(memory_format=torch.channels_last),
    "transposed tensor": lambda: SCALED.float().transpose(2, 3).contiguous().transpose(2, 3),
    "expects a gradient": lambda: SCALED.float().requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_score_the_same_in_every_form(form):
    images = FORMS[form]()
    want = adgan_fast.score(CASE.module, SCALED.float(), **FAST)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = adgan_fast.score(CASE.module, images, **FAST)
    assert type(found) is (np.ndarray if isinstance(images, np.ndarray) else torch.Tensor)
    torch.testing.assert_close(torch.as_tensor(found), want, rtol=1e-6, atol=0)
    assert torch.as_tensor(found).dtype == torch.float32


@pytest.mark.parametrize("form", ["tensor", "bfloat16", "array"])
def test_images_in_half_precision_are_taken_as_the_numbers_they_hold(form):
    half = SCALED.to(torch.bfloat16 if form == "bfloat16" else torch.float16)
    found = adgan_fast.score(CASE.module, half.numpy() if form == "array" else half, **FAST)
    want = adgan_fast.score(CASE.module, half.float(), **FAST)
    assert torch.equal(torch.as_tensor(found), want)


@pytest.mark.parametrize("form", [k for k in FORMS if k != "expects a gradient"])
def test_images_are_not_changed(form):
    images = FORMS[form]()
    before = copy.deepcopy(images)
    adgan_fast.search(CASE.module, images, **FAST)
    for ours, theirs in zip(images, before, strict=True):
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_images_with_nan_are_not_changed_either():
    images = CASE.images(2)
    images[1, 0, 2, 3] = float("nan")
    before = images.numpy().tobytes()
    with pytest.warns(RuntimeWarning):
        adgan_fast.search(CASE.module, images, **FAST)
    assert images.numpy().tobytes() == before


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 9), (2, 1, 7, 8), (2, 9, 9), (0, 3, 8, 8)])
def test_wrong_channels_or_size_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError) as caught:
        adgan_fast.score(CASE.module, torch.zeros(shape), **FAST)
    full = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
    assert ", ".join(map(str, full[1:])) in str(caught.value)
    assert "1, 8, 8" in str(caught.value)


@pytest.mark.parametrize("shape", [(), (8,), (8, 8), (1, 1, 1, 8, 8)])
def test_images_of_another_rank_are_refused_with_their_shape(shape):
    with pytest.raises(ValueError) as caught:
        adgan_fast.score(CASE.module, torch.zeros(shape), **FAST)
    assert str(tuple(shape)) in str(caught.value)


@on_cpu
@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (0, 8, 8)])
def test_no_images_have_no_scores(engine, shape):
    assert adgan_fast.score(CASE.module, torch.zeros(shape), engine=engine, **FAST).shape == (0,)
    empty = adgan_fast.score(CASE.module, np.zeros(shape, np.uint8), engine=engine, **FAST)
    assert isinstance(empty, np.ndarray)
    assert empty.shape == (0,)


@pytest.mark.parametrize(
    "images",
    [
        [[0.0]], None, "images.npy", 3.0, np.zeros((1, 1, 8, 8), complex), np.zeros((1, 1, 8, 8), bool),
        np.zeros((1, 1, 8, 8), np.int64), np.array([["a"]]), np.array([None]),
        torch.zeros(1, 1, 8, 8, dtype=torch.int32), torch.zeros(1, 1, 8, 8, dtype=torch.bool),
        torch.zeros(1, 1, 8, 8, dtype=torch.complex64),
        np.zeros((1, 1, 8, 8), np.uint16),
    ],
    ids=repr,
)  # fmt: skip
def test_images_of_another_type_are_refused(images):
    with pytest.raises((TypeError, ValueError), match="images"):
        adgan_fast.score(CASE.module, images, **FAST)


@pytest.mark.parametrize("value", [1.0011, -1.0011, 255.0, -3e38])
@pytest.mark.parametrize("as_array", [False, True])
def test_floats_outside_the_range_are_refused_with_the_range_seen_and_the_remedy(value, as_array):
    images = torch.zeros(3, 1, 8, 8)
    images[2, 0, 7, 7] = value
    with pytest.raises(ValueError, match=r"\[-1, 1\].*uint8") as caught:
        adgan_fast.score(CASE.module, images.numpy() if as_array else images, **FAST)
    assert f"{value:.4g}" in str(caught.value)


def test_a_range_seen_beside_nan_is_refused_too():
    images = torch.zeros(3, 1, 8, 8)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = float("nan"), 200.0
    with pytest.raises(ValueError, match="200"):
        adgan_fast.score(CASE.module, images, **FAST)


def test_floats_a_rounding_outside_the_range_are_taken():
    images = torch.full((1, 1, 8, 8), 1.0009)
    assert torch.isfinite(adgan_fast.score(CASE.module, -images, **FAST)).all()
    assert torch.isfinite(adgan_fast.score(CASE.module, images, **FAST)).all()


@on_cpu
@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_images_with_nan_or_inf_score_nan_with_a_warning_and_harm_no_other(engine, weights, value):
    images = CASE.images(4)
    clean = adgan_fast.search(CASE.module, images, engine=engine, weights=weights, **FAST)
    images[1, 0, 3, 3] = value
    images[3] = value
    with pytest.warns(RuntimeWarning, match=r"\b2\b.*4.*NaN"):
        found = adgan_fast.search(CASE.module, images, engine=engine, weights=weights, **FAST)
    for name in TENSORS:
        rows = getattr(found, name)
        assert rows[[1, 3]].isnan().all(), name
        assert torch.equal(rows[[0, 2]], getattr(clean, name)[[0, 2]]), name


def test_the_warning_about_nan_points_at_the_callers_line():
    images = torch.full((1, 1, 8, 8), float("nan"))
    for call in (adgan_fast.score, adgan_fast.search):
        with pytest.warns(RuntimeWarning) as caught:
            call(CASE.module, images, **FAST)
        assert [w.filename for w in caught if "NaN" in str(w.message)] == [__file__]


def test_images_with_nan_are_refused_if_strict_with_their_number():
    images = CASE.images(3)
    images[1, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"\b1 of 3\b"):
        adgan_fast.score(CASE.module, images, strict=True, **FAST)
