"""The Triton Adam computes what torch.optim.Adam does, and to the bit what csrc/core/kernels/adam.inl does.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see tests/support/interpreted.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import adam

from adgan_fast import ops

BETAS, EPS = (0.5, 0.999), 1e-8
DTYPES = [torch.float32, torch.float64]
# Whole blocks (1024), tails, runs shorter than a block, sizes that share no factor with a vector, one scalar a pair.
SHAPES = [(3, 4, 4, 4), (7, 150), (1025,), (5,), (), (1,)]
LRS = [0.25, 1e-2, 5e-5, 0.1, 0.3, 0.5]


@dataclasses.dataclass
class State:
    """The lists of adam_step_; uninitialised buffers are NaN."""

    params: list[torch.Tensor]
    exp_avgs: list[torch.Tensor]
    exp_avg_sqs: list[torch.Tensor]
    initial: list[torch.Tensor]
    lrs: list[float]

    def step(self, grads: Sequence[torch.Tensor], step: int, last: bool = False, function=adam.adam_step_) -> None:
        initial = self.initial if step == 1 else []
        moments = self.exp_avgs, self.exp_avg_sqs
        function(self.params, *moments, list(grads), initial, self.lrs, *BETAS, EPS, step, last)


def make(
    shapes: Sequence[tuple[int, ...]],
    lrs: Sequence[float],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    pairs: int = 3,
    initial: str = "none",
) -> State:
    """``initial``: "none" (params hold the start), "shared" (one for all pairs), "full" (each pair's), "mixed"."""
    generator = torch.Generator().manual_seed(0)
    state = State([], [], [], [], list(lrs))
    for k, shape in enumerate(shapes):
        kind = ("shared", "full")[k % 2] if initial == "mixed" else initial
        start = torch.randn(shape if kind == "shared" else (pairs, *shape), generator=generator, dtype=dtype)
        nan = torch.full((pairs, *shape), torch.nan, dtype=dtype)
        state.params.append((start if kind == "none" else nan.clone()).to(device))
        if kind != "none":
            state.initial.append(start.to(device))
        state.exp_avgs.append(nan.clone().to(device))
        state.exp_avg_sqs.append(nan.clone().to(device))
    return state


def draw_grads(state: State, steps: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device) for p in state.params]
        for _ in range(steps)
    ]


def starts(state: State) -> list[torch.Tensor]:
    """What each pair begins from, (G, *shape), copied."""
    if not state.initial:
        return [p.clone() for p in state.params]
    return [old.expand(p.shape).clone() for old, p in zip(state.initial, state.params, strict=True)]


def torch_adam(start: list[torch.Tensor], lrs: Sequence[float], grads: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    params = [p.clone() for p in start]
    optimizer = torch.optim.Adam(
        [{"params": [p], "lr": lr} for p, lr in zip(params, lrs, strict=True)], betas=BETAS, eps=EPS, foreach=False
    )
    for step_grads in grads:
        for p, grad in zip(params, step_grads, strict=True):
            p.grad = grad.clone()
        optimizer.step()
    return params


def rounded_step(params, exp_avgs, exp_avg_sqs, grads, initial, lrs, beta1, beta2, eps, step, last) -> None:
    """The operator's contract in NumPy: every operation rounds once, in the order of csrc/core/kernels/adam.inl.

    (Not torch: its CPU square root of float32 is off by a last bit at times.)
    """
    for k, entry in enumerate(zip(params, exp_avgs, exp_avg_sqs, grads, strict=True)):
        p, m, v, g = (tensor.numpy() for tensor in entry)
        scalar = p.dtype.type
        old = np.broadcast_to(initial[k].numpy(), p.shape) if initial else p
        new_m = g * scalar(1 - beta1) + (m * scalar(beta1) if step > 1 else scalar(0))
        new_v = g * scalar(1 - beta2) * g + (v * scalar(beta2) if step > 1 else scalar(0))
        if not last:
            m[...], v[...] = new_m, new_v
        denom = np.sqrt(new_v) * scalar(1 / math.sqrt(1 - beta2**step)) + scalar(eps)
        update = new_m / np.where(denom == 0, scalar(1), denom) * scalar(lrs[k] / (1 - beta1**step))
        p[...] = old - update


def assert_equal(actual: State, expected: State) -> None:
    for name in ("params", "exp_avgs", "exp_avg_sqs"):
        for k, (a, e) in enumerate(zip(getattr(actual, name), getattr(expected, name), strict=True)):
            assert torch.equal(a.cpu(), e), f"{name}[{k}]: {(a.cpu() - e).abs().max()} apart"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("initial", ["none", "shared", "full", "mixed"])
def test_five_steps_move_parameters_as_torch_adam_does(device: torch.device, initial: str, dtype: torch.dtype) -> None:
    state = make(SHAPES, LRS, device, dtype, initial=initial)
    start = starts(state)
    kept = [old.clone() for old in state.initial]
    grads = draw_grads(state, 5)
    for t, step_grads in enumerate(grads, start=1):
        state.step(step_grads, t, last=t == 5)
    expected = torch_adam(start, LRS, grads)
    rounding = torch.finfo(dtype).eps
    for p, p0, e, lr in zip(state.params, start, expected, LRS, strict=True):
        # A step is of the order of lr; each rounds the update, and then the parameter, a few times.
        bound = 5 * 4 * rounding * (lr + torch.maximum(p0.abs(), e.abs()))
        assert ((p - e).abs() <= bound).all(), ((p - e).abs() / bound).max()
        assert (p - p0).abs().mean() > lr  # and it is not for want of moving
    for old, before in zip(state.initial, kept, strict=True):
        assert torch.equal(old, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("initial", ["none", "mixed"])
def test_each_step_equals_the_formula_to_the_bit(device: torch.device, initial: str, dtype: torch.dtype) -> None:
    state = make(SHAPES, LRS, device, dtype, initial=initial)
    expected = make(SHAPES, LRS, torch.device("cpu"), dtype, initial=initial)
    grads = draw_grads(state, 4)
    for t, step_grads in enumerate(grads, start=1):
        state.step(step_grads, t)
        expected.step([grad.cpu() for grad in step_grads], t, function=rounded_step)
        assert_equal(state, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cpu_operator_gives_the_same(device: torch.device, dtype: torch.dtype) -> None:
    state = make(SHAPES, LRS, device, dtype, initial="mixed")
    expected = make(SHAPES, LRS, torch.device("cpu"), dtype, initial="mixed")
    exact = ops.load_extension() is None  # else the operator is its plain torch form, with torch's square root
    for t, grads in enumerate(draw_grads(state, 3), start=1):
        state.step(grads, t)
        expected.step([grad.cpu() for grad in grads], t, function=ops.adam_step_)
    if exact:
        assert_equal(state, expected)
    rounding = torch.finfo(dtype).eps
    for p, e in zip(state.params, expected.params, strict=True):
        torch.testing.assert_close(p.cpu(), e, rtol=4 * rounding, atol=4 * rounding)


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 37), max_size=3).map(tuple), max_size=5),
    pairs=st.integers(0, 4),
    initial=st.sampled_from(["none", "shared", "full", "mixed"]),
    dtype=st.sampled_from(DTYPES),
    offset=st.integers(0, 3),
)
def test_any_shapes_and_alignment_equal_the_formula_to_the_bit(
    device: torch.device, shapes: list[tuple[int, ...]], pairs: int, initial: str, dtype: torch.dtype, offset: int
) -> None:
    lrs = [0.1 * (k + 1) for k in range(len(shapes))]
    state = make(shapes, lrs, device, dtype, pairs, initial)
    expected = make(shapes, lrs, torch.device("cpu"), dtype, pairs, initial)
    # The same values, in storage that begins `offset` elements after an aligned address.
    for tensors in (state.params, state.exp_avgs, state.initial):
        for k, tensor in enumerate(tensors):
            room = torch.empty(tensor.numel() + offset, dtype=dtype, device=device)
            tensors[k] = room[offset:].view(tensor.shape).copy_(tensor)
    for t, grads in enumerate(draw_grads(state, 2), start=1):
        state.step(grads, t)
        expected.step([grad.cpu() for grad in grads], t, function=rounded_step)
    assert_equal(state, expected)


@pytest.mark.parametrize("pairs", [1, 2, 5])
def test_a_pair_does_not_depend_on_how_many_others_share_the_launch(device: torch.device, pairs: int) -> None:
    wide = make(SHAPES, LRS, device, pairs=7, initial="shared")
    narrow = make(SHAPES, LRS, device, pairs=pairs, initial="shared")
    for t, grads in enumerate(draw_grads(wide, 3), start=1):
        wide.step(grads, t)
        narrow.step([grad[-pairs:].clone() for grad in grads], t)
    for many, few in zip(wide.params, narrow.params, strict=True):
        assert torch.equal(many[-pairs:], few)


def test_first_step_reads_no_moments_and_last_step_writes_none(device: torch.device) -> None:
    state = make(SHAPES, LRS, device, initial="shared")
    first, second, third = draw_grads(state, 3)
    state.step(first, 1)
    for tensor in [*state.params, *state.exp_avgs, *state.exp_avg_sqs]:
        assert tensor.isfinite().all()
    for m, v, grad in zip(state.exp_avgs, state.exp_avg_sqs, first, strict=True):
        torch.testing.assert_close(m, 0.5 * grad, rtol=1e-6, atol=0)
        torch.testing.assert_close(v, 0.001 * grad**2, rtol=1e-6, atol=0)
    state.step(second, 2)
    kept = [tensor.clone() for tensor in [*state.exp_avgs, *state.exp_avg_sqs]]
    before = [p.clone() for p in state.params]
    state.step(third, 3, last=True)
    assert all(map(torch.equal, [*state.exp_avgs, *state.exp_avg_sqs], kept))
    assert not any(map(torch.equal, state.params, before))

    only = make(SHAPES, LRS, device, initial="shared")
    only.step(first, 1, last=True)
    assert all(tensor.isnan().all() for tensor in [*only.exp_avgs, *only.exp_avg_sqs])
    assert all(p.isfinite().all() for p in only.params)


@pytest.mark.parametrize("eps", [1e-8, 0.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gradient_that_was_always_zero_is_exactly_no_update(
    device: torch.device, dtype: torch.dtype, eps: float
) -> None:
    state = make(SHAPES, LRS, device, dtype, initial="mixed")
    start = starts(state)
    zero = [torch.rand(p.shape, generator=torch.Generator().manual_seed(2)).to(device) < 0.5 for p in state.params]
    for t, grads in enumerate(draw_grads(state, 4), start=1):
        masked = [grad.masked_fill(where, -0.0 if t % 2 else 0.0) for grad, where in zip(grads, zero, strict=True)]
        initial = state.initial if t == 1 else []
        moments = state.exp_avgs, state.exp_avg_sqs
        adam.adam_step_(state.params, *moments, masked, initial, state.lrs, *BETAS, eps, t, t == 4)
    for p, p0, where in zip(state.params, start, zero, strict=True):
        assert torch.equal(p[where], p0[where])
        assert (p != p0)[~where].double().mean() > 0.99 or not (~where).any()  # some come back by chance


def test_tiny_and_huge_gradients_stay_finite_and_within_the_step_size(device: torch.device) -> None:
    lr = 0.25
    state = make([(64,)], [lr], device, pairs=1)
    start = starts(state)[0]
    scales = torch.logspace(-44, 18, 64, device=device)[None]  # down to where g² is 0 in float32, g is not
    for t in (1, 2):
        state.step([scales.clone()], t)
    moved = start - state.params[0]
    assert moved.isfinite().all() and (moved >= 0).all() and (moved <= 2 * lr * 1.001).all()
    torch.testing.assert_close(
        state.params[0], torch_adam([start], [lr], [[scales], [scales]])[0], rtol=1e-5, atol=1e-6
    )


def test_more_entries_than_a_warp_holds(device: torch.device) -> None:
    shapes = [(k % 7 + 1,) for k in range(70)]
    lrs = [0.01 * (k + 1) for k in range(70)]
    state = make(shapes, lrs, device, initial="shared")
    expected = make(shapes, lrs, torch.device("cpu"), initial="shared")
    grads = draw_grads(state, 1)[0]
    state.step(grads, 1)
    expected.step([grad.cpu() for grad in grads], 1, function=rounded_step)
    assert_equal(state, expected)


def test_no_entries_and_no_pairs_do_nothing(device: torch.device) -> None:
    State([], [], [], [], []).step([], 1)
    empty = make([(3,), ()], [0.1, 0.1], device, pairs=0, initial="shared")
    empty.step([torch.empty_like(p) for p in empty.params], 1)
    mixed = make([(0,), (3,), (2, 0)], [0.1, 0.1, 0.1], device)
    mixed.step(draw_grads(mixed, 1)[0], 1)
    assert not mixed.params[1].isnan().any() and not mixed.exp_avgs[1].isnan().any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, grads: grads.pop(), "params has 2 entries but grads has 1"),
        (lambda s, grads: grads.__setitem__(1, grads[1][:, :2]), r"grads\[1\] must be contiguous"),
        (lambda s, grads: grads.__setitem__(0, grads[0].double()), r"grads\[0\] must have its parameter's dtype"),
        (lambda s, grads: s.initial.__setitem__(1, s.initial[1][:1]), r"initial\[1\] must have shape"),
        (lambda s, grads: s.lrs.pop(), "params has 2 entries but lrs has 1"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(device: torch.device, change, message: str) -> None:
    state = make([(5,), (4,)], [0.1, 0.1], device, initial="shared")
    grads = draw_grads(state, 1)[0]
    change(state, grads)
    with pytest.raises(RuntimeError, match=message):
        state.step(grads, 1)
    assert all(p.isnan().all() for p in state.params)


def test_launches_use_only_specialisations_that_are_compiled_ahead(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = {tuple(case.constexprs.items()) for case in adam.cases()}
    seen = set()
    original = adam._constexprs

    def record(*args):
        constexprs = original(*args)
        seen.add(tuple(constexprs.items()))
        return constexprs

    monkeypatch.setattr(adam, "_constexprs", record)
    for dtype in DTYPES:
        for initial in ("none", "shared", "full"):
            for offset in (0, 1):
                for shape in ((5,), (8,)):
                    state = make([shape], [0.1], device, dtype, initial=initial)
                    grads = draw_grads(state, 1)[0]
                    room = torch.empty(grads[0].numel() + offset, dtype=dtype, device=device)
                    grads[0] = room[offset:].view(grads[0].shape).copy_(grads[0])
                    for last in (False, True):
                        state.step(grads, 1, last)
                        state.step(grads, 2, last)
    assert seen <= compiled
    assert len(seen) == len(compiled) - 1  # all but the one for many entries
