"""The Gaussian likelihood and the centre."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from adgan_fast import models
from adgan_fast.models import Centre, GaussianLikelihood


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [0.01, 0.5, 2.0])
def test_the_likelihood_is_the_density_of_every_pixel(scale: float) -> None:
    mean, x = torch.randn(2, 3, 2, 4, 4, generator=seeded())
    likelihood = GaussianLikelihood(scale)
    torch.testing.assert_close(
        likelihood(mean, x), Normal(mean, scale).log_prob(x).sum((1, 2, 3)), rtol=1e-4, atol=1e-3
    )


def test_the_learned_scale_is_likeliest_where_it_is_the_error() -> None:
    x = 0.25 * torch.randn(500, 1, 4, 4, generator=seeded())
    at = {scale: GaussianLikelihood(scale)(torch.zeros_like(x), x).mean().item() for scale in (0.2, 0.25, 0.32)}
    assert max(at, key=at.get) == 0.25  # type: ignore[arg-type]
    likelihood = GaussianLikelihood(0.2)
    likelihood(torch.zeros_like(x), x).mean().backward()
    assert likelihood.log_variance.grad.item() > 0
    assert not GaussianLikelihood(0.2, fixed=True).log_variance.requires_grad


def test_a_perfect_reconstruction_has_a_finite_likelihood() -> None:
    likelihood = GaussianLikelihood(0.5)
    with torch.no_grad():
        likelihood.log_variance.fill_(-200.0)
    x = torch.zeros(1, 1, 8, 8)
    assert likelihood.variance.sqrt().item() == pytest.approx(1 / 127.5)
    assert torch.isfinite(likelihood(x, x)).all()


def test_the_centre_gives_squared_distances() -> None:
    centre = Centre(2)
    centre.centre.copy_(torch.tensor([1.0, -1.0]))
    assert centre(torch.tensor([[1.0, -1.0], [4.0, 3.0]])).tolist() == [0.0, 25.0]
    assert list(centre.state_dict()) == ["centre"]
    assert not list(centre.parameters())


@pytest.mark.parametrize("model", [GaussianLikelihood(0.3, True), GaussianLikelihood(), Centre(7)])
def test_build_restores_an_architecture_from_its_config(model: nn.Module) -> None:
    other = models.build(json.loads(json.dumps(model.config)))
    assert type(other) is type(model)
    assert other.config == model.config
    other.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (GaussianLikelihood, "scale", 0.0),
        (GaussianLikelihood, "scale", 0.001),
        (GaussianLikelihood, "fixed", 1),
        (Centre, "outputs", 0),
    ],
)
def test_a_bad_argument_is_named(kind: type, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        kind(**{name: value})
