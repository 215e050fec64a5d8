"""score and search from outside: every row of the contract's table of bad input, and all that is never touched."""

from __future__ import annotations

import copy
import dataclasses
import logging
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from generators import FAMILIES, Function, Residual, randomise
from torch import nn

import adgan_fast
from adgan_fast.core import plan
from adgan_fast.engine.eager import Eager
from adgan_fast.engine.grouped import Grouped

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = [e.name for e in adgan_fast.engines() if e.available and e.name != "triton"]  # these run on a CPU
CASE = FAMILIES["DCGAN of 8"]
FAST = {"n_seed": 2, "steps": 1}
engines = pytest.mark.parametrize("engine", ENGINES)


def small(*layers: nn.Module) -> nn.Module:
    return randomise(nn.Sequential(nn.Linear(3, 8), *layers, nn.Unflatten(1, (2, 2, 2))), 0)


# -- results -----------------------------------------------------------------------------------------------------


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


@engines
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


# -- images in every form ------------------------------------------------------------------------------------------


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


# -- bad input: images ---------------------------------------------------------------------------------------------


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


@engines
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


@engines
@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_images_with_nan_or_inf_score_nan_with_a_warning_and_harm_no_other(engine, weights, value):
    images = CASE.images(4)
    clean = adgan_fast.search(CASE.module, images, engine=engine, weights=weights, **FAST)
    images[1, 0, 3, 3] = value
    images[3] = value
    with pytest.warns(RuntimeWarning, match=r"\b2\b.*4.*NaN"):
        found = adgan_fast.search(CASE.module, images, engine=engine, weights=weights, **FAST)
    for name in ("scores", "losses", "initial_losses", "latents", "reconstructions"):
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


# -- bad input: generators -----------------------------------------------------------------------------------------


class Returns(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], object]):
        super().__init__()
        self.layer, self.function = nn.Linear(3, 4), function

    def forward(self, z):
        return self.function(self.layer(z).reshape(-1, 1, 2, 2))


@engines
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x * float("nan"), "NaN"),
        (lambda x: x / 0, "NaN or Inf"),
        (lambda x: torch.zeros_like(x), "ignores its latent"),
        (lambda x: x + torch.randn_like(x), "random"),
        (lambda x: (x, x), "tuple"),
        (lambda x: [x], "list"),
        (lambda x: None, "None"),
        (lambda x: x[:, 0], r"\(1, 2, 2\)"),
        (lambda x: x.expand(-1, 3, -1, -1), r"\(1, 3, 2, 2\)"),
        (lambda x: torch.cat([x, x]), r"\(2, 1, 2, 2\)"),
    ],
    ids=["NaN", "Inf", "ignores z", "random", "tuple", "list", "nothing", "rank", "channels", "two for one"],
)  # fmt: skip
def test_a_generator_that_makes_no_sense_is_named_with_what_it_does(engine, function, message):
    with pytest.raises(ValueError, match=rf"(?s)Returns.*{message}|{message}.*Returns"):
        adgan_fast.score(Returns(function), torch.zeros(2, 1, 2, 2), engine=engine, latent_shape=(3,), **FAST)


def overflowing(x: torch.Tensor) -> torch.Tensor:
    """x, or NaN where |x| is above 18: the square of x · 1e18 is then Inf."""
    square = (x * 1e18) * (x * 1e18)
    return x + (square - square)


@engines
def test_a_generator_that_returns_nan_now_and_then_does_not_pass_unseen(engine):
    """NaN from a latent far from those that are tried first: the score is NaN, not a number, and a warning says so."""
    module = randomise(Returns(overflowing), 0)
    near, far = torch.full((1, 3), 0.1), torch.tensor([[1000.0, -1000.0, 1000.0]])
    settings = {"engine": engine, "steps": 1}
    alone = adgan_fast.search(module, torch.zeros(2, 1, 2, 2), starts=near, **settings)
    for starts, good in ((torch.cat([far, near]), 1), (torch.cat([near, far, far]), 0)):
        with pytest.warns(RuntimeWarning, match="2 of 2.*Returns"):
            found = adgan_fast.search(module, torch.zeros(2, 1, 2, 2), starts=starts, **settings)
        assert found.scores.isnan().all()
        assert torch.isfinite(found.losses[:, good]).all()
        torch.testing.assert_close(found.reconstructions, alone.reconstructions)  # of the best start that has a loss
    with pytest.warns(RuntimeWarning, match="2 of 2.*Returns"):
        nowhere = adgan_fast.search(module, torch.zeros(2, 1, 2, 2), starts=far, **settings)
    assert nowhere.scores.isnan().all()
    assert nowhere.reconstructions.isnan().all()  # and not what memory happened to hold


@pytest.mark.parametrize("latent_shape", [(4,), (3, 1), (1, 3, 1, 1)])
def test_a_wrong_latent_shape_is_refused_by_name(latent_shape):
    with pytest.raises(ValueError, match="latent") as caught:
        adgan_fast.score(small(nn.ReLU()), torch.zeros(1, 2, 2, 2), latent_shape=latent_shape, **FAST)
    assert ", ".join(map(str, latent_shape)) in str(caught.value)


@pytest.mark.parametrize("gen", [None, 3, lambda z: z, nn.Linear], ids=["None", "3", "a function", "a class"])
def test_what_is_no_generator_is_refused(gen):
    with pytest.raises(TypeError, match="gen"):
        adgan_fast.score(gen, torch.zeros(1, 1, 2, 2))


def test_a_config_of_another_type_and_an_unknown_setting_are_refused():
    with pytest.raises(TypeError, match="config"):
        adgan_fast.score(CASE.module, CASE.images(1), config={"n_seed": 2})
    with pytest.raises(TypeError, match="n_seeds"):
        adgan_fast.score(CASE.module, CASE.images(1), n_seeds=2)


@pytest.mark.parametrize("loss", [lambda r, x: (r - x).square().mean(), lambda r, x: 0.0], ids=["a mean", "a number"])
@engines
def test_a_loss_that_gives_no_number_for_each_row_is_refused(engine, loss):
    with pytest.raises(ValueError, match="loss"):
        adgan_fast.score(CASE.module, CASE.images(3), loss=loss, engine=engine, **FAST)


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises((ValueError, RuntimeError, AssertionError), match=r"(?i)cuda"):
        adgan_fast.score(CASE.module, CASE.images(1), device="cuda", **FAST)


# -- never touched -------------------------------------------------------------------------------------------------


def modes(module: nn.Module) -> list[bool]:
    return [layer.training for layer in module.modules()]


def fingerprint(module: nn.Module) -> list[object]:
    state: list[object] = [modes(module)]
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        grad = None if tensor.grad is None else tensor.grad.numpy().tobytes()
        state.append((name, id(tensor), tensor.data_ptr(), tensor._version, tensor.detach().numpy().tobytes(), grad))
        state.append((tensor.requires_grad, tensor.dtype))
    return state


@engines
@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
def test_the_generator_is_left_as_it_was(engine, weights):
    gen = copy.deepcopy(FAMILIES["residual"].module).train()
    gen[1].eval()
    gen[2].inner[1].weight.requires_grad_(False)
    gen[0].weight.grad = torch.ones_like(gen[0].weight)
    calls: list[str] = []
    gen[0].weight.register_hook(lambda grad: calls.append("backward"))
    before = fingerprint(gen)
    adgan_fast.search(gen, FAMILIES["residual"].images(2), engine=engine, weights=weights, **FAST)
    assert fingerprint(gen) == before
    assert calls == []
    assert gen[1].num_batches_tracked == 7


@engines
def test_a_frozen_parameter_of_the_generator_is_searched_all_the_same(engine):
    """w is every parameter, whether its owner was training it or not."""
    gen = copy.deepcopy(CASE.module)
    want = adgan_fast.score(gen, CASE.images(2), engine=engine, **FAST)
    gen.requires_grad_(False)
    assert torch.equal(adgan_fast.score(gen, CASE.images(2), engine=engine, **FAST), want)


@engines
def test_forward_hooks_see_no_difference_in_number_or_kind(engine):
    gen = copy.deepcopy(CASE.module)
    seen: list[int] = []
    handle = gen.register_forward_hook(lambda module, inputs, output: seen.append(1))
    want = adgan_fast.score(CASE.module, CASE.images(1), engine=engine, **FAST)
    hooks = list(gen._forward_hooks.values())
    assert torch.equal(adgan_fast.score(gen, CASE.images(1), engine=engine, **FAST), want)
    assert list(gen._forward_hooks.values()) == hooks
    handle.remove()


@engines
def test_train_mode_or_eval_mode_the_scores_are_the_same(engine):
    gen = randomise(
        nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Unflatten(1, (2, 2, 2))), 0
    )
    images = torch.zeros(2, 2, 2, 2)
    scores = [adgan_fast.score(gen.train(mode), images, engine=engine, **FAST) for mode in (True, False)]
    assert torch.equal(*scores)


@engines
def test_the_global_random_states_are_left_as_they_were(engine):
    gen = small(nn.Dropout(0.5), nn.ReLU())
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()
    adgan_fast.search(gen, torch.zeros(2, 2, 2, 2), engine=engine, starts="independent", **FAST)
    assert torch.equal(torch.get_rng_state(), before[0])
    for ours, theirs in zip(np.random.get_state(), before[1], strict=True):
        assert np.array_equal(ours, theirs)


def settings_of_torch() -> dict[str, object]:
    backends = torch.backends
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "switches": [
            switch.fp32_precision
            for switch in (
                backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn,
                backends.mkldnn, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn,
            )
        ],
        "tf32": (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()),
    }  # fmt: skip


@engines
def test_torchs_own_settings_are_left_as_they_were(engine):
    before = settings_of_torch()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        adgan_fast.search(CASE.module, CASE.images(3), engine=engine, **FAST)
        assert settings_of_torch() == before | {"threads": threads}


@engines
@pytest.mark.parametrize("call", [adgan_fast.score, adgan_fast.search])
def test_torchs_own_settings_are_put_back_after_an_error(engine, call):
    def broken(reconstruction, image):
        raise RuntimeError("broken on purpose")

    before = settings_of_torch()
    with pytest.raises(RuntimeError, match="broken on purpose"):
        call(CASE.module, CASE.images(3), engine=engine, loss=broken, **FAST)
    assert settings_of_torch() == before
    assert torch.isfinite(adgan_fast.score(CASE.module, CASE.images(1), engine=engine, **FAST)).all()


@engines
@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu"), lambda: torch.autocast("cpu", torch.float16)],
    ids=["no_grad", "inference_mode", "autocast", "autocast to float16"],
)
def test_what_surrounds_the_call_changes_nothing(engine, around):
    want = adgan_fast.search(CASE.module, CASE.images(2), engine=engine, **FAST)
    with around():
        before = settings_of_torch()
        found = adgan_fast.search(CASE.module, CASE.images(2), engine=engine, **FAST)
        assert settings_of_torch() == before
    for name in ("scores", "losses", "initial_losses", "latents", "reconstructions"):
        assert torch.equal(getattr(found, name), getattr(want, name)), name


@engines
def test_a_generator_and_images_made_in_inference_mode_can_be_searched(engine):
    with torch.inference_mode():
        gen, images = copy.deepcopy(CASE.module), CASE.images(2)
        inside = adgan_fast.score(gen, images, engine=engine, **FAST)
    want = adgan_fast.score(CASE.module, CASE.images(2), engine=engine, **FAST)
    assert torch.equal(adgan_fast.score(gen, images, engine=engine, **FAST), want)
    assert torch.equal(inside, want)


@engines
@pytest.mark.parametrize("loss", ["l2", "laplacian"])
def test_the_default_dtype_changes_nothing(engine, loss):
    case = FAMILIES["DCGAN of 28"]
    want = adgan_fast.search(case.module, case.images(1), engine=engine, loss=loss, **FAST)
    torch.set_default_dtype(torch.float64)
    try:
        found = adgan_fast.search(case.module, case.images(1).float(), engine=engine, loss=loss, **FAST)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.scores, want.scores)
    assert torch.equal(found.latents, want.latents)


@engines
def test_a_generator_without_parameters_can_be_searched(engine):
    gen = Function(lambda z: torch.tanh(z).reshape(-1, 1, 2, 3))
    found = adgan_fast.search(gen, torch.zeros(2, 1, 2, 3), latent_shape=(6,), engine=engine, n_seed=3)
    assert (found.losses < found.initial_losses).all()


@engines
def test_a_parametrized_generator_is_searched_over_its_own_parameters(engine):
    gen = small(Residual(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))), nn.Tanh())
    images = torch.full((2, 2, 2, 2), 0.3)
    try:
        found = adgan_fast.search(gen.double(), images, engine=engine, n_seed=2)
    except ValueError as error:
        assert engine not in ("reference", "eager")
        assert "cannot run" in str(error)
        return
    want = adgan_fast.search(gen.double(), images, engine="reference", n_seed=2)
    torch.testing.assert_close(found.losses, want.losses, rtol=1e-10, atol=0)


# -- out of memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [Grouped, Eager], ids=["grouped", "eager"])
@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("no memory, on purpose"),
        lambda: MemoryError("no memory, on purpose"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["torch", "python", "torch on a CPU"],
)
def test_out_of_memory_on_a_cpu_halves_the_threads_says_so_and_goes_on(engine, error, monkeypatch, caplog, threads):
    case, images = FAMILIES["VAE decoder"], FAMILIES["VAE decoder"].images(3)
    want = adgan_fast.search(case.module, images, engine=engine.name, n_seed=4, steps=1)
    run, lanes = engine.run, []
    torch.set_num_threads(4)

    def short_of_memory(self, job, plan, block):
        lanes.append(plan.lanes)
        run(self, job, plan, block)  # the work is done already, and is done again
        if plan.lanes > 1:
            raise error()

    monkeypatch.setattr(engine, "run", short_of_memory)
    caplog.set_level(logging.WARNING, "adgan_fast")
    found = adgan_fast.search(case.module, images, engine=engine.name, n_seed=4, steps=1)
    assert lanes == [4, 2, 1]
    assert [r.getMessage() for r in caplog.records if "memory" in r.getMessage()] == [
        "out of memory on cpu: 2 threads at work instead of 4",
        "out of memory on cpu: 1 threads at work instead of 2",
    ]
    assert torch.equal(found.losses, want.losses)
    assert torch.equal(found.reconstructions, want.reconstructions)


@pytest.mark.parametrize("engine", [Grouped, Eager], ids=["grouped", "eager"])
def test_no_more_threads_are_at_work_than_were_planned(engine, monkeypatch, threads):
    at_once, most, lock = 0, 0, threading.Lock()

    def loss(reconstruction, image):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.005)
        with lock:
            at_once -= 1
        return (reconstruction - image).square().flatten(1).sum(1)

    case = FAMILIES["DCGAN of 8"]
    planned = plan.planned
    monkeypatch.setattr(plan, "planned", lambda *given: dataclasses.replace(planned(*given), lanes=2))
    torch.set_num_threads(4)
    adgan_fast.score(
        case.module, case.images(8), engine=engine.name, n_seed=2, steps=2, starts="independent", loss=loss
    )
    assert most == 2


def test_out_of_memory_at_one_pair_is_raised(monkeypatch):
    def short_of_memory(self, job, plan, block):
        raise torch.OutOfMemoryError("no memory, on purpose")

    monkeypatch.setattr(Grouped, "run", short_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="on purpose"):
        adgan_fast.score(CASE.module, CASE.images(2), engine="grouped", **FAST)


def test_an_error_that_is_not_about_memory_is_raised_at_once(monkeypatch):
    calls = []

    def broken(self, job, plan, block):
        calls.append(plan.lanes)
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Grouped, "run", broken)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        adgan_fast.score(CASE.module, CASE.images(2), engine="grouped", **FAST)
    assert len(calls) == 1


def test_two_threads_that_score_at_once_get_what_one_gets():
    want = adgan_fast.score(CASE.module, CASE.images(2), **FAST)
    before = (torch.get_num_threads(), torch.backends.cudnn.conv.fp32_precision)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(adgan_fast.score, CASE.module, CASE.images(2), **FAST) for _ in range(6)]
    for call in calls:
        assert torch.equal(call.result(), want)
    assert (torch.get_num_threads(), torch.backends.cudnn.conv.fp32_precision) == before


@engines
def test_what_cannot_fit_is_refused_before_the_work_with_the_bytes_it_would_take(engine, monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda device: 100)
    with pytest.raises(MemoryError, match=rf"{engine}.*MiB"):
        adgan_fast.score(CASE.module, CASE.images(1), engine=engine, **FAST)


# -- progress and the log --------------------------------------------------------------------------------------------


@engines
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
