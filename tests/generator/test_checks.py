"""What a generator must not do is named, with the remedy."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn import functional as F

import adgan_fast
from adgan_fast.core.losses import Loss
from adgan_fast.generator import checks
from tests.support.engines import ON_CPU, WEIGHTS
from tests.support.layers import randomise
from tests.support.made import Made, assert_right, engines, made, search

pytestmark = pytest.mark.usefixtures("one_thread")


def under_no_grad(s, z):
    with torch.no_grad():
        return s.l(z)


def under_inference_mode(s, z):
    with torch.inference_mode():
        return s.l(z)


@engines
@pytest.mark.parametrize(
    "function",
    [
        under_no_grad, under_inference_mode, lambda s, z: s.l(z.detach()), lambda s, z: s.l(z.data),
        lambda s, z: torch.round(4 * s.l(z)), lambda s, z: s.l(F.one_hot(z.argmax(1), 6).to(z.dtype)),
    ],
    ids=["no_grad", "inference_mode", "detach", "data", "round", "argmax"],
)  # fmt: skip
def test_a_generator_through_which_no_gradient_reaches_its_latent_is_refused(engine, function):
    with pytest.raises(ValueError, match="Made cannot be searched: no gradient reaches its latent"):
        search(made(function), engine)


@pytest.mark.parametrize("weights", WEIGHTS)
@engines
def test_a_net_that_is_dead_at_the_first_latents_is_searched(engine, weights):
    gen = made(lambda s, z: s.o(F.relu(s.l(z))), o=nn.Linear(48, 48))
    first = adgan_fast.core.starts.draw(0, None, 2, (6,), "normal").float()
    with torch.no_grad():
        gen.l.bias.copy_(-0.01 - F.linear(first, gen.l.weight).max(0).values)
        assert torch.equal(*gen(first))
    assert_right(gen, engine, weights=weights)


@engines
def test_a_net_that_is_dead_everywhere_ignores_its_latent(engine):
    gen = made(lambda s, z: s.o(F.relu(s.l(z))), o=nn.Linear(48, 48))
    with torch.no_grad():
        gen.l.bias.fill_(-500.0)
    with pytest.raises(ValueError, match="ignores its latent z: 64 starts make the same image"):
        search(gen, engine)


RANDOM = {
    "noise": (lambda s, z: s.l(z) + torch.randn(48), "draws random numbers in forward.*buffer"),
    "noise of strength zero": (lambda s, z: s.l(z) + s.strength * torch.randn(48), "draws random numbers in forward"),
    "dropout": (lambda s, z: F.dropout(s.l(z)), "draws random numbers.*dropout off"),
}


@engines
@pytest.mark.parametrize("kind", list(RANDOM))
def test_random_generators_are_refused_with_the_remedy(engine, kind):
    function, remedy = RANDOM[kind]
    gen = made(function, strength=nn.Parameter(torch.zeros(1)))
    nn.init.zeros_(gen.strength)
    with pytest.raises(ValueError, match=f"Made is random.*{remedy}"):
        search(gen, engine)


class Iterating(nn.Module):
    """A spectral norm that goes on with its power iteration in eval mode."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(48, 6))
        self.register_buffer("u", torch.zeros(48))

    def forward(self, z):
        with torch.no_grad():
            v = F.normalize(self.w.t() @ self.u, dim=0)
            self.u.copy_(F.normalize(self.w @ v, dim=0))
        return F.linear(z, self.w / (self.u @ self.w @ v)).view(-1, 3, 4, 4)


@engines
def test_a_spectral_norm_that_iterates_in_eval_mode_is_refused_with_the_remedy(engine):
    with pytest.raises(ValueError, match=r"Iterating is random.*its own buffer 'u'.*training mode alone"):
        search(randomise(Iterating(), 0), engine)


class FromData(nn.Module):
    """Initialises its scale from the first batch it sees (ActNorm)."""

    def __init__(self):
        super().__init__()
        self.l, self.scale, self.ready = nn.Linear(6, 48), nn.Parameter(torch.ones(48)), False

    def forward(self, z):
        h = self.l(z)
        if not self.ready:
            with torch.no_grad():
                self.scale.copy_(1 / (h.abs().mean(0) + 1e-3))
            self.ready = True
        return (h * self.scale).view(-1, 3, 4, 4)


def test_a_generator_that_initialises_itself_from_data_is_refused_until_it_has():
    gen = randomise(FromData(), 0)
    with pytest.raises(ValueError, match="changes its own parameter 'scale' at its first forward"):
        search(gen)
    gen(torch.randn(5, 6))
    assert_right(gen, "auto")


class Returns(Made):
    """A function of an image that a linear layer makes."""

    def __init__(self, function):
        super().__init__(lambda s, z: s.l(z))
        self.of_image = function

    def forward(self, z):
        return self.of_image(super().forward(z))


SENSELESS = {
    "NaN": (lambda x: x * float("nan"), "NaN"),
    "Inf": (lambda x: x / 0, "NaN or Inf"),
    "ignores z": (torch.zeros_like, "ignores its latent"),
    "random": (lambda x: x + torch.randn_like(x), "random"),
    "tuple": (lambda x: (x, x.mean()), r"a tuple of a tensor \(1, 3, 4, 4\), a tensor \(\)"),
    "list": (lambda x: [x], r"a list of a tensor \(1, 3, 4, 4\)"),
    "dict": (lambda x: {"image": x}, r"a dict of 'image': a tensor \(1, 3, 4, 4\)"),
    "nothing": (lambda x: None, "None"),
    "flat": (lambda x: x.flatten(1), r"a tensor \(1, 48\)"),
    "one image of a batch": (lambda x: x[0], r"a tensor \(3, 4, 4\)"),
    "one channel of a batch": (lambda x: x[:, 0], r"a tensor \(1, 4, 4\)"),
    "fewer channels": (lambda x: x[:, :1], r"\(N, 3, 4, 4\).*\(1, 1, 4, 4\)"),
    "more channels": (lambda x: x.repeat(1, 2, 1, 1), r"\(N, 3, 4, 4\).*\(1, 6, 4, 4\)"),
    "size": (lambda x: F.interpolate(x, scale_factor=2), r"\(N, 3, 4, 4\).*\(1, 3, 8, 8\)"),
    "two for one": (lambda x: torch.cat([x, x]), r"\(2, 3, 4, 4\)"),
}


@pytest.mark.parametrize(
    ("engine", "latent_shape"), [*((engine, (6,)) for engine in [*ON_CPU, "auto"]), ("auto", None)]
)
@pytest.mark.parametrize("what", list(SENSELESS))
def test_a_generator_that_makes_no_sense_is_named_with_what_it_does(what, engine, latent_shape):
    function, words = SENSELESS[what]
    with pytest.raises(ValueError, match=words) as caught:
        search(randomise(Returns(function), 0), engine, latent_shape=latent_shape)
    assert "Returns" in str(caught.value)


@pytest.mark.parametrize(
    ("output", "given", "warned"),
    [
        (nn.Sigmoid(), "bytes", True),
        (nn.Sigmoid(), "floats in [0, 1]", False),
        (nn.Tanh(), "bytes", False),
        (nn.Tanh(), "floats in [0, 1]", True),
        (nn.Tanh(), "floats in [-1, 1]", False),
    ],
)
def test_images_and_a_generator_of_other_ranges_are_a_warning_that_names_both(output, given, warned):
    gen = nn.Sequential(randomise(nn.Linear(6, 48), 0), nn.BatchNorm1d(48), output, nn.Unflatten(1, (3, 4, 4)))
    gen[1].weight.data.fill_(3.0)
    images = torch.arange(48).reshape(1, 3, 4, 4).to(torch.uint8) * 5
    floats = images / 255
    images = {"bytes": images, "floats in [0, 1]": floats, "floats in [-1, 1]": floats * 2 - 1}[given]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search(gen, images=images)
    seen = [str(w.message) for w in caught if "[0, 1]" in str(w.message)]
    assert len(seen) == warned
    assert all("[-1, 1]" in line for line in seen)


def test_what_a_forward_asks_beside_the_latent_is_to_be_wrapped():
    class Conditional(Made):
        def forward(self, z, y):
            return super().forward(z + y)

    with pytest.raises(ValueError, match=r"argument: 'y'.*wrap it in a module"):
        search(randomise(Conditional(lambda s, z: s.l(z)), 0))


def test_checkpoints_that_allow_no_chosen_gradient_are_named():
    checkpoint = torch.utils.checkpoint.checkpoint
    with pytest.raises(ValueError, match="use_reentrant=False"):
        search(made(lambda s, z: checkpoint(s.l, z, use_reentrant=True)))
    search(made(lambda s, z: checkpoint(s.l, z, use_reentrant=False)))


def test_an_error_of_the_generators_own_code_is_told_with_its_name():
    with pytest.raises(ValueError, match=r"generator Made cannot take a latent.*missing_name"):
        search(made(lambda s, z: missing_name(z)))  # noqa: F821


def test_generator_and_loss_are_looked_at_while_cudnn_sums_in_one_order():
    """By default it may sum in another order at each call, or in TF32: a good generator would look random."""
    cudnn, seen = torch.backends.cudnn, []

    def noted():
        seen.append((cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision))

    gen = made(lambda s, z: noted() or s.l(z))
    found = checks.check_generator(gen, torch.randn(checks.LOOKS, 6), (3, 4, 4))
    assert set(seen) == {(True, False, "ieee")}
    seen.clear()
    checks.check_loss(Loss(lambda r, x: noted() or (r - x).square().flatten(1).sum(1)), found.image)
    assert set(seen) == {(True, False, "ieee")}
    assert not cudnn.deterministic
