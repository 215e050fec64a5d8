"""What plain PyTorch can run is run, and rightly: latents of any shape, layers of any kind."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn import functional as F

import adgan_fast
from tests.support.engines import FAST, ON_CPU, WEIGHTS
from tests.support.layers import overflowing, randomise
from tests.support.made import IMAGES, Made, assert_right, engines, made, search, starts_of

pytestmark = pytest.mark.usefixtures("one_thread")


SPATIAL = {
    "conv2d": lambda: nn.Conv2d(4, 3, 3, padding=1),
    "conv_transpose2d": lambda: nn.ConvTranspose2d(4, 3, 3, padding=1),
    "flattened": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.Unflatten(1, (3, 4, 4))),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=1)),
    "activation first": lambda: nn.Sequential(nn.Tanh(), nn.Conv2d(4, 3, 1)),
    "linear on the last": lambda: nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 3, 3, padding=1)),
    "upsampled": lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, 2, 1)),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("family", list(SPATIAL))
def test_a_latent_of_channels_and_positions_is_read_as_the_generator_reads_it(family, engine, weights):
    gen = randomise(SPATIAL[family](), 1)
    assert_right(gen, engine, latent_shape=(4, 4, 4), weights=weights)
    own = adgan_fast.core.starts.draw(5, None, 6, (4, 4, 4), "normal").float().view(2, 3, 4, 4, 4)
    assert_right(gen, engine, latent_shape=(4, 4, 4), weights=weights, starts=own)


@pytest.mark.parametrize("engine", FAST)
def test_without_a_step_the_latents_are_the_starts(engine):
    starts = starts_of(4, 4, 4)
    gen = randomise(SPATIAL["conv2d"](), 1)
    found = search(gen, engine, latent_shape=(4, 4, 4), starts=starts, steps=0)
    torch.testing.assert_close(found.latents, starts.expand(2, -1, -1, -1, -1), rtol=0, atol=0)


def prelu(s, z):
    h = s.l(z)
    return h + s.p(s.c(h))


def distances(s, z):
    return torch.cdist(s.l(z).reshape(-1, 1), s.e.weight).sum(1).view(-1, 48)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_prelu_between_layers(weights):
    assert_right(made(prelu, c=nn.Linear(48, 48), p=nn.PReLU()), "eager", weights=weights)
    assert_right(made(prelu, c=nn.Linear(48, 48), p=nn.PReLU(48)), "eager", weights=weights)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_distances_to_a_weight(weights):
    assert_right(made(distances, e=nn.Embedding(48, 1)), "auto", latents=False, weights=weights)


def attended(s, z):
    h = s.l(z).view(-1, 4, 12)
    return s.a(h, h, h)[0].reshape(-1, 48)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_attention(engine, weights):
    assert_right(made(attended, a=nn.MultiheadAttention(12, 3, batch_first=True)), engine, weights=weights)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_what_vmap_cannot_run_is_refused_before_the_search(weights):
    """Each way of owning weights is another call of vmap."""
    gen = made(lambda s, z: F.gelu(s.l(z)) * s.l.weight.data.size(1))
    if weights == "per_seed":
        with pytest.raises(ValueError, match=r"engine 'eager' cannot run: torch\.func\.vmap cannot run Made"):
            search(gen, "eager", weights=weights)
    else:
        assert_right(gen, "eager", weights=weights)
    assert_right(gen, "auto", weights=weights)


@pytest.mark.parametrize("weights", WEIGHTS)
@engines
@pytest.mark.parametrize(
    "function",
    [
        lambda s, z: s.l(z) + 0, lambda s, z: s.l(z) - 0, lambda s, z: s.l(z) * 0 + s.l(z), lambda s, z: 0 + s.l(z),
        lambda s, z: sum([s.l(z), s.l(2 * z)]), lambda s, z: 0.0 * torch.tanh(s.l(z)) + (1 - 0.0) * s.l(z),
    ],
    ids=["+ 0", "- 0", "* 0", "0 +", "sum", "fade-in"],
)  # fmt: skip
def test_arithmetic_with_zero(function, engine, weights):
    assert_right(made(function), engine, weights=weights)


@pytest.mark.parametrize("weights", WEIGHTS)
@engines
@pytest.mark.parametrize("op", [F.conv2d, F.conv_transpose2d])
def test_a_convolution_by_a_buffer(op, engine, weights):
    gen = made(lambda s, z: op(s.l(z).view(-1, 3, 4, 4), s.w, s.b, padding=1).flatten(1),
               w=nn.Buffer(torch.zeros(3, 3, 3, 3)), b=nn.Parameter(torch.zeros(3)))  # fmt: skip
    assert_right(gen, engine, weights=weights)


def test_an_error_inside_a_rule_means_not_lowered_and_why(monkeypatch):
    from adgan_fast.generator import rules

    def broken(at, *arguments):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setitem(rules.RULES, "aten.tanh.default", broken)
    gen = made(lambda s, z: torch.tanh(s.l(z)))
    assert search(gen).engine == "eager"
    with pytest.raises(ValueError, match=r"aten\.tanh\.default is not understood \(ZeroDivisionError: on purpose\)"):
        search(gen, "grouped")


@pytest.mark.parametrize("engine", FAST)
def test_nan_does_not_end_in_an_activation(engine):
    """x, or NaN from where |x| is above 18, behind every activation: the score says so."""
    for activation in (nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.Sigmoid(), nn.Tanh(), nn.SiLU(), nn.Softplus()):
        gen = made(lambda s, z: s.a(overflowing(s.l(z))), a=activation)
        far = torch.full((1, 6), 1000.0)
        with pytest.warns(RuntimeWarning, match="NaN or Inf"):
            found = search(gen, engine, starts=far, steps=0, verify=False)
        assert found.scores.isnan().all(), activation


@pytest.mark.parametrize("engine", FAST)
def test_small_numbers_through_elu(engine):
    assert_right(made(lambda s, z: torch.tanh(F.elu(s.l(z) * 1e-6) * 1e6)), engine)


@pytest.mark.parametrize("engine", ON_CPU)
def test_a_weight_of_one_channel_in_channels_last_strides(engine):
    def convolved():
        layers = [nn.Linear(6, 32), nn.Unflatten(1, (1, 4, 8)), nn.Conv2d(1, 3, 3, (1, 2), 1)]
        return randomise(nn.Sequential(*layers), 0)

    odd, plain = convolved(), convolved()
    odd[2].weight.data = odd[2].weight.data.to(memory_format=torch.channels_last)
    torch.testing.assert_close(search(odd, engine).losses, search(plain, engine).losses)


def test_a_generator_that_only_reshapes_its_latent():
    found = adgan_fast.search(nn.Unflatten(1, (3, 4, 4)), IMAGES, latent_shape=(48,), n_seed=2, engine="eager",
                              weights="frozen")  # fmt: skip
    assert found.scores.isfinite().all()


class EnabledInside(Made):
    @torch.no_grad()
    def forward(self, z):
        with torch.enable_grad():
            return super().forward(z)


@engines
def test_gradients_enabled_inside_of_no_grad(engine):
    gen = randomise(EnabledInside(lambda s, z: torch.tanh(s.l(z))), 0)
    assert_right(gen, engine)


def test_a_recurrent_layer():
    gen = made(lambda s, z: s.r(s.l(z).view(-1, 4, 12))[0].flatten(1), r=nn.LSTM(12, 12, batch_first=True))
    assert_right(gen, "auto")
