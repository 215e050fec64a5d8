"""A search as an engine is asked for it."""

from __future__ import annotations

import torch

from adgan_fast import SearchConfig
from adgan_fast.core.job import Job
from adgan_fast.core.losses import Loss
from adgan_fast.core.starts import Starts
from adgan_fast.generator.program import Program
from tests.support.generators import Case


def make_job(case: Case, program: Program | None = None, device: str = "cpu", n_seed: int = 4, **settings) -> Job:
    """Of one image; nothing is on `device` yet."""
    config = SearchConfig(n_seed=n_seed, **settings)
    starts = Starts(config, case.latent_shape, device=torch.device("cpu"), dtype=torch.float32)
    return Job(
        case.module, program, "", config, Loss(config.loss), starts, torch.zeros(2, *case.latent_shape),
        case.latent_shape, case.image_shape, torch.device(device), torch.float32,
    )  # fmt: skip
