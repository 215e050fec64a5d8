"""A loss that is a function, called from C++."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import torch

from adgan_fast import ops
from adgan_fast.core.losses import Loss
from adgan_fast.engine.native.callback import OwnLoss
from adgan_fast.testing import FLOAT32, violations
from tests.support.engines import NEEDS_EXTENSION, WEIGHTS
from tests.support.families import FAMILIES
from tests.support.losses import Failing, squares
from tests.support.native import Stop, features, op_arguments, reference, run
from tests.support.results import differences

pytestmark = NEEDS_EXTENSION


def gradients_apart(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A loss that itself takes a gradient: of a smooth energy, at the reconstruction and at the image."""
    found = []
    for x in (reconstruction, image):
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            energy = torch.nn.functional.softplus(at).square().sum()
            found.append(torch.autograd.grad(energy, at, create_graph=True)[0])
    return (found[0] - found[1]).square().flatten(1).sum(1)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", ["DCGAN of 16", "upsample and convolve"])
def test_a_function_as_loss_agrees_and_has_the_same_bits_with_many_threads(name, weights):
    case = FAMILIES[name]
    images, settings = case.images(3), {"weights": weights, "loss": features, "n_seed": 5}
    torch.set_num_threads(1)
    one = run(case, images, **settings)
    torch.set_num_threads(4)
    assert not differences(one, run(case, images, **settings))
    assert not violations(one, reference(case, images, **settings), FLOAT32)
    alone = run(case, images[1:2], **settings)
    assert torch.equal(alone.losses, one.losses[1:2])


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("weights", WEIGHTS)
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
    assert not violations(
        run(case, case.images(2), loss=gradients_apart), reference(case, case.images(2), loss=gradients_apart), FLOAT32
    )


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weights", WEIGHTS)
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


@pytest.mark.alone
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weights", WEIGHTS)
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


@pytest.mark.alone
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
@pytest.mark.parametrize("weights", WEIGHTS)
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
