"""score and search: validate → capture → plan → run → collect."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from . import admission, outcome, validate, verify
from .config import SearchConfig
from .core import ambient, plan, random_state, workers
from .core.block import Block
from .core.engine import Engine
from .core.job import Job, Plan, result_shapes
from .core.losses import Loss
from .core.precision import arithmetic, permitted
from .core.starts import Starts, draw
from .engine import choose, needs_program
from .generator import checks
from .generator.latent_shape import latent_shape
from .generator.program import Unlowered
from .generator.rules import lower
from .generator.working_copy import Generator, home_of, working_copy
from .result import SearchResult

Images = TypeVar("Images", torch.Tensor, np.ndarray)


def score(gen: Generator, images: Images, *, config: SearchConfig | None = None, **overrides: Any) -> Images:
    """Anomaly score of each image: the mean final reconstruction loss over its starts; higher is more anomalous.

    Algorithm 1 of Deecke et al. 2018. A score depends on (gen, image, config) alone.

    Args:
        gen: generator (B, *latent) → (B, C, H, W): a module, an ExportedProgram, or the path of a saved .pt2.
            It is not changed, and runs as in eval mode.
        images: (N, C, H, W), or (N, H, W) where C = 1; floats in [-1, 1], or uint8 (scaled as x / 127.5 − 1);
            tensor or ndarray.
        config: settings; fields of SearchConfig may also be given by name, and take precedence.

    Returns:
        (N,) scores, in the generator's dtype, a tensor on the images' device or an ndarray as `images` is. NaN, with a
        warning, for an image that holds NaN or Inf.

    Raises:
        ValueError: naming the field, the shapes or the range that is wrong; or an engine that cannot run this.
        TypeError: if images or gen are of another type.
        MemoryError: if not even one pair fits.
    """
    config = _config(config, overrides)
    _, found = _run(gen, images, config, everything=False)
    return found["scores"].numpy() if isinstance(images, np.ndarray) else found["scores"]


def search(gen: Generator, images: Images, *, config: SearchConfig | None = None, **overrides: Any) -> SearchResult:
    """The whole outcome of the search: losses, latents and reconstructions beside the scores.

    Arguments and errors as for `score`. Latents take N · S · latent numbers of memory.
    """
    config = _config(config, overrides)
    engine, found = _run(gen, images, config, everything=True)
    return SearchResult(**found, engine=engine, config=config)


def _config(config: SearchConfig | None, overrides: dict[str, Any]) -> SearchConfig:
    config = SearchConfig() if config is None else config
    if not isinstance(config, SearchConfig):
        remedy = "; write SearchConfig(**config)" if isinstance(config, dict) else ""
        raise TypeError(f"config must be a SearchConfig, got {type(config).__name__}{remedy}")
    return config.replace(**overrides)


def _run(gen: Generator, images: Any, config: SearchConfig, everything: bool) -> tuple[str, dict[str, torch.Tensor]]:
    """The engine's name, and the tensors of a SearchResult: of those the scores alone, unless `everything`."""
    given = validate.as_images(images)
    with workers.search_here(), ambient.recording():
        finite = validate.scan(given, config.strict)
        module = working_copy(gen, config.device)
        device, dtype = home_of(module)
        with random_state.kept(device), ambient.recording(device):
            job = _job(gen, module, device, dtype, given, permitted(config))
            engine = choose(job, _distrust)
            found = {
                name: torch.empty((len(given), *shape), dtype=dtype, device=given.device)
                for name, shape in result_shapes(job, everything).items()
            }
            lost = torch.empty((len(given), 2), dtype=torch.long, device=given.device)
            if len(given):
                _search(engine, job, plan.planned(engine, job, len(given)), given, found, lost)
    status = outcome.statuses(finite, found["scores"])
    outcome.warn_of_diverged(status, lost, type(module).__name__, job)
    if not bool(finite.all()):
        for tensor in found.values():
            tensor[~finite] = float("nan")
    if everything:
        found["status"] = status
    return engine.name, found


def _distrust(engine: Engine, job: Job) -> str | None:
    """Why an engine that can run a job is not to be trusted: on this machine, or else with this generator."""
    return admission.verdict(engine, job) or verify.verdict(engine, job)


def _job(
    gen: Generator,
    module: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    images: torch.Tensor,
    config: SearchConfig,
) -> Job:
    """Check the generator against the images, draw the starts, capture the program."""
    image_shape = tuple(images.shape[1:])
    shape = config.latent_shape or latent_shape(module, image_shape, device, dtype)
    starts = Starts(config, shape, n_images=len(images), device=device, dtype=dtype)
    learn = config.weights != "frozen"
    probes = draw(0, None, checks.LOOKS, shape, config.prior).to(device, dtype)
    seen, loss = checks.check_generator(module, probes, image_shape, learn, gen), Loss(config.loss)
    checks.check_loss(loss, seen.image)
    checks.warn_of_range(module, probes, images)
    program, unlowered = None, ""
    if needs_program(config):
        try:
            program = lower(module, shape)
        except Unlowered as error:
            unlowered = str(error)
    return Job(
        module, program, unlowered, config, loss, starts, probes[:2], shape, image_shape, device, dtype, seen=seen
    )  # fmt: skip


def _search(
    engine: Engine,
    job: Job,
    planned: Plan,
    images: torch.Tensor,
    found: dict[str, torch.Tensor],
    lost: torch.Tensor,
) -> None:
    """Fill `found`, and `lost` (N, 2): see outcome.first_lost.

    Block after block, so that working memory does not grow with the number of images.
    """
    bar = tqdm(total=len(images) * job.n_seed, unit="pair", disable=not job.config.progress)
    with bar, arithmetic(job.config.precision):
        for first in range(0, len(images), plan.BLOCK_IMAGES):
            rows = slice(first, first + plan.BLOCK_IMAGES)
            block = Block(
                job, validate.to_range(images[rows].to(job.device), job.dtype), first, list(found), bar.update
            )
            planned = plan.run(engine, job, planned, block)
            results = block.results
            for name, tensor in found.items():
                tensor[rows] = results[name]
            lost[rows] = outcome.first_lost(results["initial_losses"], results["losses"])
