"""The oracle: against Algorithm 1 worked out by hand, and against a second implementation, which shares no code."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast.core.losses import l2
from adgan_fast.engine.reference import search_image
from tests.support.families import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")

IDENTITY = (lambda u: u, lambda u: 1.0)
TANH = (math.tanh, lambda u: 1 - math.tanh(u) ** 2)
SETTINGS = {"lr_z": 0.25, "lr_weights": 0.03, "betas": (0.5, 0.999), "eps": 1e-8}


class TwoNumbers(nn.Module):
    """x = f(a·z + b): one latent number, one weight, one bias, one pixel."""

    latent_shape = (1,)

    def __init__(self, a: float, b: float, tanh: bool):
        super().__init__()
        self.layer = nn.Linear(1, 1, dtype=torch.float64)
        nn.init.constant_(self.layer.weight, a)
        nn.init.constant_(self.layer.bias, b)
        self.tanh = tanh

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        out = self.layer(z)
        return (torch.tanh(out) if self.tanh else out).reshape(-1, 1, 1, 1)


class Adam:
    """Kingma & Ba 2015, algorithm 1, for one number."""

    def __init__(self, lr: float, betas: tuple[float, float], eps: float):
        self.lr, self.betas, self.eps = lr, betas, eps
        self.m = self.v = 0.0
        self.t = 0

    def __call__(self, p: float, g: float) -> float:
        self.t += 1
        self.m = self.betas[0] * self.m + (1 - self.betas[0]) * g
        self.v = self.betas[1] * self.v + (1 - self.betas[1]) * g * g
        m_hat, v_hat = self.m / (1 - self.betas[0] ** self.t), self.v / (1 - self.betas[1] ** self.t)
        return p - self.lr * m_hat / (math.sqrt(v_hat) + self.eps)


def by_hand(f, a, b, starts, x, steps, weights="per_seed", z_first=False):
    """Initial losses, final losses and final latents of starts that share (a, b): Algorithm 1 in plain numbers.

    z_first takes the weights' gradients after z has moved, which is not what the paper does.
    """
    value, slope = f
    zs = list(starts)
    z_adams = [Adam(SETTINGS["lr_z"], SETTINGS["betas"], SETTINGS["eps"]) for _ in zs]
    a_adam, b_adam = (Adam(SETTINGS["lr_weights"], SETTINGS["betas"], SETTINGS["eps"]) for _ in range(2))

    def residual(z):
        u = a * z + b
        return 2 * (value(u) - x) * slope(u)

    initial = [(value(a * z + b) - x) ** 2 for z in zs]
    for _ in range(steps):
        moved = [adam(z, residual(z) * a) for adam, z in zip(z_adams, zs, strict=True)]
        at = moved if z_first else zs
        da, db = sum(residual(z) * z for z in at), sum(residual(z) for z in at)
        if weights != "frozen":
            a, b = a_adam(a, da), b_adam(b, db)
        zs = moved
    return initial, [(value(a * z + b) - x) ** 2 for z in zs], zs


def search(tanh, starts, x, steps, weights):
    return adgan_fast.search(
        TwoNumbers(0.7, -0.2, tanh), torch.full((1, 1, 1, 1), x, dtype=torch.float64), engine="reference",
        starts=torch.tensor(starts, dtype=torch.float64)[:, None], steps=steps, weights=weights, **SETTINGS,
    )  # fmt: skip


def assert_same(found, by_hand):
    for tensor, want in zip((found.initial_losses[0], found.losses[0], found.latents[0, :, 0]), by_hand, strict=True):
        np.testing.assert_allclose(tensor.numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7])
def test_a_case_of_two_parameters_is_as_worked_out_by_hand(tanh, weights, steps):
    f, starts, x = TANH if tanh else IDENTITY, [0.4, -1.3, 2.1], 0.35
    found = search(tanh, starts, x, steps, weights)
    if weights == "per_sample":
        want = by_hand(f, 0.7, -0.2, starts, x, steps)
    else:
        alone = [by_hand(f, 0.7, -0.2, [z], x, steps, weights) for z in starts]
        want = tuple([one[i][0] for one in alone] for i in range(3))
    assert_same(found, want)
    assert found.scores.item() == pytest.approx(sum(want[1]) / 3, abs=1e-12)


def test_z_and_w_move_by_gradients_taken_at_the_same_point():
    """Gradients of w taken after z has moved would show: the same case worked out so is far away."""
    starts, x = [0.4], 0.35
    found = search(True, starts, x, 3, "per_seed")
    assert_same(found, by_hand(TANH, 0.7, -0.2, starts, x, 3))
    wrong = by_hand(TANH, 0.7, -0.2, starts, x, 3, z_first=True)
    assert abs(found.losses.item() - wrong[1][0]) > 1e-4


def test_per_sample_sums_the_gradients_of_its_starts():
    """Two equal starts: twice the gradient, which Adam's first step cannot see, and eps can."""
    module, x = TwoNumbers(0.7, -0.2, True), torch.full((1, 1, 1, 1), 0.35, dtype=torch.float64)
    settings = {"steps": 1, "lr_weights": 0.03, "lr_z": 0.0, "eps": 0.5, "engine": "reference"}
    one = torch.full((1, 1), 0.4, dtype=torch.float64)
    alone = adgan_fast.search(module, x, starts=one, weights="per_sample", **settings)
    twice = adgan_fast.search(module, x, starts=one.expand(2, 1), weights="per_sample", **settings)
    g_u = 2 * (math.tanh(0.7 * 0.4 - 0.2) - 0.35) * (1 - math.tanh(0.7 * 0.4 - 0.2) ** 2)

    def loss_after(times):
        a, b = (p - 0.03 * times * g / (abs(times * g) + 0.5) for p, g in ((0.7, g_u * 0.4), (-0.2, g_u)))
        return (math.tanh(a * 0.4 + b) - 0.35) ** 2

    assert alone.losses.item() == pytest.approx(loss_after(1), abs=1e-12)
    np.testing.assert_allclose(twice.losses[0], [loss_after(2)] * 2, atol=1e-12)
    assert abs(loss_after(1) - loss_after(2)) > 1e-4


def test_without_a_step_the_loss_is_that_of_the_starts():
    case = FAMILIES["residual"]
    gen = case.double().eval()
    x = case.images(2).double()
    found = adgan_fast.search(gen, x, engine="reference", steps=0, n_seed=3)
    assert torch.equal(found.losses, found.initial_losses)
    starts = adgan_fast.core.starts.draw(0, None, 3, case.latent_shape, "normal")
    assert torch.equal(found.latents, starts.expand(2, *starts.shape))
    for j in range(3):
        assert torch.equal(found.losses[0, j], l2(gen(starts[j : j + 1]), x[:1])[0])


def test_frozen_weights_do_not_move():
    """The final loss is that of the generator as it was, at the latent found."""
    case = FAMILIES["DCGAN of 8"]
    gen, x = case.double().eval(), case.images(1).double()
    found = adgan_fast.search(gen, x, engine="reference", weights="frozen", n_seed=2, lr_weights=10.0)
    with torch.no_grad():
        for j in range(2):
            assert torch.equal(found.losses[0, j], l2(gen(found.latents[0, j : j + 1]), x)[0])
    assert not torch.equal(found.losses, found.initial_losses)


def test_a_gradient_of_exactly_zero_is_exactly_no_update():
    class HalfUsed(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 4), nn.Parameter(torch.ones(3))

        def forward(self, z):
            return self.used(z[:, :2]).reshape(-1, 1, 2, 2) + 0 * self.unused.sum()

    torch.manual_seed(0)
    gen, starts = HalfUsed(), torch.randn(3, 4)
    x = torch.zeros(1, 1, 2, 2)
    for engine in ("reference", "eager"):
        found = adgan_fast.search(gen, x, engine=engine, starts=starts, latent_shape=(4,))
        assert torch.equal(found.latents[0, :, 2:], starts[:, 2:])
        assert not torch.equal(found.latents[0, :, :2], starts[:, :2])
        assert torch.isfinite(found.losses).all()


def test_the_best_reconstruction_is_that_of_the_lowest_final_loss_the_first_of_equals():
    case = FAMILIES["DCGAN of 8"]
    x = case.images(3)
    starts = adgan_fast.core.starts.draw(1, None, 4, case.latent_shape, "normal")[[0, 1, 2, 1, 3]]
    found = adgan_fast.search(case.module, x, engine="reference", starts=starts)
    assert torch.equal(found.losses[:, 1], found.losses[:, 3])
    assert torch.equal(l2(found.reconstructions, x), found.losses.min(1).values)
    torch.testing.assert_close(found.scores, found.losses.mean(1))


def test_search_image_yields_the_starts_in_order_and_leaves_the_generator_alone():
    case = FAMILIES["residual"]
    gen = copy.deepcopy(case.module).eval()
    before = {name: tensor.clone() for name, tensor in gen.state_dict().items()}
    starts, x = torch.randn(3, *case.latent_shape), case.images(1)[0]
    outcomes = list(search_image(gen, x, starts, adgan_fast.SearchConfig(steps=2), l2))
    assert len(outcomes) == 3
    for z, (initial, final, latent, reconstruction) in zip(starts, outcomes, strict=True):
        assert initial.shape == final.shape == ()
        assert latent.shape == z.shape
        assert reconstruction.shape == x.shape
        torch.testing.assert_close(initial, l2(gen(z[None]), x[None])[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in gen.state_dict().items())
    assert all(p.grad is None for p in gen.parameters())


def test_a_search_let_go_of_half_way_changes_no_mode_where_it_happens_to_be_let_go():
    """As where an interrupt holds its frames, and the garbage collector frees them while PyTorch exports a program."""
    case = FAMILIES["residual"]
    gen, starts = copy.deepcopy(case.module).eval(), torch.randn(2, *case.latent_shape)
    pairs = search_image(gen, case.images(1)[0], starts, adgan_fast.SearchConfig(steps=1), l2)
    next(pairs)
    assert torch.is_grad_enabled()
    with torch.no_grad():
        pairs.close()
        assert not torch.is_grad_enabled()


# -- a second implementation: numpy, gradients written out -------------------------------------------------------


def numpy_search(layers, start_list, x, steps, weights, lr_z, lr_w, beta1=0.5, beta2=0.999, eps=1e-8):
    """(final losses, final latents) of a tanh network by Algorithm 1. layers: [(W, b), ...]; x: flat; loss: l2."""
    w = [p.copy() for layer in layers for p in layer]
    z = [s.copy() for s in start_list]
    m, v = [[np.zeros_like(p) for p in (*z, *w)] for _ in range(2)]

    def forward(z):
        kept = [z]
        for i in range(0, len(w), 2):
            kept.append(np.tanh(w[i] @ kept[-1] + w[i + 1]))
        return kept

    for t in range(1, steps + 1):
        grads = [np.zeros_like(p) for p in (*z, *w)]
        for j, latent in enumerate(z):
            kept = forward(latent)
            back = 2 * (kept[-1] - x)
            for i in reversed(range(0, len(w), 2)):
                back = back * (1 - kept[i // 2 + 1] ** 2)
                grads[len(z) + i] += np.outer(back, kept[i // 2])
                grads[len(z) + i + 1] += back
                back = w[i].T @ back
            grads[j] = back
        for k, (p, g) in enumerate(zip((*z, *w), grads, strict=True)):
            lr = lr_z if k < len(z) else (0.0 if weights == "frozen" else lr_w)
            m[k] = beta1 * m[k] + (1 - beta1) * g
            v[k] = beta2 * v[k] + (1 - beta2) * g**2
            p -= lr * (m[k] / (1 - beta1**t)) / (np.sqrt(v[k] / (1 - beta2**t)) + eps)
    return [float(((forward(latent)[-1] - x) ** 2).sum()) for latent in z], z


@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
@pytest.mark.parametrize("lr_w", [5e-5, 0.05])
def test_a_second_implementation_finds_the_same(weights, lr_w):
    random = np.random.default_rng(4)
    sizes = [3, 7, 5, 12]
    layers = [(random.normal(size=(b, a)) / a**0.5, 0.2 * random.normal(size=b)) for a, b in itertools.pairwise(sizes)]
    modules: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        modules += [linear, nn.Tanh()]
    gen = nn.Sequential(*modules, nn.Unflatten(1, (1, 3, 4)))
    x, starts = random.uniform(-1, 1, size=(2, 12)), random.normal(size=(4, 3))
    found = adgan_fast.search(
        gen, torch.from_numpy(x).reshape(2, 1, 3, 4), engine="reference", starts=torch.from_numpy(starts),
        weights=weights, lr_weights=lr_w, steps=6,
    )  # fmt: skip
    for i in range(2):
        groups = [list(starts)] if weights == "per_sample" else [[start] for start in starts]
        outcomes = [numpy_search(layers, group, x[i], 6, weights, 0.25, lr_w) for group in groups]
        losses = [loss for outcome in outcomes for loss in outcome[0]]
        latents = [latent for outcome in outcomes for latent in outcome[1]]
        np.testing.assert_allclose(found.losses[i].numpy(), losses, rtol=1e-11)
        np.testing.assert_allclose(found.latents[i].numpy(), latents, rtol=0, atol=1e-11)
