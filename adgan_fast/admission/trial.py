"""What an engine is tried by on a machine: small generators, pairs by the rule of agreement, and bits.

Whole pairs of 2 images × 4 starts are held to `reference` in float64, as by verify.py. Then images that come again and
again, in another order, have to get the same bits in every tile of a search: launched kernel by kernel and, where the
engine records CUDA graphs, replayed, twice; and all of it again in memory that is NaN where nothing has been written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .. import verify
from ..config import SearchConfig
from ..core import ambient
from ..core.block import Block
from ..core.engine import Engine
from ..core.job import Job, Plan
from ..core.losses import Loss
from ..core.precision import arithmetic
from ..core.starts import Starts, draw
from ..engine.triton.engine import LEAST_REPLAYED, Triton
from ..generator.rules import lower
from ..generator.working_copy import working_copy
from ..models import DCGANGenerator

IMAGES, STARTS = 2, 4
ORDER = (0, 1) + (1, 0, 0, 1) * (LEAST_REPLAYED // 2)
"""The images of a longer search, in tiles of two: one that is launched, and as many as graphs are recorded for."""
KEY = 6
"""Of the generators' weights: by this one none of the first pairs is within rounding of another turn, be it by a ReLU's
corner or a gradient's sign. Moved by 2e-7 of themselves, weights and images move d by 2e-6 of its rms."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A generator that an engine is tried on: what makes it, and the number of steps that it is searched with."""

    make: Callable[[], nn.Module]
    latent: int
    image_shape: tuple[int, int, int]
    steps: int = 5


def dcgan() -> nn.Module:
    """The paper's in small: a map of one position, one whose moments are rebuilt, one that is not lifted."""
    return DCGANGenerator(16, 3, 64, 64)


class Attention(nn.Module):
    """Each position (B, C, H, W) and the mean of all, weighted by the softmax of products of two of their maps."""

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (each.flatten(2) for each in (self.query(x), self.key(x), x))
        weights = torch.softmax(query.mT @ key / x.shape[1] ** 0.5, -1)
        return x + (value @ weights.mT).reshape(x.shape)


def convolutional() -> nn.Module:
    """A linear layer, a norm of rows, attention, and convolutions of many positions, whose moments are stored."""
    return nn.Sequential(
        nn.Linear(64, 256), nn.Unflatten(1, (16, 4, 4)), nn.GroupNorm(4, 16), nn.SiLU(), Attention(16),
        nn.Upsample(scale_factor=2), nn.Conv2d(16, 32, 3, padding=1), nn.SiLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(32, 16, 3, padding=1), nn.SiLU(),
        nn.Conv2d(16, 3, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


SUBJECTS = {
    "a DCGAN": Subject(dcgan, 64, (3, 16, 16)),
    "convolutions": Subject(convolutional, 64, (3, 16, 16)),
}


def wrong_and_note(engine: Engine, precision: str, weights: str, device: torch.device) -> tuple[str, str]:
    """What is wrong with an engine on `device`, with the figures, and what could not be tried; each "" if nothing.

    Within a search's hold of the process (`workers.search_here`): settings that all threads share are changed.
    """
    notes = []
    with ambient.neutral(device):
        for name, subject in SUBJECTS.items():
            job = job_of(subject, engine, precision, weights, device)
            missed, note = verify.disagreement(engine, job, IMAGES * STARTS), ""
            if not missed:
                missed, note = _bits(engine, job)
            if missed:
                return f"{name}: {missed}", ""
            notes += [note] if note else []
    return "", notes[0] if notes else ""


def any_job(engine: Engine, precision: str, weights: str, device: torch.device) -> Job:
    """One of the searches, to ask the engine whether it refuses what they have in common."""
    with ambient.neutral(device):
        return job_of(next(iter(SUBJECTS.values())), engine, precision, weights, device)


def job_of(subject: Subject, engine: Engine, precision: str, weights: str, device: torch.device) -> Job:
    """The search of ORDER's images by a subject; its weights have the same bits on every machine."""
    config = SearchConfig(
        n_seed=STARTS, steps=subject.steps, engine=engine.name,
        precision=precision, weights=weights,  # type: ignore[arg-type]
    )  # fmt: skip
    shape = (subject.latent,)
    module = working_copy(drawn(subject.make()), device)
    starts = Starts(config, shape, device=device, dtype=torch.float32)
    probes = draw(KEY, None, 2, shape, config.prior).to(device, torch.float32)
    return Job(
        module, lower(module, shape), "", config, Loss(config.loss), starts, probes, shape, subject.image_shape, device,
        torch.float32,
    )  # fmt: skip


def drawn(module: nn.Module) -> nn.Module:
    """Its weights and statistics from KEY, so that signals neither die out nor grow; returns it."""
    with torch.no_grad():
        for number, (name, tensor) in enumerate(module.state_dict().items()):
            if not tensor.is_floating_point():
                continue
            normal = draw(KEY + 1 + number, None, 1, tuple(tensor.shape), "normal")[0]
            if tensor.dim() > 1:  # Glorot and Bengio 2010, by √2 for what activations take away
                normal *= 2 / math.sqrt((tensor.shape[0] + tensor.shape[1]) * math.prod(tensor.shape[2:]))
            else:
                normal = 0.2 * normal + name.endswith(("weight", "running_var"))
            tensor.copy_(normal)
    return module


def _bits(engine: Engine, job: Job) -> tuple[str, str]:
    """On what a result depends and must not, or ""; and what could not be tried."""
    images = draw(KEY - 1, None, IMAGES, job.image_shape, "uniform").to(job.device, job.dtype)
    order = torch.tensor(ORDER, device=job.device)
    wanted, note = _searched(next(iter(_ways(engine).values())), job, images), ""
    for memory, context in (("", contextlib.nullcontext), (" with memory full of NaN", filled_with_nan)):
        with context():
            for what, way in _ways(engine).items():
                found = _searched(way, job, images[order])
                for name, of_first in wanted.items():
                    right = of_first[order]
                    if not torch.equal(found[name], right):
                        off = float((found[name] - right).abs().max())
                        return (
                            f"{what}{memory}, {name} are not those of the first tile to the bit, but off by {off:.1e}",
                            "",
                        )
                if isinstance(way, Triton) and way.graphs and not way.replays:
                    note = "without CUDA graphs, which could not be recorded"
    return "", note


def _ways(engine: Engine) -> Mapping[str, Engine]:
    """The engine as it launches, first, and as it replays what it has recorded, where it does."""
    if not isinstance(engine, Triton):
        return {"launched": engine, "launched again": engine}
    replaying = type(engine)(graphs=engine.graphs)
    return {"launched": type(engine)(graphs=False), "replayed": replaying, "replayed again": replaying}


def _searched(engine: Engine, job: Job, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """All that a search finds for these images, in tiles of IMAGES."""
    block = Block(job, images, 0, ["latents", "reconstructions"], lambda pairs: None)
    with arithmetic(job.config.precision):
        engine.run(job, Plan(IMAGES * STARTS // job.pairs_of_unit), block)
    return block.results


@contextlib.contextmanager
def filled_with_nan() -> Iterator[None]:
    """PyTorch fills the memory of new tensors with NaN, as it does where it is asked to be deterministic."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filling = settings.fill_uninitialized_memory
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deterministic.*")  # of what has no such form: it runs all the same
        try:
            settings.fill_uninitialized_memory = True
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            settings.fill_uninitialized_memory = filling
