"""A program makes the images and the gradients of the generator that it was made of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import adgan_fast
from adgan_fast.engine import batched
from adgan_fast.generator.rules import lower
from tests.support.families import FAMILIES
from tests.support.generators import Case, cases
from tests.support.layers import Affine, Constant, Function, Learned, Residual, Twice, randomise
from tests.support.programs import assert_same_numbers

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=30)
@given(cases())
def test_the_program_of_a_random_generator_makes_its_images_and_its_gradients(case):
    assert_same_numbers(case)


HARD_SIGMOID = ("squeeze and excite", "hard activations")
"""Families with a hardsigmoid, whose gradient in PyTorch is by a sixth in float32, whatever the dtype."""


@pytest.mark.parametrize("name", FAMILIES)
def test_the_program_of_a_family_makes_its_images_and_its_gradients(name):
    assert_same_numbers(FAMILIES[name], rtol=1e-6 if name in HARD_SIGMOID else 1e-9)


@pytest.mark.parametrize(
    "layers",
    [
        (nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        (nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.LeakyReLU(0.1, inplace=True)),
        (nn.ELU(inplace=True), nn.Conv2d(4, 4, 1), nn.SiLU(inplace=True)),
        (Function(lambda x: x.add_(1).mul_(2)),),
        (Residual(nn.ReLU(inplace=True)),),
        (Affine(2.0, 0.3), Constant((4, 3, 3)), Learned((4, 3, 3)), Twice(nn.Conv2d(4, 4, 3, padding=1))),
    ],
    ids=["after batch norm", "around batch norm", "ELU and SiLU", "arithmetic", "residual", "none"],
)
def test_operations_in_place_mean_what_they_mean_in_the_module(layers):
    module = randomise(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), *layers), 1)
    assert_same_numbers(Case(module, (4, 3, 3), (4, 3, 3)))


@pytest.mark.parametrize(
    "layers",
    [
        (nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)),
        (Function(lambda x: x.mul_(2)), nn.Conv2d(4, 4, 1), Residual(nn.Tanh())),
        (Function(lambda x: torch.tanh(x).add_(1) + x.sub_(1)),),
    ],
    ids=["ReLU", "arithmetic", "used twice"],
)
def test_a_first_layer_may_work_on_the_latent_in_place(layers):
    module = randomise(nn.Sequential(*layers), 2)
    program, looked_at = lower(module.double().eval(), (4, 3, 3)), torch.randn(1, 4, 3, 3, dtype=torch.float64)
    made = batched.forward(program, looked_at[None], [p[None] for p in program.parameters], program.constants)
    torch.testing.assert_close(made[0], module(looked_at.clone()))


def test_a_generator_may_return_its_latent():
    """Which is no layer's output."""
    gen, images = nn.Sequential(nn.Identity()), torch.zeros(2, 2, 3, 4)
    found = adgan_fast.search(gen, images, latent_shape=(2, 3, 4), n_seed=2, engine="grouped")
    want = adgan_fast.search(gen, images, latent_shape=(2, 3, 4), n_seed=2, engine="reference")
    torch.testing.assert_close(found.losses, want.losses)
    native = next(engine for engine in adgan_fast.engines() if engine.name == "native")
    if native.available:
        found = adgan_fast.search(gen, images, latent_shape=(2, 3, 4), n_seed=2, engine="native")
        torch.testing.assert_close(found.losses, want.losses)
