"""Encoders and critics of pairs: shapes, norms, what goes without biases, and how they are built again."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from adgan_fast import models
from adgan_fast.models import DCGANEncoder, JointCritic
from adgan_fast.models.parts import IMAGE_SIZES, NORMS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", IMAGE_SIZES)
def test_encoder_and_joint_critic_have_the_promised_shapes(size: int, channels: int) -> None:
    images = torch.randn(3, channels, size, size, generator=seeded())
    for norm in NORMS:
        assert DCGANEncoder(size, channels, 5, 2, norm, generator=seeded())(images).shape == (3, 5)
        assert JointCritic(size, channels, 5, 2, norm, generator=seeded())(images, torch.zeros(3, 5)).shape == (3,)
    encoder = DCGANEncoder(size, channels, 5, 2, generator=seeded()).eval()
    assert encoder(images[:0]).shape == (0, 5)


def test_an_encoder_has_a_norm_and_an_activation_in_each_hidden_layer() -> None:
    layers = [type(layer).__name__ for layer in DCGANEncoder(28, 1, 5, 2).layers]
    assert layers == [*["Conv2d", "BatchNorm2d", "ReLU"] * 3, "Conv2d"]
    leaky = DCGANEncoder(8, 1, 5, 2, "layer", "leaky_relu").layers
    assert [type(layer).__name__ for layer in leaky] == [*["Conv2d", "GroupNorm", "LeakyReLU"] * 2, "Conv2d"]
    assert leaky[2].negative_slope == 0.2


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_without_biases_an_empty_image_has_an_empty_code(norm: str, activation: str) -> None:
    images = torch.zeros(2, 1, 16, 16)
    free = DCGANEncoder(16, 1, 5, 2, norm, activation, bias=False, generator=seeded()).eval()
    assert all(parameter.dim() == 4 for parameter in free.parameters())
    assert torch.equal(free(images), torch.zeros(2, 5))
    biased = DCGANEncoder(16, 1, 5, 2, norm, activation, generator=seeded()).eval()
    with torch.no_grad():
        for name, parameter in biased.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(0.3)
        assert (biased(images) != 0).all()


def test_initial_weights_are_dcgans_and_come_from_the_given_generator_alone() -> None:
    state = torch.random.get_rng_state()
    for kind in (DCGANEncoder, JointCritic):
        first, second = (kind(32, 3, 16, generator=seeded(7)) for _ in range(2))
        assert torch.equal(torch.random.get_rng_state(), state), "the global random state was touched"
        for name, parameter in first.named_parameters():
            assert torch.equal(parameter, second.get_parameter(name))
            assert torch.isfinite(parameter).all()
            if name.endswith("bias"):
                assert parameter.abs().max() == 0
            elif parameter.dim() > 1:
                wanted = parameter.shape[1] ** -0.5 if parameter.dim() == 2 and "of_" in name else 0.02
                assert parameter.std().item() == pytest.approx(wanted, rel=0.2), name


@pytest.mark.parametrize("kind", [DCGANEncoder, JointCritic])
def test_every_weight_is_on_the_default_device_and_of_the_default_dtype(kind: type) -> None:
    with torch.device("meta"):
        assert {value.device.type for value in kind(8, 1, width=2).state_dict().values()} == {"meta"}
    torch.set_default_dtype(torch.float64)
    try:
        assert {parameter.dtype for parameter in kind(8, 1, width=2).parameters()} == {torch.float64}
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_joint_critic_judges_image_and_latent() -> None:
    critic = JointCritic(8, 1, 3, 4, generator=seeded()).eval()
    x, z = torch.randn(2, 2, 1, 8, 8, generator=seeded(1)), torch.randn(2, 2, 3, generator=seeded(2))
    first = critic(x[0], z[0])
    assert not torch.equal(first, critic(x[0], z[1]))
    assert not torch.equal(first, critic(x[1], z[0]))


@pytest.mark.parametrize(
    "model",
    [
        DCGANEncoder(28, 3, 9, 3, "layer", "leaky_relu", False),
        DCGANEncoder(8, 1, 2, 2),
        JointCritic(16, 2, 3, 2, "none"),
    ],
)
def test_build_restores_an_architecture_from_its_config(model: nn.Module) -> None:
    other = models.build(json.loads(json.dumps(model.config)))
    assert type(other) is type(model)
    assert other.config == model.config
    other.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (DCGANEncoder, "image_size", 30),
        (DCGANEncoder, "channels", 0),
        (DCGANEncoder, "outputs", 0),
        (DCGANEncoder, "width", 1.5),
        (DCGANEncoder, "norm", "instance"),
        (DCGANEncoder, "activation", "gelu"),
        (DCGANEncoder, "bias", "no"),
        (JointCritic, "latent", 0),
        (JointCritic, "norm", None),
    ],
)
def test_a_bad_argument_is_named(kind: type, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        kind(**{name: value})


def test_wrong_inputs_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, 8, 8\), got \(2, 3, 8, 8\)"):
        DCGANEncoder(8, 1, width=2)(torch.zeros(2, 3, 8, 8))
    critic = JointCritic(8, 1, 4, width=2)
    with pytest.raises(ValueError, match=r"\(B, 1, 8, 8\), got \(2, 3, 8, 8\)"):
        critic(torch.zeros(2, 3, 8, 8), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"latents must have shape \(2, 4\), got \(1, 4\)"):
        critic(torch.zeros(2, 1, 8, 8), torch.zeros(1, 4))
