"""The native engine: agreement with the reference, the same bits however the work is cut, nothing uninitialised."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import math
import re
import threading
import time
from collections import Counter
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from generators import FAMILIES, Case, cases, dcgan
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from own_loss import Failing, squares
from torch import nn

import adgan_fast
from adgan_fast import SearchConfig, ops
from adgan_fast.config import LOSSES
from adgan_fast.config import WEIGHTS as MODES
from adgan_fast.core.losses import Loss
from adgan_fast.engine.native import encode
from adgan_fast.engine.native import engine as native
from adgan_fast.engine.native.callback import OwnLoss
from adgan_fast.generator.rules import lower
from adgan_fast.testing import FLOAT32, REDUCED, errors, violations

PLAN = Path(__file__).parents[1] / "csrc/core/plan.h"

pytestmark = pytest.mark.skipif(ops.load_extension() is not None, reason=str(ops.load_extension()))


BEST = torch.ops.adgan_fast.native_isa.default() if ops.load_extension() is None else -1
HERE = ops.INSTRUCTION_SETS[: BEST + 1]


@pytest.fixture(params=ops.INSTRUCTION_SETS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The operator runs with the kernels of this instruction set."""
    if request.param not in HERE:
        pytest.skip(f"this processor has no {request.param}, only {', '.join(HERE)}")
    right, place = ops.native_search, HERE.index(request.param)

    def search(*arguments, **more):
        return right(*ops.SearchArguments(*arguments, **more)._replace(isa=place))

    monkeypatch.setattr(ops, "native_search", search)
    return request.param


def run(case: Case, images: torch.Tensor, **settings) -> adgan_fast.SearchResult:
    settings = {
        "n_seed": 3,
        "steps": 4,
        "latent_shape": case.latent_shape,
        "engine": "native",
        "verify": False,
        **settings,
    }
    return adgan_fast.search(case.module, images, **settings)


def reference(case: Case, images: torch.Tensor, **settings) -> adgan_fast.SearchResult:
    case.module.double()
    try:
        return run(case, images.double(), **{**settings, "engine": "reference"})
    finally:
        case.module.float()


@cache
def reference_of_family(name: str, weights: str, loss: str) -> adgan_fast.SearchResult:
    case = FAMILIES[name]
    return reference(case, case.images(2), weights=weights, loss=loss)


def op_arguments(case: Case, n: int = 2, s: int = 3, weights: str = "per_seed", loss: str = "l2", steps: int = 3):
    program = lower(case.module.eval(), case.latent_shape)
    random = torch.Generator().manual_seed(3)
    starts = torch.randn(s, *case.latent_shape, generator=random)
    return (
        case.images(n), starts, [p.detach() for p in program.parameters], list(program.constants),
        *encode.encode(program), MODES.index(weights), LOSSES.index(loss), steps, [0.25, 5e-5, 0.5, 0.999, 1e-8],
    )  # fmt: skip


# -- agreement -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread", "isa")
@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("name", FAMILIES)
def test_agrees_with_the_reference_on_every_family(name, weights):
    case = FAMILIES[name]
    for loss in LOSSES if weights == "per_seed" else ("l2",):
        found = run(case, case.images(2), weights=weights, loss=loss)
        assert not violations(found, reference_of_family(name, weights, loss), FLOAT32)


@pytest.mark.usefixtures("one_thread")
@settings(max_examples=25)
@given(cases(), st.sampled_from(MODES), st.sampled_from(LOSSES), st.integers(6, 11))
def test_agrees_with_the_reference_for_many_steps(case, weights, loss, steps):
    """Beyond the steps that rank-1 layers keep; engines/test_agreement.py has the usual ones."""
    images, settings = case.images(2), {"weights": weights, "loss": loss, "steps": steps, "lr_weights": 1e-3}
    try:
        expected = reference(case, images, **settings)
    except ValueError:  # every ReLU is shut
        return
    # Where float32 itself has an entry of a first gradient flip its sign, nothing can be said.
    if math.prod(case.image_shape) >= 6 and not violations(
        run(case, images, **{**settings, "engine": "reference"}), expected, FLOAT32 * 0.25
    ):
        assert not violations(run(case, images, **settings), expected, FLOAT32)


@pytest.mark.parametrize("name", FAMILIES)
def test_sixteen_bit_state_is_within_its_bound(name):
    case = FAMILIES[name]
    images = case.images(2)
    found, expected = run(case, images, precision="bf16"), reference(case, images)
    assert not violations(found, expected, "bf16")
    assert not errors(found, expected).flipped


def test_sixteen_bit_state_is_what_bf16_means():
    """A generator with a first layer, and convolutions whose moments are rounded; nothing else differs."""
    case = dcgan(32, 1, 24, 16)
    images = case.images(2)
    exact, compact = run(case, images), run(case, images, precision="bf16")
    assert torch.equal(exact.initial_losses, compact.initial_losses)
    assert not torch.equal(exact.losses, compact.losses)
    expected = reference(case, images)
    assert not violations(compact, expected, REDUCED * 0.1)
    assert not errors(compact, expected).flipped


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("image_size, channels, width", [(32, 1, 16), (32, 3, 24), (64, 3, 8), (28, 1, 20)])
@pytest.mark.parametrize("weights", MODES)
def test_agrees_at_widths_that_fill_registers_and_leave_a_rest(image_size, channels, width, weights):
    case = dcgan(image_size, channels, 24, width)
    images = case.images(2)
    expected = reference(case, images, weights=weights, engine="grouped")
    assert not violations(run(case, images, weights=weights), expected, FLOAT32)


SETTINGS = (
    {"lr_z": 0.0}, {"lr_weights": 0.0}, {"lr_z": 0.0, "lr_weights": 0.0}, {"lr_z": 1.5}, {"lr_weights": 0.01},
    {"betas": (0.0, 0.0)}, {"betas": (0.9, 0.99)}, {"betas": (0.0, 0.999)}, {"betas": (0.95, 0.5)},
    {"eps": 1e-3}, {"eps": 1.0}, {"eps": 1e-30}, {"prior": "uniform"}, {"seed": 2**63}, {"starts": "independent"},
    *({"steps": steps, "lr_weights": 1e-3} for steps in range(11)),  # first layers keep the gradients of up to 8
)  # fmt: skip


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("weights", MODES)
def test_agrees_with_the_reference_in_every_setting(weights, settings):
    for name in ("DCGAN of 16", "scalings and constants"):
        case, settings = FAMILIES[name], {"steps": 5, "weights": weights, **settings}
        found, expected = run(case, case.images(2), **settings), reference(case, case.images(2), **settings)
        assert not violations(found, expected, FLOAT32)
        torch.testing.assert_close(found.latents, expected.latents.float(), rtol=1e-3, atol=2e-3)


def test_agrees_with_the_reference_in_random_settings():
    tried = Counter[str]()

    @settings(max_examples=40)
    @given(
        cases(),
        st.fixed_dictionaries(
            {
                "weights": st.sampled_from(MODES),
                "loss": st.sampled_from([*LOSSES, features]),
                "steps": st.integers(0, 9),
                "n_seed": st.integers(1, 5),
                "rates": st.sampled_from([(0.25, 5e-5), (0.25, 0.0), (0.0, 0.01), (0.05, 1e-3), (1.0, 5e-5)]),
                "betas": st.sampled_from([(0.5, 0.999), (0.0, 0.0), (0.9, 0.99), (0.9, 0.5)]),
                "eps": st.sampled_from([1e-8, 1e-3, 1.0]),
                "prior": st.sampled_from(["normal", "uniform"]),
                "starts": st.sampled_from(["shared", "independent"]),
                "seed": st.integers(0, 2**64 - 1),
            }
        ),
    )
    def check(case, settings):
        assume(math.prod(case.image_shape) >= 6)  # the error of one or two pixels' loss is relative to nearly nothing
        settings["lr_z"], settings["lr_weights"] = settings.pop("rates")
        images = case.images(2)
        try:
            expected = reference(case, images, **settings)
        except ValueError:  # every ReLU is shut
            return
        tried["all"] += 1
        # Where float32 itself has an entry of a first gradient flip its sign, nothing can be said.
        plain = run(case, images, **{**settings, "engine": "reference"})
        if violations(plain, expected, FLOAT32 * 0.25):
            tried["set aside"] += 1
            return
        assert not violations(run(case, images, **settings), expected, FLOAT32)

    check()
    assert tried["all"] >= 30 and tried["set aside"] <= 0.25 * tried["all"], tried


def test_latents_and_reconstructions_are_those_of_the_best_start():
    case = FAMILIES["DCGAN of 16"]
    found, expected = run(case, case.images(3)), reference(case, case.images(3))
    torch.testing.assert_close(found.latents, expected.latents.float(), rtol=0, atol=2e-3)
    torch.testing.assert_close(found.reconstructions, expected.reconstructions.float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("weights", MODES)
def test_starts_of_each_images_own(weights):
    case = FAMILIES["DCGAN of 8"]
    settings = {"starts": "independent", "weights": weights}
    assert not violations(run(case, case.images(3), **settings), reference(case, case.images(3), **settings), FLOAT32)


# -- the same bits -------------------------------------------------------------------------------------------------


def _same(a: adgan_fast.SearchResult, b: adgan_fast.SearchResult) -> bool:
    names = ("initial_losses", "losses", "latents", "reconstructions")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.usefixtures("threads", "isa")
@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("name", ["DCGAN of 32", "upsample and convolve", "tied weights"])
def test_bits_do_not_depend_on_threads_order_or_neighbours(name, weights, monkeypatch):
    case = FAMILIES[name] if name != "DCGAN of 32" else dcgan(32, 1, 20, 16)
    images = case.images(5)
    torch.set_num_threads(1)
    whole = run(case, images, weights=weights)
    torch.set_num_threads(3)
    assert _same(whole, run(case, images, weights=weights))
    monkeypatch.setattr(native, "CALL_SECONDS", 0.0)  # a pair at a time
    assert _same(whole, run(case, images, weights=weights))
    backwards = run(case, images.flip(0), weights=weights)
    assert torch.equal(backwards.losses.flip(0), whole.losses)
    assert torch.equal(backwards.latents.flip(0), whole.latents)
    alone = run(case, images[2:3], weights=weights)
    assert torch.equal(alone.losses, whole.losses[2:3])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("loss", ["l2", "laplacian"])
@pytest.mark.parametrize("name", [*FAMILIES, "DCGAN of 32"])
def test_threads_that_share_an_image_change_no_bit(name, loss):
    """With one copy of the weights for its starts, more of these than pass at a time, and never a number left over."""
    case = FAMILIES[name] if name in FAMILIES else dcgan(32, 3, 20, 16)
    batch = re.search(r"kBatch = (\d+)", PLAN.read_text())
    arguments = op_arguments(case, n=1, s=int(batch[1]) + 3, weights="per_sample", loss=loss)
    torch.set_num_threads(1)
    alone = ops.native_search(*arguments)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        shared = ops.native_search(*arguments, poison=True)
        assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True)), threads
    assert all(torch.isfinite(a).all() for a in alone)


@pytest.mark.skipif(len(HERE) < 2, reason="there is one instruction set here")
def test_the_instruction_set_that_is_asked_for_is_used():
    """With a fused multiply-add or without, and with other vectors, sums round differently."""
    arguments = op_arguments(dcgan(16, 1, 9, 20))
    latents = [ops.native_search(*arguments, isa=i)[2] for i in range(len(HERE))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(latents, 2))
    assert torch.equal(ops.native_search(*arguments)[2], latents[-1])
    with pytest.raises(RuntimeError, match="isa must be"):
        ops.native_search(*arguments, isa=len(HERE))


# -- the operator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", MODES)
def test_opcheck(weights):
    torch.library.opcheck(
        torch.ops.adgan_fast.native_search.default, op_arguments(FAMILIES["DCGAN of 8"], weights=weights)
    )


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("weights, compact", [*((mode, False) for mode in MODES), ("per_seed", True)])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_scratch_is_read_before_it_is_written(name, weights, compact):
    arguments = op_arguments(FAMILIES[name], weights=weights, loss="laplacian")
    clean = ops.native_search(*arguments, compact=compact)
    for a, b in zip(clean, ops.native_search(*arguments, poison=True, compact=compact), strict=True):
        assert torch.equal(a, b) and bool(torch.isfinite(b).all())


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from(MODES), st.sampled_from(LOSSES), st.integers(0, max(0, BEST)))
def test_no_scratch_is_read_before_it_is_written_in_random_generators(case, weights, loss, isa):
    search = partial(ops.native_search, *op_arguments(case, weights=weights, loss=loss), isa=isa)
    for clean, poisoned in zip(search(), search(poison=True), strict=True):
        assert torch.equal(clean.nan_to_num(7), poisoned.nan_to_num(7))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weights", MODES)
def test_a_search_ends_where_it_is_told_to_stop(weights):
    """From another thread, in the midst of work; and at once where it is told before."""
    stop = ctypes.c_int(1)
    search = partial(ops.native_search, stop=ctypes.addressof(stop))
    torch.set_num_threads(2)
    for n, steps in itertools.product((1, 3), (0, 3)):  # fewer images than threads, and more
        with pytest.raises(RuntimeError, match="stopped"):
            search(*op_arguments(FAMILIES["DCGAN of 8"], n=n, weights=weights, steps=steps))
    long = op_arguments(dcgan(32, 1, 20, 16), n=1, s=64, weights=weights, steps=100_000)
    stop.value = 0
    timer = threading.Timer(0.3, lambda: setattr(stop, "value", 1))
    timer.start()
    before = time.monotonic()
    try:
        with pytest.raises(RuntimeError, match="stopped"):
            search(*long)
        assert time.monotonic() - before < 5
    finally:
        timer.join()


def test_no_images_and_no_steps():
    case = FAMILIES["DCGAN of 8"]
    arguments = op_arguments(case, n=0)
    assert [len(t) for t in ops.native_search(*arguments)] == [0, 0, 0, 0]
    initial, final, latents, _ = ops.native_search(*op_arguments(case, steps=0))
    assert torch.equal(initial, final) and torch.equal(latents[0], op_arguments(case)[1])


@pytest.mark.parametrize("change", ["image", "starts", "weights", "dtype", "code", "numbers", "rates", "parameters"])
def test_what_breaks_the_contract_is_refused(change):
    a = list(op_arguments(FAMILIES["DCGAN of 8"]))
    if change == "image":
        a[0] = a[0][:, :, :-1]
    elif change == "starts":
        a[1] = a[1][:, :-1]
    elif change == "weights":
        a[6] = 3
    elif change == "dtype":
        a[0] = a[0].double()
    elif change == "code":
        a[4] = a[4][:-3]
    elif change == "numbers":
        a[5] = a[5] + [1.0]
    elif change == "rates":
        a[9] = a[9][:3]
    else:
        a[2] = a[2][:-1]
    with pytest.raises((RuntimeError, ValueError)):
        ops.native_search(*a)


@cache
def well_formed() -> tuple:
    return op_arguments(FAMILIES["upsample and convolve"], n=1, s=1, steps=1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_garbled_program_is_refused_or_runs_but_never_crashes(data):
    a = list(well_formed())
    code = list(a[4])
    for _ in range(data.draw(st.integers(1, 3))):
        code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(-2, 40))
    a[4] = code
    with contextlib.suppress(RuntimeError, ValueError):
        ops.native_search(*a)


def test_the_gil_is_released():
    case = dcgan(32, 1, 64, 32)
    arguments, counted, done = op_arguments(case, n=4, s=8), 0, threading.Event()
    worker = threading.Thread(target=lambda: (ops.native_search(*arguments), done.set()))
    worker.start()
    while not done.is_set():
        counted += 1
        time.sleep(0.001)
    worker.join()
    assert counted > 5


# -- a loss that is a function -------------------------------------------------------------------------------------


def features(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Distance of features that a small network finds."""
    random = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, reconstruction.shape[1], 3, 3, generator=random).to(reconstruction)
    found = [torch.tanh(torch.conv2d(x, kernel, padding=1)) for x in (reconstruction, image)]
    return (found[0] - found[1]).square().flatten(1).sum(1) + (reconstruction - image).abs().flatten(1).sum(1)


def slopes(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A loss that itself takes a gradient: of a smooth energy, at the reconstruction and at the image."""
    found = []
    for x in (reconstruction, image):
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            energy = torch.nn.functional.softplus(at).square().sum()
            found.append(torch.autograd.grad(energy, at, create_graph=True)[0])
    return (found[0] - found[1]).square().flatten(1).sum(1)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("name", ["DCGAN of 16", "upsample and convolve"])
def test_a_function_as_loss_agrees_and_has_the_same_bits_with_many_threads(name, weights):
    case = FAMILIES[name]
    images, settings = case.images(3), {"weights": weights, "loss": features, "n_seed": 5}
    torch.set_num_threads(1)
    one = run(case, images, **settings)
    torch.set_num_threads(4)
    assert _same(one, run(case, images, **settings))
    assert not violations(one, reference(case, images, **settings), FLOAT32)
    alone = run(case, images[1:2], **settings)
    assert torch.equal(alone.losses, one.losses[1:2])


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("weights", MODES)
def test_a_function_is_called_once_for_each_pass_and_asked_for_a_gradient_where_the_search_goes_on(weights, steps):
    calls: list[bool] = []

    def loss(r: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        assert r.shape[1:] == x.shape[1:] == (3, 16, 16) and r.is_contiguous() and x.is_contiguous()
        assert r.dtype == x.dtype == torch.float32 and not x.requires_grad
        calls.append(r.requires_grad)
        return squares(r, x)

    case = FAMILIES["DCGAN of 16"]
    run(case, case.images(0), weights=weights, loss=loss, steps=steps)
    before = len(calls)  # of the checks before a search
    calls.clear()
    found = run(case, case.images(2), weights=weights, loss=loss, steps=steps)
    calls = calls[before:]
    assert calls.count(True) == 6 * steps and calls.count(False) == 6
    builtin = run(case, case.images(2), weights=weights, steps=steps)
    torch.testing.assert_close(found.losses, builtin.losses, rtol=1e-4, atol=0)


def test_a_function_that_takes_gradients_itself():
    case = FAMILIES["residual"]
    assert not violations(run(case, case.images(2), loss=slopes), reference(case, case.images(2), loss=slopes), FLOAT32)


class Stop(Exception):
    pass


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("threads", [1, 3])
def test_what_a_function_raises_reaches_the_caller_unchanged_and_soon(weights, threads):
    torch.set_num_threads(threads)
    case, error = FAMILIES["DCGAN of 8"], Stop("on purpose")
    loss = Failing(error, at=20)
    with pytest.raises(Stop) as caught:
        run(case, case.images(20), weights=weights, loss=loss, n_seed=20)
    assert caught.value is error and error.__cause__ is None and error.__context__ is None
    assert loss.calls < 20 + threads  # of two thousand: the others ended the pass that they were in
    assert bool(torch.isfinite(run(case, case.images(1)).losses).all())


def test_a_function_may_keep_what_it_is_given():
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def loss(r: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        kept.append((r, r.detach().clone()))
        return squares(r, x)

    case = FAMILIES["DCGAN of 8"]
    run(case, case.images(2), loss=loss)
    assert all(torch.equal(r, copy) for r, copy in kept) and len({r.data_ptr() for r, _ in kept}) == len(kept)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weights", MODES)
def test_the_operator_calls_a_function_from_all_of_its_threads(weights):
    """Also where the caller has switched gradients off: a setting of the calling thread, which is one of them."""
    threads, names = 3, set()
    torch.set_num_threads(threads)

    def loss(r: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        names.add(threading.get_ident())
        time.sleep(0.001)  # so that no thread can do it all
        return squares(r, x)

    case = FAMILIES["DCGAN of 16"]
    own = OwnLoss(Loss(loss), case.image_shape)
    arguments = list(op_arguments(case, n=12, s=4, weights=weights))
    expected = ops.native_search(*arguments)
    arguments[7] = ops.NATIVE_LOSSES.index("function")
    for around in (torch.no_grad, torch.inference_mode, contextlib.nullcontext):
        with around():
            found = ops.native_search(*arguments, own_loss=own.address, poison=True)
        assert own.error is None
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert len(names) == threads


@pytest.mark.usefixtures("threads")
def test_threads_do_not_share_an_image_where_the_loss_is_a_function():
    """One that failed in a thread of several would leave the others waiting."""
    torch.set_num_threads(3)
    names = set()

    def loss(r: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        names.add(threading.get_ident())
        time.sleep(0.001)  # so that others would come
        return squares(r, x)

    case = FAMILIES["DCGAN of 8"]
    own, arguments = OwnLoss(Loss(loss), case.image_shape), list(op_arguments(case, n=1, s=20, weights="per_sample"))
    arguments[7] = ops.NATIVE_LOSSES.index("function")
    ops.native_search(*arguments, own_loss=own.address)
    assert own.error is None and len(names) == 1


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", [1, 20])  # fewer images than threads, and more
@pytest.mark.parametrize("weights", MODES)
def test_the_operator_ends_where_a_function_fails(weights, n):
    torch.set_num_threads(3)
    calls = 0

    def loss(r: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        raise Stop

    case = FAMILIES["DCGAN of 8"]
    own, arguments = OwnLoss(Loss(loss), case.image_shape), list(op_arguments(case, n=n, s=20, weights=weights))
    with pytest.raises(RuntimeError, match="own_loss is the address"):
        ops.native_search(*arguments, own_loss=own.address)
    arguments[7] = ops.NATIVE_LOSSES.index("function")
    with pytest.raises(RuntimeError, match="own_loss is the address"):
        ops.native_search(*arguments)
    with pytest.raises(RuntimeError):
        ops.native_search(*arguments, own_loss=own.address)
    assert isinstance(own.error, Stop) and calls <= 3


# -- refusals ------------------------------------------------------------------------------------------------------


def test_auto_takes_it_and_what_it_cannot_run_goes_to_grouped():
    case = FAMILIES["DCGAN of 8"]
    assert run(case, case.images(1), engine="auto").engine == "native"
    assert run(case, case.images(1), engine="auto", loss=features).engine == "native"
    double = Case(dcgan(8, 1, 5, 3).module.double(), (5,), (1, 8, 8))
    assert run(double, double.images(1).double(), engine="auto").engine == "grouped"
    with pytest.raises(ValueError, match=r"float32, not in torch\.float64"):
        run(double, double.images(1).double())


class ScaledWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(4, 1, 3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.conv_transpose2d(z, self.conv.weight * 0.5)


def test_a_layer_it_does_not_know_is_named():
    case = Case(ScaledWeight(), (4, 1, 1), (1, 3, 3))
    with pytest.raises(ValueError, match=r"layer '.*': its weight is computed from parameters"):
        run(case, case.images(1))


@pytest.mark.usefixtures("isa")
def test_a_zero_gradient_is_no_update():
    """Learning rates of 0 for the weights and a generator that ignores most of its latent: nothing is NaN."""
    module = nn.Sequential(nn.Linear(6, 18), nn.ReLU(), nn.Unflatten(1, (2, 3, 3)), nn.ConvTranspose2d(2, 1, 3))
    with torch.no_grad():
        module[0].weight[:, 3:] = 0
        module[0].weight[9:] = 0
        module[0].bias[9:] = -1
    case = Case(module, (6,), (1, 5, 5))
    starts = torch.randn(3, 6, generator=torch.Generator().manual_seed(5))
    found = run(case, case.images(2), steps=5, starts=starts)
    assert bool(torch.isfinite(found.losses).all())
    first, second = found.latents[:, :, 3:], starts[:, 3:].expand(2, 3, 3)
    assert not torch.equal(first, second)  # weights of zero get gradients, and so does the latent behind them later
    frozen = run(case, case.images(2), steps=5, weights="frozen", starts=starts)
    assert torch.equal(frozen.latents[:, :, 3:], second)
    assert SearchConfig().eps > 0


def test_a_search_of_more_than_five_steps_is_in_float32_whatever_is_permitted(caplog):
    """16-bit moments carry on what they round off; over twenty steps it leaves the bound where a norm amplifies it."""
    case = FAMILIES["DCGAN of 16"]
    module, images, settings = case.module, case.images(1), {"n_seed": 3, "loss": "laplacian", "engine": "native"}
    caplog.set_level(logging.INFO, "adgan_fast")
    for steps, reduced in ((5, True), (6, False), (20, False)):
        caplog.clear()
        exact = adgan_fast.search(module, images, steps=steps, **settings)
        found = adgan_fast.search(module, images, steps=steps, precision="bf16", **settings)
        assert _same(exact, found) is not reduced
        assert ("precision float32 instead of bf16" in caplog.text) is not reduced
