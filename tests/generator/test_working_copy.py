"""A search runs on a copy of the generator, whole, and what cannot be copied is named."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn import functional as F

from tests.support.engines import WEIGHTS
from tests.support.layers import randomise
from tests.support.made import IMAGES, Made, assert_right, engines, made, search, starts_of

pytestmark = pytest.mark.usefixtures("one_thread")


def rotated(s, z):
    turned = torch.view_as_complex(s.l(z).view(-1, 24, 2)) * s.turn
    return torch.view_as_real(turned).reshape(-1, 48)


def test_a_complex_buffer_stays_complex():
    turn = torch.polar(torch.ones(24), torch.linspace(0, 6, 24))
    gen = Made(rotated, turn=nn.Buffer(turn))
    latents = starts_of(6)
    with torch.no_grad():
        initial = (gen(latents)[None] - IMAGES[:, None]).square().flatten(2).sum(2)
    for engine in ("eager", "reference", "auto"):
        torch.testing.assert_close(search(gen, engine, starts=latents).initial_losses, initial)
    double = search(gen.double(), starts=latents.double())
    assert double.scores.dtype == torch.float64
    torch.testing.assert_close(double.initial_losses.float(), initial)


@engines
def test_a_complex_parameter_is_refused_by_name(engine):
    gen = Made(rotated, turn=nn.Parameter(torch.ones(24, dtype=torch.complex64)))
    with pytest.raises(ValueError, match=r"parameter 'turn' is complex.*view_as_real"):
        search(gen, engine)


@pytest.mark.parametrize(
    "lazy", [lambda: nn.LazyLinear(48), lambda: nn.Sequential(nn.LazyBatchNorm1d())], ids=["parameter", "buffer"]
)
def test_uninitialised_weights_are_refused_by_name(lazy):
    gen = Made(lambda s, z: s.z(s.l(z)), z=lazy())
    with pytest.raises(ValueError, match=r"'z\..*' is uninitialised"):
        search(gen)
    gen(torch.zeros(2, 6))  # as the remedy says
    search(gen)


def test_weights_without_values_are_refused_by_name():
    gen = Made(lambda s, z: s.z(s.l(z)), z=nn.Linear(48, 48, device="meta"))
    with pytest.raises(ValueError, match=r"'z\.weight' is on the meta device"):
        search(gen)


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.weight_norm], ids=["spectral", "weight"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_weight_that_a_hook_computes_may_hold_a_gradient_of_training(norm):
    gen = nn.Sequential(norm(nn.Linear(6, 48)), nn.Unflatten(1, (3, 4, 4)))
    gen(torch.randn(3, 6)).sum().backward()
    assert not gen[0].weight.is_leaf
    for engine in ("auto", "reference"):
        assert_right(gen, engine)
    assert not gen[0].weight.is_leaf


def test_a_computed_tensor_in_a_list_is_copied_too():
    gen = made(lambda s, z: s.l(z) + s.kept[0])
    gen.kept = [gen.l.weight.sum() * 0.1]
    assert_right(gen, "auto")


def test_what_cannot_be_copied_is_named():
    with pytest.raises(ValueError, match=r"attribute 'inner\.lock', a lock"):
        inner = nn.Identity()
        inner.lock = threading.Lock()
        search(made(lambda s, z: s.inner(s.l(z)), inner=inner))


def small() -> nn.Module:
    return randomise(nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4))), 0)


def replaced_forward(gen):
    forward = gen.forward
    gen.forward = lambda z: forward(z)


def replaced_forward_of_a_layer(gen):
    forward = gen[0].forward
    gen[0].forward = lambda z: forward(z)


def autocast_forward(gen):
    gen.forward = torch.autocast("cpu", enabled=False)(gen.forward)


def hook_on_a_layer(gen):
    first = gen[0]
    gen[1].register_forward_hook(lambda module, given, made: made * (1 + first.bias.mean()))


@engines
@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("hold", [replaced_forward, replaced_forward_of_a_layer, autocast_forward, hook_on_a_layer])
def test_a_function_that_holds_the_original_is_refused(hold, learned, engine):
    gen = small().requires_grad_(learned)
    hold(gen)
    with pytest.raises(ValueError, match=r"a copy of it runs with the weight '.*(weight|bias)' of the original"):
        search(gen, engine)
    assert all(w.grad is None for w in gen.parameters())


@engines
def test_weights_outside_of_the_generator_stay_as_they_are(engine):
    outside = nn.Linear(48, 48)
    gen = made(lambda s, z: outside(s.l(z)))
    assert search(gen, engine if engine == "eager" else "auto").scores.isfinite().all()
    search(gen, "reference")
    assert all(w.grad is None for w in outside.parameters())


def test_a_sparse_embedding_is_learned_as_a_dense_one():
    def embedded(sparse):
        return made(lambda s, z: s.l(z + s.e(torch.tensor([1]))), e=nn.Embedding(4, 6, sparse=sparse))

    for engine in ("auto", "reference"):
        found = search(embedded(True), engine)
        torch.testing.assert_close(found.losses, search(embedded(False), engine).losses)
    gen = made(lambda s, z: s.l(z + F.embedding(torch.tensor([1]), s.w, sparse=True)), w=nn.Parameter(torch.ones(4, 6)))
    with pytest.raises(ValueError, match="gradient is sparse"):
        search(gen)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_torchscript_inside_a_generator_is_named():
    with pytest.raises(TypeError, match="'0' is TorchScript"):
        search(nn.Sequential(torch.jit.script(nn.Linear(6, 6)), *small()))


def test_several_dtypes_are_named_where_one_will_not_do():
    gen = made(lambda s, z: s.d(s.l(z).double()).float(), d=nn.Linear(48, 48).double())
    with pytest.raises(ValueError, match=r"torch\.float32 and torch\.float64; a search runs in torch\.float32 alone"):
        search(gen)


class Moving(Made):
    """Moves itself in forward, as public code likes to."""

    def forward(self, z):
        self.to(z.device)
        self.held[0].float()
        return super().forward(z)


@pytest.mark.parametrize("weights", WEIGHTS)
@engines
def test_a_forward_that_moves_its_own_module(engine, weights):
    gen = randomise(Moving(lambda s, z: s.held[0](s.l(z)), c=nn.Linear(48, 48)), 0)
    gen.held = [nn.Linear(48, 48)]
    assert search(gen, engine, weights=weights).scores.isfinite().all()
    assert search(gen, "reference", weights=weights).scores.isfinite().all()


def test_hooks_on_weights_are_left_out_and_that_is_said(caplog):
    gen = made(lambda s, z: s.l(z))
    gen.l.weight.register_hook(lambda gradient: 0 * gradient)
    search(gen)
    assert "hooks on 'l.weight' are left out" in caplog.text
