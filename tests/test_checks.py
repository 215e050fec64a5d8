"""What a generator or a loss must not do is named, with the remedy; what plain PyTorch can run is run."""

from __future__ import annotations

import os
import random
import threading
import time
import warnings

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from generators import FAMILIES, randomise
from torch import nn
from torch.nn import functional as F

import adgan_fast
from adgan_fast import SearchResult, Status, ops
from adgan_fast.testing import violations

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
ENGINES = ["grouped", "eager", *(["native"] if ops.load_extension() is None else [])]
WEIGHTS = ("per_seed", "per_sample", "frozen")
engines = pytest.mark.parametrize("engine", [*ENGINES, "auto"])


class Made(nn.Module):
    """A linear layer `l`, other modules, and a forward that is a function of the module and z, to (B, 48)."""

    def __init__(self, function, **more):
        super().__init__()
        self.l = nn.Linear(6, 48)
        self.function = function
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, z):
        return self.function(self, z).view(-1, 3, 4, 4)


def made(function, **more) -> nn.Module:
    return randomise(Made(function, **more), 0)


def search(gen, engine="auto", images=IMAGES, **settings) -> SearchResult:
    settings = {"n_seed": 3, "latent_shape": (6,), **settings}
    return adgan_fast.search(gen, images, engine=engine, **settings)


def starts_of(*latent: int) -> torch.Tensor:
    return adgan_fast.core.starts.draw(3, None, 3, latent, "normal").float()


def assert_right(gen, engine, images=IMAGES, latent_shape=(6,), latents=True, **settings) -> None:
    """By the rule of agreement, and its latents where rounding moves none; refused by a fast engine it may be."""
    settings = {"starts": starts_of(*latent_shape), "latent_shape": latent_shape, **settings}
    plain = search(gen, "reference", images, **settings)
    double = adgan_fast.generator.working_copy.working_copy(gen, dtype=torch.float64)
    wanted = search(double, "reference", images.double(), **{**settings, "starts": settings["starts"].double()})
    try:
        found = search(gen, engine, images, **settings)
    except ValueError as error:
        assert engine in ("native", "grouped") and "is not known to the fast engines" in str(error)
        return
    assert not violations(found, wanted, plain=plain)
    if latents:
        torch.testing.assert_close(found.latents.double(), wanted.latents, rtol=1e-3, atol=1e-3)


# -- latents of every shape ---------------------------------------------------------------------------------------


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
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", list(SPATIAL))
def test_a_latent_of_channels_and_positions_is_read_as_the_generator_reads_it(family, engine, weights):
    gen = randomise(SPATIAL[family](), 1)
    assert_right(gen, engine, latent_shape=(4, 4, 4), weights=weights)
    own = adgan_fast.core.starts.draw(5, None, 6, (4, 4, 4), "normal").float().view(2, 3, 4, 4, 4)
    assert_right(gen, engine, latent_shape=(4, 4, 4), weights=weights, starts=own)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_step_the_latents_are_the_starts(engine):
    starts = starts_of(4, 4, 4)
    gen = randomise(SPATIAL["conv2d"](), 1)
    found = search(gen, engine, latent_shape=(4, 4, 4), starts=starts, steps=0)
    torch.testing.assert_close(found.latents, starts.expand(2, -1, -1, -1, -1), rtol=0, atol=0)


# -- gradients that vmap takes wrongly ----------------------------------------------------------------------------


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


# -- what a copy may lose -----------------------------------------------------------------------------------------


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


# -- no gradient to the latent, no latent, no image ---------------------------------------------------------------


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


@pytest.mark.parametrize("latent_shape", [None, (6,)])
@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda x: (x, x.mean()), r"a tuple of a tensor \(1, 3, 4, 4\), a tensor \(\)"),
        (lambda x: {"image": x}, r"a dict of 'image': a tensor \(1, 3, 4, 4\)"),
        (lambda x: x.flatten(1), r"a tensor \(1, 48\)"),
        (lambda x: x[0], r"a tensor \(3, 4, 4\)"),
        (lambda x: None, "None"),
        (lambda x: x[:, :1], r"\(N, 3, 4, 4\).*\(1, 1, 4, 4\)"),
        (lambda x: F.interpolate(x, scale_factor=2), r"\(N, 3, 4, 4\).*\(1, 3, 8, 8\)"),
    ],
    ids=["tuple", "dict", "flat", "3-d", "None", "channels", "size"],
)
def test_what_a_generator_returns_is_named(result, words, latent_shape):
    class Returns(Made):
        def forward(self, z):
            return result(super().forward(z))

    with pytest.raises(ValueError, match=words):
        search(randomise(Returns(lambda s, z: s.l(z)), 0), latent_shape=latent_shape)


@pytest.mark.parametrize("output", [nn.Sigmoid(), nn.Tanh()], ids=["sigmoid", "tanh"])
def test_bytes_against_images_from_zero_to_one_are_a_warning_that_names_both_ranges(output):
    gen = nn.Sequential(randomise(nn.Linear(6, 48), 0), output, nn.Unflatten(1, (3, 4, 4)))
    images = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search(gen, images=images)
        search(gen, images=images / 255)
    seen = [str(w.message) for w in caught if "[0, 1]" in str(w.message)]
    assert len(seen) == (1 if isinstance(output, nn.Sigmoid) else 0)
    assert all("[-1, 1]" in line for line in seen)


# -- in place -----------------------------------------------------------------------------------------------------


IN_PLACE = {
    "relu first": lambda: [nn.ReLU(inplace=True), nn.Linear(6, 48)],
    "leaky relu first": lambda: [nn.LeakyReLU(0.2, inplace=True), nn.Linear(6, 48)],
    "elu after a layer": lambda: [nn.Linear(6, 48), nn.ELU(inplace=True)],
}


@pytest.mark.parametrize("weights", WEIGHTS)
@engines
@pytest.mark.parametrize("kind", list(IN_PLACE))
def test_work_in_place_that_pytorch_can_differentiate(kind, engine, weights):
    gen = randomise(nn.Sequential(*IN_PLACE[kind](), nn.Unflatten(1, (3, 4, 4))), 0)
    starts = starts_of(6)
    before = starts.clone()
    assert_right(gen, engine, weights=weights, starts=starts)
    assert torch.equal(starts, before)


@engines
def test_a_latent_written_into_by_a_function(engine):
    assert_right(made(lambda s, z: s.l(z.mul_(2).add_(1))), engine)


@engines
def test_work_in_place_that_spoils_a_gradient_is_named_by_layer(engine):
    gen = nn.Sequential(nn.Linear(6, 48), nn.Sigmoid(), nn.ReLU(inplace=True), nn.Unflatten(1, (3, 4, 4)))
    with pytest.raises(ValueError, match=r"Sequential cannot be differentiated: layer '2' \(ReLU\).*inplace=False"):
        search(gen, engine)


@engines
def test_work_in_place_by_a_function_is_named_by_what_it_spoils(engine):
    gen = made(lambda s, z: torch.sigmoid(s.l(z)).relu_())
    with pytest.raises(ValueError, match="Made cannot be differentiated: the output of Sigmoid is changed in place"):
        search(gen, engine)


# -- layers that the fast engines met for the first time ----------------------------------------------------------


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

    monkeypatch.setitem(rules._RULES, "aten.tanh.default", broken)
    gen = made(lambda s, z: torch.tanh(s.l(z)))
    assert search(gen).engine == "eager"
    with pytest.raises(ValueError, match=r"aten\.tanh\.default is not understood \(ZeroDivisionError: on purpose\)"):
        search(gen, "grouped")


# -- losses -------------------------------------------------------------------------------------------------------


def writes_into_the_image(reconstruction, image):
    image.mul_(0.5)
    return (reconstruction - image).square().flatten(1).sum(1)


def writes_into_the_reconstruction(reconstruction, image):
    reconstruction.mul_(0.5)
    return (reconstruction - image).square().flatten(1).sum(1)


def half_of_the_image(reconstruction, image):
    return (reconstruction - 0.5 * image).square().flatten(1).sum(1)


def half_of_the_reconstruction(reconstruction, image):
    return (0.5 * reconstruction - image).square().flatten(1).sum(1)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("engine", [*ENGINES, "reference"])
@pytest.mark.parametrize(
    ("loss", "plain"),
    [(writes_into_the_image, half_of_the_image), (writes_into_the_reconstruction, half_of_the_reconstruction)],
)
def test_a_loss_may_write_into_what_it_is_given(loss, plain, engine, weights):
    gen, images = made(lambda s, z: torch.tanh(s.l(z))), IMAGES.clone()
    found = search(gen, engine, images, loss=loss, weights=weights)
    wanted = search(gen, engine, images, loss=plain, weights=weights)
    assert torch.equal(images, IMAGES)
    torch.testing.assert_close(found.losses, wanted.losses, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.reconstructions, wanted.reconstructions, rtol=1e-5, atol=1e-5)


def test_a_loss_that_mixes_a_batch_or_is_random_is_refused():
    gen = made(lambda s, z: s.l(z))
    with pytest.raises(ValueError, match="mixes the images of a batch"):
        search(gen, loss=lambda r, x: (r - x).square().sum().expand(len(r)))
    with pytest.raises(ValueError, match="is random"):
        search(gen, loss=lambda r, x: (r - x + torch.rand_like(x)).square().flatten(1).sum(1))


@pytest.mark.parametrize("engine", [*ENGINES, "reference"])
def test_a_loss_that_scores_is_told_so_and_waits_for_nobody(engine):
    gen = made(lambda s, z: s.l(z))

    def scores(reconstruction, image):
        search(gen)
        return (reconstruction - image).square().flatten(1).sum(1)

    with pytest.raises(RuntimeError, match="cannot be called by a loss"):
        search(gen, engine, loss=scores)
    search(gen, engine)


# -- processes ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_fork_while_another_thread_scores_can_score(engine, threads):
    torch.set_num_threads(2)
    case = FAMILIES["DCGAN of 16"]
    images = case.images(2)
    wanted = adgan_fast.score(case.module, images, engine=engine, n_seed=2)
    switches = adgan_fast.core.precision._settings()
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            adgan_fast.score(case.module, case.images(40), engine=engine, n_seed=8)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        while not adgan_fast.core.precision._asked:
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            good = adgan_fast.core.precision._settings() == switches
            same = torch.equal(adgan_fast.score(case.module, images, engine=engine, n_seed=2), wanted)
            os._exit(0 if good and same else 1)
        until = time.monotonic() + 60
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
            time.sleep(0.05)
        if ended == (0, 0):
            os.kill(child, 9)
            os.waitpid(child, 0)
    finally:
        stop.set()
        thread.join()
    assert ended == (child, 0)


def test_the_status_of_each_image():
    images = torch.cat([IMAGES, IMAGES[:1]])
    images[1, 0, 0, 0] = float("nan")
    gen = made(lambda s, z: s.l(z))
    with pytest.warns(RuntimeWarning, match="1 of 3 images hold NaN"):
        found = search(gen, images=images)
    assert found.status.dtype == torch.int8
    assert [Status(int(s)).name for s in found.status] == ["ok", "not_finite", "ok"]
    with pytest.warns(RuntimeWarning, match="2 of 3 scores are NaN or Inf"):
        found = search(gen, images=images, lr_z=1e38, lr_weights=1e30)
    assert [Status(int(s)).name for s in found.status] == ["diverged", "not_finite", "diverged"]


# -- what an outside trial found ----------------------------------------------------------------------------------


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


class RandomClass(Made):
    def __init__(self, draw):
        super().__init__(lambda s, z: s.l(z + s.e(draw(z))), e=nn.Embedding(2, 6))


DRAWS = {
    "torch": lambda z: torch.randint(0, 2, (len(z),)),
    "python": lambda z: torch.tensor([random.randrange(2)] * len(z)),
    "numpy": lambda z: torch.as_tensor(np.random.randint(0, 2, len(z))),
}


@pytest.mark.parametrize("kind", list(DRAWS))
@pytest.mark.parametrize("seed", range(6))
def test_a_draw_is_seen_even_where_it_makes_no_difference_at_first(kind, seed):
    gen = randomise(RandomClass(DRAWS[kind]), 0)
    adgan_fast.core.random_state.seed(seed)
    before = adgan_fast.core.random_state.state(torch.device("cpu"))
    for engine in ("auto", "reference"):
        with pytest.raises(ValueError, match="is random: it draws random numbers in forward"):
            search(gen, engine)
    assert adgan_fast.core.random_state.state(torch.device("cpu")) == before


def reseeded(s, z):
    torch.manual_seed(3)
    return s.l(z) + torch.randn(48)


def test_noise_of_a_fixed_seed_is_no_randomness():
    gen = made(reseeded)
    found = search(gen, "reference")
    assert found.scores.isfinite().all()
    torch.testing.assert_close(search(gen).scores, found.scores)


class FromFirst(Made):
    """What it keeps of the first latent it meets, where no version counter and no state_dict tells."""

    def __init__(self, keep):
        super().__init__(lambda s, z: s.l(z + s.kept(z)))
        self.loc, self.cache, self.keep = nn.Parameter(torch.zeros(1, 6)), None, keep

    def kept(self, z):
        if self.cache is None:
            self.cache = self.keep(self, z)
        return self.loc + self.cache


def keeps_by_data(s, z):
    s.loc.data.copy_(-z.detach()[:1])
    return 0


KEEPS = {"data": keeps_by_data, "a number": lambda s, z: float(z.std()), "a tensor": lambda s, z: z.detach()[:1]}


@pytest.mark.parametrize("keep", list(KEEPS))
def test_what_is_kept_of_the_first_latent_is_refused(keep):
    with pytest.raises(ValueError, match="at its first forward pass"):
        search(randomise(FromFirst(KEEPS[keep]), 0))


def test_a_counter_that_nothing_depends_on_is_allowed():
    def counting(s, z):
        s.calls += 1
        return s.l(z)

    assert_right(made(counting, calls=nn.Buffer(torch.zeros(()))), "auto")


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


def overflowing(x):
    square = (x * 1e18) * (x * 1e18)
    return x + (square - square)


@pytest.mark.parametrize("engine", ENGINES)
def test_nan_does_not_end_in_an_activation(engine):
    """x, or NaN from where |x| is above 18, behind every activation: the score says so."""
    for activation in (nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.Sigmoid(), nn.Tanh(), nn.SiLU(), nn.Softplus()):
        gen = made(lambda s, z: s.a(overflowing(s.l(z))), a=activation)
        far = torch.full((1, 6), 1000.0)
        with pytest.warns(RuntimeWarning, match="NaN or Inf"):
            found = search(gen, engine, starts=far, steps=0, verify=False)
        assert found.scores.isnan().all(), activation


@pytest.mark.parametrize("engine", ENGINES)
def test_small_numbers_through_elu(engine):
    assert_right(made(lambda s, z: torch.tanh(F.elu(s.l(z) * 1e-6) * 1e6)), engine)


@pytest.mark.parametrize("engine", [*ENGINES, "reference"])
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
    try:
        assert search(gen, engine, weights=weights).scores.isfinite().all()
    except ValueError as error:
        assert "cannot run" in str(error)
    assert search(gen, "reference", weights=weights).scores.isfinite().all()


class EnabledInside(Made):
    @torch.no_grad()
    def forward(self, z):
        with torch.enable_grad():
            return super().forward(z)


@engines
def test_gradients_enabled_inside_of_no_grad(engine):
    assert_right(randomise(EnabledInside(lambda s, z: torch.tanh(s.l(z))), 0), engine)


def test_a_recurrent_layer():
    gen = made(lambda s, z: s.r(s.l(z).view(-1, 4, 12))[0].flatten(1), r=nn.LSTM(12, 12, batch_first=True))
    assert_right(gen, "auto")


def test_an_error_of_the_generators_own_code_is_told_with_its_name():
    with pytest.raises(ValueError, match=r"generator Made cannot take a latent.*missing_name"):
        search(made(lambda s, z: missing_name(z)))  # noqa: F821


def test_hooks_on_weights_are_left_out_and_that_is_said(caplog):
    gen = made(lambda s, z: s.l(z))
    gen.l.weight.register_hook(lambda gradient: 0 * gradient)
    search(gen)
    assert "hooks on 'l.weight' are left out" in caplog.text
