"""Generators and critics: shapes, size, initialisation, and what the search needs of them (export, vmap)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from adgan_fast import models
from adgan_fast.models import DCGANCritic, DCGANGenerator
from adgan_fast.models.parts import IMAGE_SIZES, NORMS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_generator_and_critic_have_the_promised_shapes(size: int, channels: int) -> None:
    generator = DCGANGenerator(size, channels, latent=5, width=2, generator=seeded())
    images = generator(torch.randn(3, 5, generator=seeded()))
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1
    assert generator.eval()(torch.zeros(0, 5)).shape == (0, channels, size, size)
    for norm in NORMS:
        assert DCGANCritic(size, channels, width=2, norm=norm, generator=seeded())(images).shape == (3,)


def test_generator_of_32_pixels_is_the_papers_dcgan() -> None:
    generator = DCGANGenerator(32, 1)
    assert sum(parameter.numel() for parameter in generator.parameters()) == 1_705_856
    kernels = [tuple(p.shape) for p in generator.parameters() if p.dim() == 4]
    assert kernels == [(256, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4), (64, 1, 4, 4)]


def test_initial_weights_are_dcgans_and_come_from_the_given_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = (DCGANGenerator(32, 3, generator=seeded(7)) for _ in range(2))
    critic = DCGANCritic(32, 3, generator=seeded(7))
    assert torch.equal(torch.random.get_rng_state(), state), "the global random state was touched"
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
    kernel = first.get_parameter("layers.3.weight")
    assert kernel.mean().abs() < 1e-4
    assert kernel.std().item() == pytest.approx(0.02, rel=0.01)
    assert first.get_parameter("layers.1.weight").mean().item() == pytest.approx(1.0, abs=0.01)
    assert all(p.abs().max() == 0 for n, p in [*first.named_parameters(), *critic.named_parameters()] if "bias" in n)


def test_without_a_generator_the_global_seed_decides() -> None:
    torch.manual_seed(3)
    first = DCGANCritic(8, 1, width=2)
    torch.manual_seed(3)
    second = DCGANCritic(8, 1, width=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("kind", [DCGANGenerator, DCGANCritic])
def test_every_weight_is_on_the_default_device_and_of_the_default_dtype(kind: type) -> None:
    with torch.device("meta"):
        assert {value.device.type for value in kind(8, 1, width=2).state_dict().values()} == {"meta"}
    torch.set_default_dtype(torch.float64)
    try:
        assert {parameter.dtype for parameter in kind(8, 1, width=2).parameters()} == {torch.float64}
    finally:
        torch.set_default_dtype(torch.float32)


def test_numpys_whole_numbers_are_whole_numbers() -> None:
    model = DCGANGenerator(np.int64(8), np.int32(1), np.uint8(4), np.int64(2))  # type: ignore[arg-type]
    assert model.config == DCGANGenerator(8, 1, 4, 2).config
    json.dumps(model.config)
    json.dumps(DCGANCritic(np.int64(8), np.int32(1), np.int64(2)).config)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_generator_exports(size: int) -> None:
    generator = DCGANGenerator(size, 1, latent=6, width=2, generator=seeded()).eval()
    z = torch.randn(1, 6, generator=seeded())
    program = torch.export.export(generator, (z,))
    torch.testing.assert_close(program.module()(z), generator(z))


def test_generator_runs_under_vmap_with_weights_of_its_own_for_each_pair() -> None:
    generators = [DCGANGenerator(16, 3, latent=6, width=2, generator=seeded(seed)).eval() for seed in range(4)]
    z = torch.randn(4, 6, generator=seeded())
    parameters, buffers = stack_module_state(generators)
    images = vmap(lambda p, b, z: functional_call(generators[0], (p, b), (z[None],))[0])(parameters, buffers, z)
    expected = torch.cat([generator(z[index : index + 1]) for index, generator in enumerate(generators)])
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-6)


def test_critic_without_batch_norm_judges_each_image_by_itself() -> None:
    images = torch.randn(4, 1, 16, 16, generator=seeded())
    for norm, alone in (("none", True), ("layer", True), ("batch", False)):
        critic = DCGANCritic(16, 1, width=4, norm=norm, generator=seeded()).train()
        same = torch.allclose(critic(images)[:1], critic(images[:1]), rtol=1e-4, atol=1e-7)
        assert same is alone, norm


@pytest.mark.parametrize("model", [DCGANGenerator(28, 3, latent=9, width=3), DCGANCritic(16, 2, 3, "layer")])
def test_build_restores_an_architecture_from_its_config(model: torch.nn.Module) -> None:
    other = models.build(model.config)
    assert type(other) is type(model)
    assert other.config == model.config
    other.load_state_dict(model.state_dict())


@pytest.mark.parametrize("config", [{}, {"kind": "Sequential"}, {"kind": "DCGANCritic", "depth": 3}])
def test_build_refuses_what_it_does_not_know(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kind|depth"):
        models.build(config)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (DCGANGenerator, "image_size", 30),
        (DCGANGenerator, "image_size", [8]),
        (DCGANGenerator, "channels", 0),
        (DCGANGenerator, "latent", -1),
        (DCGANGenerator, "width", 1.5),
        (DCGANCritic, "image_size", "8"),
        (DCGANCritic, "channels", True),
        (DCGANCritic, "width", 0),
        (DCGANCritic, "norm", "instance"),
    ],
)
def test_a_bad_argument_is_named(kind: type, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        kind(**{name: value})


@pytest.mark.parametrize("shape", [(2, 7), (8,), (2, 8, 1, 1)])
def test_wrong_latents_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    generator = DCGANGenerator(8, 1, latent=8, width=2)
    with pytest.raises(ValueError, match=r"\(B, 8\), got \("):
        generator(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 9), (1, 8, 8)])
def test_wrong_images_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, 8, 8\), got \("):
        DCGANCritic(8, 1, width=2)(torch.zeros(shape))
