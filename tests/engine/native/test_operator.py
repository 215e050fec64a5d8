"""The operator by itself: its contract, and where it stops."""

from __future__ import annotations

import ctypes
import itertools
import threading
import time
from collections import Counter
from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adgan_fast import ops
from adgan_fast.engine.native import encode
from tests.support.engines import NEEDS_EXTENSION, WEIGHTS
from tests.support.families import FAMILIES, dcgan
from tests.support.native import op_arguments

pytestmark = NEEDS_EXTENSION


@pytest.mark.parametrize("weights", WEIGHTS)
def test_opcheck(weights):
    torch.library.opcheck(
        torch.ops.adgan_fast.native_search.default, op_arguments(FAMILIES["DCGAN of 8"], weights=weights)
    )


@pytest.mark.alone
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weights", WEIGHTS)
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


def test_gradients_are_checked_before_anything_is_made_of_their_arguments():
    images, starts, parameters, *others = op_arguments(FAMILIES["DCGAN of 8"], n=1, s=1)
    constants, code, numbers, weights, loss = others[:5]
    parameters = [parameters[0].double(), *parameters[1:]]
    with pytest.raises(RuntimeError, match="parameters must be contiguous float32 on the cpu"):
        torch.ops.adgan_fast.native_gradients.default(
            images, starts, parameters, constants, code, numbers, weights, loss, 0
        )


@cache
def well_formed() -> tuple:
    return op_arguments(FAMILIES["upsample and convolve"], n=1, s=1, steps=1)


def test_a_garbled_program_is_refused_or_runs_but_never_crashes():
    became = Counter[str]()

    @settings(max_examples=200)
    @given(st.data())
    def check(data):
        a = list(well_formed())
        code = list(a[4])
        for _ in range(data.draw(st.integers(1, 3))):
            code[data.draw(st.integers(0, len(code) - 1))] = data.draw(st.integers(-2, 40))
        a[4] = code
        try:
            ops.native_search(*a)
        except (RuntimeError, ValueError):
            became["refused"] += 1
        else:
            became["run"] += 1

    check()
    assert became["refused"] >= 100 and became["run"] >= 5, became


@pytest.mark.alone
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


def test_an_extension_of_another_list_of_layers_says_so(monkeypatch):
    case = FAMILIES["DCGAN of 8"]
    ops.native_search(*op_arguments(case))
    monkeypatch.setattr(encode, "OPS", (*encode.OPS[:-2], *encode.OPS[:-3:-1]))
    with pytest.raises(ValueError, match="compiled from another list of layers: build it again"):
        ops.native_search(*op_arguments(case))
