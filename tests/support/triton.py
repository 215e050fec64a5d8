"""The Triton engine on a case, beside the reference."""

from __future__ import annotations

import copy

import torch
from torch import nn

import adgan_fast
from adgan_fast import SearchResult
from adgan_fast.core.job import Job
from adgan_fast.engine import named
from adgan_fast.generator.program import Program
from adgan_fast.generator.rules import lower
from adgan_fast.testing import FLOAT32, Bound, errors, violations
from tests.support.captured import captured_once
from tests.support.generators import Case
from tests.support.jobs import make_job
from tests.support.layers import randomise

ENGINE = named("triton")


def tiny() -> Case:
    """A map of one input position and one of several, with all that is fused with a map."""
    layers = [nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh()]
    return Case(randomise(nn.Sequential(*layers), 0), (3, 1, 1), (3, 4, 4), "tiny")


TINY = tiny()


def lowered(case: Case) -> Program:
    return lower(copy.deepcopy(case.module).eval(), case.latent_shape)


def job_of_tiny(device: str = "cpu", **settings) -> Job:
    return make_job(TINY, lowered(TINY), device, engine="triton", **settings)


def search(
    case: Case, device: torch.device, n: int = 1, images: torch.Tensor | None = None, **settings
) -> SearchResult:
    """By the Triton engine; results on the CPU."""
    images = case.images(n) if images is None else images
    settings = {"n_seed": 2, "steps": 2, "latent_shape": case.latent_shape, "verify": False, **settings}
    with captured_once(case.module):
        return adgan_fast.search(case.module, images, engine="triton", device=device, **settings)


def reference(case: Case, n: int = 1, images: torch.Tensor | None = None, **settings) -> SearchResult:
    """In float64."""
    images = case.images(n) if images is None else images
    settings = {"n_seed": 2, "steps": 2, "latent_shape": case.latent_shape, **settings}
    return adgan_fast.search(case.double(), images, engine="reference", **settings)


def assert_agrees(case: Case, device: torch.device, bound: Bound = FLOAT32, n: int = 1, **settings) -> SearchResult:
    found = search(case, device, n, **settings)
    settings.pop("precision", None)
    settings.pop("chunk", None)
    want = reference(case, n, **settings)
    wrong = violations(found, want, bound)
    assert not wrong, "; ".join(wrong)
    assert not errors(found, want).flipped  # the rule asks it of float32 alone
    assert found.engine == "triton"
    tolerance = 1e-3 if bound is FLOAT32 else 0.1
    torch.testing.assert_close(found.latents.double(), want.latents, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.reconstructions.double(), want.reconstructions, rtol=tolerance, atol=tolerance)
    return found
