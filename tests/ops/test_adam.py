"""The custom operators: every implementation keeps the contract written in adgan_fast/ops/adam.py."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adgan_fast import ops

BETAS = (0.5, 0.999)
EPS = 1e-8
NAN = float("nan")


def extension_kernel(*args) -> None:
    """The operator with the compiled kernel; the test is skipped where that was not built."""
    reason = ops.load_extension()
    if reason is not None:
        pytest.skip(reason)
    ops.adam_step_(*args)


@pytest.fixture(params=["torch", "extension"])
def adam_step_(request):
    return ops.adam_step_torch if request.param == "torch" else extension_kernel


both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def random_gradients(shapes, dtype, seed):
    """Gradients over ten orders of magnitude, a fifth of them exactly zero at every step."""
    gen = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    out = []
    for shape in shapes:
        g = torch.randn(shape, generator=gen, dtype=dtype) * 10.0 ** torch.randint(-8, 3, shape, generator=gen)
        out.append(g.masked_fill_(torch.rand(shape, generator=fixed) < 0.2, 0.0))
    return out


def fresh(shapes, dtype, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=gen, dtype=dtype) for shape in shapes]


def poisoned(like):
    return [torch.full_like(t, NAN) for t in like]


def search(adam_step_, start, lrs, steps, initial=(), seed=1):
    """`steps` steps from `start`, moments uninitialised at first. Returns parameters and moments."""
    params, m, v = [t.clone() for t in start], poisoned(start), poisoned(start)
    for step in range(1, steps + 1):
        grads = random_gradients([p.shape for p in params], params[0].dtype, seed + step) if params else []
        adam_step_(params, m, v, grads, list(initial) if step == 1 else [], lrs, *BETAS, EPS, step, False)
    return params, m, v


def torch_adam(start, lrs, steps, seed=1):
    """The same by torch.optim.Adam in float64, from the same gradients."""
    params = [t.to(torch.float64).requires_grad_() for t in start]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(params, lrs, strict=True)]
    optimizer = torch.optim.Adam(groups, betas=BETAS, eps=EPS, foreach=False)
    for step in range(1, steps + 1):
        for p, g in zip(params, random_gradients([t.shape for t in start], start[0].dtype, seed + step), strict=True):
            p.grad = g.to(torch.float64)
        optimizer.step()
    state = [optimizer.state[p] for p in params]
    return [p.detach() for p in params], [s["exp_avg"] for s in state], [s["exp_avg_sq"] for s in state]


def assert_matches_torch(result, start, lrs, steps):
    rounding = torch.finfo(start[0].dtype).eps
    params, m, v = result
    expected, expected_m, expected_v = torch_adam(start, lrs, steps)
    for k, lr in enumerate(lrs):
        # The parameter is rounded once a step; an update of about lr carries a few roundings of its own.
        bound = steps * rounding * (expected[k].abs() + 16 * lr)
        assert (params[k] - expected[k]).abs().le(bound).all()
        smallest = torch.finfo(start[0].dtype).smallest_normal
        torch.testing.assert_close(m[k].double(), expected_m[k], rtol=0, atol=16 * rounding * 200)
        torch.testing.assert_close(v[k].double(), expected_v[k], rtol=32 * rounding, atol=smallest)


SHAPES = {
    "one entry of one element": [(1, 1)],
    "no dimensions but pairs": [(5,)],
    "no pairs": [(0, 3, 4)],
    "an empty parameter": [(4, 0)],
    "odd sizes": [(3, 7, 5, 3), (3, 13), (3, 1), (3, 127)],
    "one pair, several blocks": [(1, 20_001)],
    "many pairs, several blocks": [(700, 37)],
}


@both_dtypes
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES.keys())
def test_adam_matches_torch_optim(adam_step_, shapes, dtype):
    start = fresh(shapes, dtype)
    lrs = [0.25 * 0.1**k for k in range(len(shapes))]
    assert_matches_torch(search(adam_step_, start, lrs, steps=5), start, lrs, steps=5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 4),
    st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(["torch", "extension"]),
)
def test_adam_matches_torch_optim_on_any_shapes(pairs, shapes, steps, dtype, backend):
    step = ops.adam_step_torch if backend == "torch" else extension_kernel
    start = fresh([(pairs, *shape) for shape in shapes], dtype)
    lrs = [10.0 ** -(k + 1) for k in range(len(shapes))]
    assert_matches_torch(search(step, start, lrs, steps), start, lrs, steps)


def test_adam_of_no_parameters_is_nothing(adam_step_):
    adam_step_([], [], [], [], [], [], *BETAS, EPS, 1, False)


@both_dtypes
def test_extension_and_plain_torch_agree_in_all_but_the_square_root(dtype):
    """Torch's CPU square root may be one unit in the last place off; everything before it has the same bits."""
    shapes = SHAPES["odd sizes"] + SHAPES["many pairs, several blocks"]
    start, lr = fresh(shapes, dtype), 1e-2
    p, m, v = search(ops.adam_step_torch, start, [lr] * len(shapes), 4)
    p2, m2, v2 = search(extension_kernel, start, [lr] * len(shapes), 4)
    assert all(map(torch.equal, m + v, m2 + v2))
    for a, b in zip(p, p2, strict=True):
        torch.testing.assert_close(a, b, rtol=2 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps * lr)


@both_dtypes
def test_a_pair_has_the_same_result_alone_as_among_others(adam_step_, dtype):
    pairs, shape = 9, (1001,)
    start, grads = fresh([(pairs, *shape)] * 2, dtype)
    theta = fresh([shape], dtype, seed=5)
    m, v = poisoned([start])[0], poisoned([start])[0]
    together = start.clone()
    adam_step_([together], [m], [v], [grads], theta, [0.1], *BETAS, EPS, 1, False)
    adam_step_([together], [m], [v], [grads * 0.5], [], [0.1], *BETAS, EPS, 2, True)
    for i in range(pairs):
        p, m, v = torch.empty(1, *shape, dtype=dtype), *poisoned([start[:1]] * 2)
        g = grads[i : i + 1].clone()
        adam_step_([p], [m], [v], [g], theta, [0.1], *BETAS, EPS, 1, False)
        adam_step_([p], [m], [v], [g * 0.5], [], [0.1], *BETAS, EPS, 2, True)
        assert torch.equal(p[0], together[i])


def test_the_number_of_threads_does_not_change_a_bit(adam_step_):
    start, lrs = fresh([(3, 50_001), (3, 65)], torch.float32), [0.1, 1e-3]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(search(adam_step_, start, lrs, steps=3))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0][0], other[0]))


@both_dtypes
@pytest.mark.parametrize("pairs", [1, 5])
@pytest.mark.parametrize("shape", [(), (1,), (3, 11), (9001,)], ids=str)
def test_the_first_step_can_start_from_values_kept_elsewhere(adam_step_, dtype, pairs, shape):
    """Shared by all pairs or one for each, with the parameters themselves uninitialised: the same bits."""
    theta = fresh([shape], dtype)[0]
    stacked = theta.expand(pairs, *shape).contiguous()
    expected = search(adam_step_, [stacked], [0.1], steps=2)
    for initial in (theta, stacked):
        kept = initial.clone()
        result = search(adam_step_, poisoned([stacked]), [0.1], steps=2, initial=[kept])
        assert all(torch.equal(a[0], b[0]) for a, b in zip(result, expected, strict=True))
        assert torch.equal(kept, initial)


@pytest.mark.parametrize("step", [1, 2])
def test_the_last_step_moves_parameters_and_leaves_moments(adam_step_, step):
    (g, p, m), v = fresh([(2, 5)] * 3, torch.float32), torch.rand(2, 5)
    results = []
    for last in (False, True):
        state = [p.clone()], [m.clone()], [v.clone()]
        adam_step_(*state, [g], [], [0.1], *BETAS, EPS, step, last)
        results.append(state)
    assert torch.equal(results[0][0][0], results[1][0][0])
    assert torch.equal(results[1][1][0], m)
    assert torch.equal(results[1][2][0], v)


@both_dtypes
@pytest.mark.parametrize("eps", [1e-8, 1e-60, 0.0])
def test_a_gradient_that_was_always_zero_is_exactly_no_update(adam_step_, dtype, eps):
    start = fresh([(2, 19)], dtype)[0]
    p, m, v = start.clone(), *poisoned([start] * 2)
    g = torch.ones_like(start)
    g[:, ::3] = 0.0
    for step in range(1, 6):
        adam_step_([p], [m], [v], [g], [], [0.25], *BETAS, eps, step, False)
        assert torch.equal(p[:, ::3], start[:, ::3])
        assert p.isfinite().all()
    assert (p[:, 1::3] < start[:, 1::3]).all()


def test_a_nan_gradient_stays_in_its_own_element(adam_step_):
    p, m, v = fresh([(2, 40)], torch.float32)[0], torch.zeros(2, 40), torch.zeros(2, 40)
    g = torch.ones(2, 40)
    g[1, 7] = NAN
    adam_step_([p], [m], [v], [g], [], [0.1], *BETAS, EPS, 2, False)
    assert p[1, 7].isnan()
    assert p.isnan().sum() == m.isnan().sum() == v.isnan().sum() == 1


def broken(**changes):
    """Arguments that are right but for `changes`."""
    t = fresh([(2, 3, 4)] * 4, torch.float32)
    args = {
        "params": [t[0]],
        "exp_avgs": [t[1]],
        "exp_avg_sqs": [t[2].abs()],
        "grads": [t[3]],
        "initial": [],
        "lrs": [0.1],
        "beta1": 0.5,
        "beta2": 0.999,
        "eps": 1e-8,
        "step": 1,
        "last": False,
    }
    assert changes.keys() <= args.keys()
    return {**args, **changes}


WRONG = {
    "grads shape": (broken(grads=[torch.zeros(2, 12)]), r"grads\[0\] must have shape \[2, 3, 4\], got \[2, 12\]"),
    "moment shape": (broken(exp_avg_sqs=[torch.zeros(1, 3, 4)]), r"exp_avg_sqs\[0\] must have shape \[2, 3, 4\]"),
    "moment dtype": (broken(exp_avgs=[torch.zeros(2, 3, 4).double()]), r"exp_avgs\[0\] must have its parameter's"),
    "half": (broken(params=[torch.zeros(2, 3, 4).half()]), r"params\[0\] must be float32 or float64"),
    "strides": (broken(grads=[torch.zeros(2, 4, 3).mT]), r"grads\[0\] must be contiguous"),
    "own strides": (broken(params=[torch.zeros(4, 3, 4)[::2]]), r"params\[0\] must be contiguous"),
    "no pairs dimension": (broken(params=[torch.tensor(1.0)]), r"params\[0\] needs a first dimension of pairs"),
    "initial shape": (broken(initial=[torch.zeros(4, 3)]), r"initial\[0\] must have shape \[3, 4\], got \[4, 3\]"),
    "initial pairs": (broken(initial=[torch.zeros(1, 3, 4)]), r"initial\[0\] must have shape \[2, 3, 4\]"),
    "initial dtype": (broken(initial=[torch.zeros(3, 4).double()]), r"initial\[0\] must have its parameter's dtype"),
    "initial later": (broken(initial=[torch.zeros(3, 4)], step=2), r"initial is read at step 1 only"),
    "initial count": (broken(initial=[torch.zeros(3, 4)] * 2), r"params has 1 entries but initial has 2"),
    "lrs count": (broken(lrs=[]), r"params has 1 entries but lrs has 0"),
    "grads count": (broken(grads=[]), r"params has 1 entries but grads has 0"),
    "step": (broken(step=0), r"step must be 1 or more, got 0"),
    "beta1": (broken(beta1=1.0), r"betas must lie in \[0, 1\), got 1"),
    "beta2": (broken(beta2=-0.1), r"betas must lie in \[0, 1\), got 0.5 and -0.1"),
    "eps": (broken(eps=-1e-8), r"eps must not be negative"),
}


@pytest.mark.parametrize(("args", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_named_in_the_same_words_by_every_kernel(adam_step_, args, message):
    before = [t.clone() for t in args["params"]]
    with pytest.raises(RuntimeError, match="adgan_fast::adam_step_: " + message):
        adam_step_(*args.values())
    assert all(map(torch.equal, args["params"], before))


def test_wrong_devices_are_refused(adam_step_):
    with pytest.raises((RuntimeError, NotImplementedError)):
        adam_step_(*broken(grads=[torch.zeros(2, 3, 4, device="meta")]).values())


def test_entries_of_different_dtypes_are_refused(adam_step_):
    args = broken(params=[torch.zeros(2, 3), torch.zeros(2, 3).double()])
    for name in ("exp_avgs", "exp_avg_sqs", "grads"):
        args[name] = [t.clone() for t in args["params"]]
    with pytest.raises(RuntimeError, match=r"params\[1\] must be float32 or float64, the same for every entry"):
        adam_step_(*{**args, "lrs": [0.1, 0.1]}.values())


@pytest.mark.parametrize(
    "changes",
    [{}, {"step": 3}, {"step": 3, "last": True}, {"initial": [torch.ones(3, 4)]}, {"initial": [torch.ones(2, 3, 4)]}],
    ids=["first", "step", "last", "shared initial", "stacked initial"],
)
@pytest.mark.parametrize("extension", [False, True], ids=["as loaded", "with the extension"])
def test_opcheck_passes(changes, extension):
    if extension and (reason := ops.load_extension()):
        pytest.skip(reason)
    torch.library.opcheck(ops.adam_step_, tuple(broken(**changes).values()))


def test_autograd_learns_that_parameters_were_written(adam_step_):
    if adam_step_ is ops.adam_step_torch:
        pytest.skip("a promise of the operator, not of the function behind it")
    p = torch.ones(2, 3)
    x = torch.ones(2, 3, requires_grad=True)
    loss = (x * p).sum()
    adam_step_([p], [torch.zeros(2, 3)], [torch.zeros(2, 3)], [torch.ones(2, 3)], [], [0.1], *BETAS, EPS, 1, False)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_loading_the_extension_twice_gives_the_same_answer():
    assert ops.load_extension() == ops.load_extension()


@pytest.mark.parametrize("case", ["never tried", "in the sources", "failed", "damaged"])
def test_an_extension_that_is_not_there_is_explained(tmp_path, monkeypatch, case):
    package = tmp_path / "adgan_fast"
    package.mkdir()
    monkeypatch.setattr(ops.extension, "PACKAGE", package)
    if case == "in the sources":
        (tmp_path / "setup.py").touch()
    if case == "failed":
        (package / "_C.unbuilt.txt").write_text("no C++ compiler\n")
    if case == "damaged":
        (package / "_C.abi3.so").write_bytes(b"not a library")
    reason = ops.load_extension.__wrapped__()
    assert reason is not None
    assert "\n" not in reason
    words = {
        "never tried": "was not built",
        "in the sources": f"from its sources in {tmp_path}",
        "failed": "no C++ compiler",
        "damaged": "cannot be loaded",
    }
    assert words[case] in reason
    assert "pip install --no-build-isolation" in reason


def test_the_formula_by_hand():
    """Two steps of one element, worked out: g = 2 then -1, lr 0.1."""
    p, m, v = torch.zeros(1, 1, dtype=torch.float64), *poisoned([torch.empty(1, 1, dtype=torch.float64)] * 2)
    ops.adam_step_torch([p], [m], [v], [torch.full_like(p, 2.0)], [], [0.1], *BETAS, 0.0, 1, False)
    assert p.item() == pytest.approx(-0.1, rel=1e-12)  # the first step is lr · sign(g)
    ops.adam_step_torch([p], [m], [v], [torch.full_like(p, -1.0)], [], [0.1], *BETAS, 0.0, 2, False)
    assert m.item() == 0.5 * 1.0 + 0.5 * -1.0 == 0.0
    assert v.item() == pytest.approx(0.999 * 0.004 + 0.001)
    assert p.item() == pytest.approx(-0.1 - 0.1 * 0.0 / math.sqrt(v.item()), rel=1e-12)
