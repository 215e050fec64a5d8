"""The native engine on a case, the reference, and the operator's arguments."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch

import adgan_fast
from adgan_fast import ops
from adgan_fast.config import LOSSES
from adgan_fast.engine.native.encode import encode, unknown
from tests.support.captured import captured_once, program_of
from tests.support.engines import WEIGHTS
from tests.support.families import FAMILIES
from tests.support.generators import Case

BEST = torch.ops.adgan_fast.native_isa.default() if ops.load_extension() is None else -1
HERE = ops.INSTRUCTION_SETS[: BEST + 1]


def run(case: Case, images: torch.Tensor, **settings) -> adgan_fast.SearchResult:
    settings = {
        "n_seed": 3,
        "steps": 4,
        "latent_shape": case.latent_shape,
        "engine": "native",
        "verify": False,
        **settings,
    }
    with captured_once(case.module):
        return adgan_fast.search(case.module, images, **settings)


def reference(case: Case, images: torch.Tensor, **settings) -> adgan_fast.SearchResult:
    double = dataclasses.replace(case, module=case.double())
    return run(double, images.double(), **{**settings, "engine": "reference"})


@cache
def taken(name: str) -> Case:
    """A family; where C++ does not take it the test is skipped, by the engine's own words."""
    case = FAMILIES[name]
    if why := unknown(program_of(case.module.eval(), case.latent_shape)):
        pytest.skip(why)
    return case


@cache
def reference_of_family(name: str, weights: str, loss: str) -> adgan_fast.SearchResult:
    case = FAMILIES[name]
    return reference(case, case.images(2), weights=weights, loss=loss)


def op_arguments(case: Case, n: int = 2, s: int = 3, weights: str = "per_seed", loss: str = "l2", steps: int = 3):
    program = program_of(case.module.eval(), case.latent_shape)
    random = torch.Generator().manual_seed(3)
    starts = torch.randn(s, *case.latent_shape, generator=random)
    return (
        case.images(n), starts, [p.detach() for p in program.parameters], list(program.constants),
        *encode(program), WEIGHTS.index(weights), LOSSES.index(loss), steps, [0.25, 5e-5, 0.5, 0.999, 1e-8],
    )  # fmt: skip


def features(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Distance of features that a small network finds."""
    random = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, reconstruction.shape[1], 3, 3, generator=random).to(reconstruction)
    found = [torch.tanh(torch.conv2d(x, kernel, padding=1)) for x in (reconstruction, image)]
    return (found[0] - found[1]).square().flatten(1).sum(1) + (reconstruction - image).abs().flatten(1).sum(1)


class Stop(Exception):
    pass
