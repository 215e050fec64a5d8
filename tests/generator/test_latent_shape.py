"""The latent's shape is found where the generator's own layers leave one answer, and asked for by name elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import adgan_fast
from adgan_fast.generator.latent_shape import latent_shape
from tests.support.layers import View, randomise


def found(module: nn.Module, *image_shape: int) -> tuple[int, ...]:
    return latent_shape(randomise(module, 0).eval(), image_shape, torch.device("cpu"), torch.float32)


class Autoencoder(nn.Module):
    """An encoder that the forward of a decoder does not use, and an embedding that nobody does."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.labels = nn.Embedding(10, 7)
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 9))
        self.decoder = decoder

    def forward(self, z):
        return self.decoder(z)


class Functional(nn.Module):
    """Weights without layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(12, 5)), nn.Parameter(torch.zeros(3, 1, 4, 4))

    def forward(self, z):
        return F.conv_transpose2d(F.linear(z, self.first).view(-1, 3, 2, 2), self.second, stride=2, padding=1)


class Named(nn.Module):
    """A learned affine map of the latent: no layer says its size."""

    def __init__(self, **attributes):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, z):
        return (self.scale * z).view(-1, 1, 2, 3)


LINEAR = [nn.Linear(5, 48), View(3, 4, 4)]
CASES = {
    "linear": (nn.Sequential(*LINEAR), (3, 4, 4), (5,)),
    "transposed convolution": (nn.Sequential(nn.ConvTranspose2d(6, 3, 4)), (3, 4, 4), (6, 1, 1)),
    "a vector made a pixel": (nn.Sequential(View(6, 1, 1), nn.ConvTranspose2d(6, 3, 4)), (3, 4, 4), (6,)),
    "a map": (nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Upsample(scale_factor=4), nn.Conv2d(8, 3, 1)),
              (3, 12, 16), (4, 3, 4)),
    "a map with an odd size": (nn.Sequential(nn.ConvTranspose2d(2, 1, 2, 2)), (1, 14, 14), (2, 7, 7)),
    "a map of the image's size": (nn.Sequential(nn.Conv2d(4, 3, 3, padding=1)), (3, 4, 4), (4, 4, 4)),
    "batch norm first": (nn.Sequential(nn.BatchNorm1d(5), *LINEAR), (3, 4, 4), (5,)),
    "an encoder beside": (Autoencoder(nn.Sequential(nn.Linear(9, 64), View(1, 8, 8))), (1, 8, 8), (9,)),
    "weights alone": (Functional(), (1, 4, 4), (5,)),
    "an attribute": (Named(z_dim=6), (1, 2, 3), (6,)),
    "an attribute that is a tuple": (Named(latent_size=(2, 3)), (1, 2, 3), (2, 3)),
    "a config": (Named(config={"latent_dim": 6}), (1, 2, 3), (6,)),
}  # fmt: skip


@pytest.mark.parametrize(("module", "image_shape", "shape"), CASES.values(), ids=list(CASES))
def test_the_shape_is_found(module, image_shape, shape):
    assert found(module, *image_shape) == shape


def test_a_module_may_say_it():
    assert found(Named(latent_shape=6), 1, 2, 3) == (6,)
    assert found(Named(latent_shape=[3, 2]), 1, 2, 3) == (3, 2)


def test_of_several_shapes_all_are_named():
    resized = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Upsample((8, 8)))
    with pytest.raises(ValueError, match=r"ambiguous.*\(2, 1, 1\).*\(2, 4, 4\).*latent_shape="):
        found(resized, 1, 8, 8)


def test_an_autoencoder_is_not_taken_for_a_generator():
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1))
    with pytest.raises(ValueError, match="latent_shape"):
        found(module, 1, 8, 8)


def test_no_shape_at_all_is_asked_for_by_name():
    with pytest.raises(ValueError, match=r"latent_shape of generator Named cannot be found.*latent_shape=\(256,\)"):
        found(Named(), 1, 2, 3)


def test_what_was_made_is_told_where_it_is_no_such_image():
    with pytest.raises(ValueError, match=r"\(N, 1, 4, 4\).*a tensor \(1, 3, 4, 4\) from a latent \(1, 5\)"):
        found(nn.Sequential(*LINEAR), 1, 4, 4)


def test_a_generator_that_counts_its_calls_is_left_as_it_was():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls = nn.Linear(5, 4), 0

        def forward(self, z):
            self.calls += 1
            return self.layer(z).view(-1, 1, 2, 2)

    module = randomise(Counting(), 0)
    adgan_fast.score(module, torch.zeros(1, 1, 2, 2), n_seed=2)
    assert module.calls == 0


def test_a_size_that_only_broadcasts_is_not_taken():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("e", torch.zeros(12))
            self.c = nn.ConvTranspose2d(3, 1, 4, 4)

        def forward(self, z):
            return torch.tanh(self.c((z * self.e).view(-1, 3, 2, 2)))

    assert found(Scaled(), 1, 8, 8) == (12,)


class Tokens(nn.Module):
    """A transformer's first layer, which takes a map of vectors for many latents; and a table of many rows."""

    def __init__(self, made: list[int]) -> None:
        super().__init__()
        self.made = made.append  # a bound method: a copy of the module has it too
        self.first, self.last = nn.Linear(8, 64), nn.Linear(4, 4)
        self.register_buffer("table", torch.zeros(50_000, 2))

    def forward(self, z):
        h = self.last(self.first(z).view(-1, 16, 4))
        self.made(h.numel() if type(h) is torch.Tensor else 0)
        return h.view(-1, 1, 8, 8)


def test_trying_shapes_logs_nothing(caplog):
    module = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 64), nn.Unflatten(1, (1, 8, 8)))
    assert latent_shape(module, (1, 8, 8), torch.device("cpu"), torch.float32) == (12,)
    assert caplog.messages == []


def test_what_takes_a_large_latent_for_a_batch_is_not_run_on_it():
    made: list[int] = []
    assert found(Tokens(made), 1, 8, 8) == (8,)
    assert 0 in made
    assert max(made) < 50_000
