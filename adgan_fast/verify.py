"""Engines check themselves: before its first use on a generator an engine is held to the caller's own module.

Tests show that an engine is right for the generators that their authors thought of. This check is for all others: the
engine's output and gradients against the module's own by autograd in float64, then two whole pairs against `reference`
by the rule of testing.py. Latents and image come from a fixed key, never from the caller's images, so that the choice
of an engine does not depend on these. A miss is looked at again on 16 pairs before it counts.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from . import plan
from .engines import Block, Engine, Gradients, Job, Reference
from .losses import Loss
from .precision import arithmetic
from .starts import Starts, draw, uniforms
from .testing import PLAIN, Losses, bound_of, violations
from .working_copy import working_copy

log = logging.getLogger("adgan_fast")

PAIRS, AGAIN = 2, 16
"""Pairs that are looked at, and where they miss, before an engine is refused."""
STEPS = 5
"""Steps of these pairs, at most: what a step may do wrong shows in the first ones, and rounding grows with them."""
GRADIENT, FLOOR = 1e-3, 1e-6
"""How far a gradient may be off in rms: by a share of its own rms, and by one of the rms of all of them together."""
KEY = 0x5EED
"""Of the latents and images that are looked at."""
MOST_KEPT = 256  # verdicts

_verdicts: dict[tuple[Any, ...], str | None] = {}


def verdict(engine: Engine, job: Job) -> str | None:
    """Why `engine` is not to be trusted with this job, with the figures; None where it agrees with the module.

    The answer is kept for the process, by engine, generator (its code, weights and output) and settings.
    """
    if not job.config.verify or engine.name == Reference.name:
        return None
    key = _key(engine, job)
    if key not in _verdicts:
        began = time.perf_counter()
        found = _look(engine, job)
        log.info(
            "engine %r %s (%.2f s)", engine.name, found or "agrees with the generator", time.perf_counter() - began
        )
        while len(_verdicts) >= MOST_KEPT:
            _verdicts.pop(next(iter(_verdicts)))
        _verdicts[key] = found
    return _verdicts[key]


def _key(engine: Engine, job: Job) -> tuple[Any, ...]:
    """What a verdict holds for. The weights count by their sums, the code by its class and what it makes of a latent."""
    module, config = job.module, job.config
    with torch.no_grad():
        made = module(job.probes[:1].clone())
    weights = tuple((name, tuple(w.shape), float(w.detach().double().sum())) for name, w in module.named_parameters())
    loss = config.loss if isinstance(config.loss, str) else id(config.loss)
    settings = (
        config.weights,
        loss,
        min(config.steps, STEPS),
        config.lr_z,
        config.lr_weights,
        config.betas,
        config.eps,
    )
    return (
        engine.name, type(engine), type(module), weights, made.cpu().numpy().tobytes(), settings, config.precision,
        config.steps > STEPS, job.latent_shape, job.image_shape, job.dtype, str(job.device),
        job.config.loss if loss == id(config.loss) else None,  # held, so that its id stays its own
    )  # fmt: skip


def _look(engine: Engine, job: Job) -> str | None:
    """The check itself."""
    for check in (_gradients, _pairs):
        missed = check(engine, job, PAIRS)
        if missed and (missed := check(engine, job, AGAIN)):
            return f"disagrees with the generator: {missed}"
    return None


# -- output and gradients -------------------------------------------------------------------------------------------


def _gradients(engine: Engine, job: Job, count: int) -> str:
    """What is wrong with the engine's output or gradients at most of `count` latents, or ""."""
    exact, plain = _Oracle(job), _Oracle(job, job.dtype)
    image = _images(job, 1)[0]
    misses: list[str] = []
    for z in _latents(job, count):
        with arithmetic(job.config.precision):
            found = engine.gradients(job, image, z)
        wrong = _furthest(found, exact.gradients(image, z), plain.gradients(image, z))
        misses += [wrong] if wrong else []
    return misses[0] if 2 * len(misses) > count else ""


def _furthest(found: Gradients, wanted: Gradients, plain: Gradients) -> str:
    """The tensor that is furthest beyond its bound, in words, or ""."""
    everything = torch.cat([g.double().flatten() for g in (wanted.of_latent, *wanted.of_weights.values())])
    floor = FLOOR * float(everything.square().mean().sqrt())
    rows = [("its output", found.image, wanted.image, plain.image, 0.0)]
    rows += [("the gradient of the latent", found.of_latent, wanted.of_latent, plain.of_latent, floor)]
    for name, gradient in wanted.of_weights.items():
        mine = found.of_weights.get(name)
        mine = torch.zeros_like(gradient) if mine is None else mine
        rows.append((f"the gradient of {name}", mine, gradient, plain.of_weights[name], floor))
    none = torch.zeros(1)
    for name, gradient in found.of_weights.items():
        if name not in wanted.of_weights:  # where the module has none
            rows.append(
                (f"the gradient of {name}", gradient, none.expand_as(gradient), none.expand_as(gradient), floor)
            )
    worst, words = 1.0, ""
    for what, mine, right, loop, least in rows:
        off, size = _rms(mine, right), _rms(right)
        allowed = max(GRADIENT * size + least, PLAIN * _rms(loop, right))
        if not off <= worst * allowed:  # NaN is beyond every bound
            worst, words = off / allowed if off == off and allowed else float("inf"), (
                f"{what} is off by {off / size if size else off:.1e} of its size, {allowed / size if size else 0:.0e} "
                "is allowed"
            )  # fmt: skip
    return words


def _rms(a: torch.Tensor, b: torch.Tensor | None = None) -> float:
    a = a.detach().double().cpu()
    return float((a if b is None else a - b.detach().double().cpu()).square().mean().sqrt()) if a.numel() else 0.0


# -- whole pairs ----------------------------------------------------------------------------------------------------


def _pairs(engine: Engine, job: Job, count: int) -> str:
    """How whole searches break the rule of agreement, or ""."""
    images, starts = (1, count) if job.config.weights == "per_sample" else (2, count // 2)
    small = _small(job, images, starts)
    shown = _images(job, images)
    exact = _Oracle(small).search(shown)
    if not bool(torch.isfinite(exact.final).all()):
        log.info("engine %r: pairs are not compared, since the search of the float64 reference diverges", engine.name)
        return ""
    precision = "float64" if job.dtype == torch.float64 else job.config.precision
    missed = violations(
        _searched(engine, small, shown), exact, precision, lambda: _Oracle(small, job.dtype).search(shown)
    )
    return "; ".join(missed)


def _small(job: Job, images: int, starts: int) -> Job:
    """The job with so many images, and as many starts of the fixed key for each."""
    return _with_starts(job, _latents(job, images * starts).reshape(images, starts, *job.latent_shape))


def _with_starts(job: Job, starts: torch.Tensor) -> Job:
    """The job with these starts (N, S, *latent), in their dtype; no more than STEPS steps."""
    config = job.config.replace(starts=starts, steps=min(job.config.steps, STEPS), chunk=None, progress=False)
    given = Starts(
        starts, seed=0, prior=config.prior, n_seed=starts.shape[1], latent_shape=job.latent_shape,
        n_images=len(starts), device=job.device, dtype=starts.dtype,
    )  # fmt: skip
    return dataclasses.replace(job, config=config, starts=given, dtype=starts.dtype)


def _searched(engine: Engine, job: Job, images: torch.Tensor) -> Losses:
    """Losses of a small job: one block, with nothing kept of it but these."""
    job = plan.planned(engine, job, len(images))
    block = Block(job, images, 0, ["losses"], lambda pairs: None)
    with arithmetic(job.config.precision):
        plan.run(engine, job, block)
    return Losses(block.results["initial_losses"], block.results["losses"])


class _Oracle:
    """`reference` on the caller's own module: in float64 where the module runs in it, or in another dtype."""

    def __init__(self, job: Job, dtype: torch.dtype = torch.float64) -> None:
        module = working_copy(job.module, dtype=dtype)
        if dtype != job.dtype:
            try:
                with torch.no_grad():
                    module(job.probes[:1].to(dtype, copy=True))
            except (RuntimeError, TypeError, ValueError) as error:
                log.info("the generator is compared in %s, since it does not run in %s: %s", job.dtype, dtype, error)
                dtype, module = job.dtype, working_copy(job.module)
        self._dtype = dtype
        loss = job.loss if job.loss.builtin else Loss(_in_dtype(job.loss, job.dtype), job.loss.name)
        config = job.config.replace(precision="float32")
        self._job = dataclasses.replace(job, module=module, config=config, loss=loss, dtype=dtype)

    def search(self, images: torch.Tensor) -> Losses:
        """Losses of the job's own starts."""
        starts = self._job.starts.of_images(list(range(len(images)))).to(self._dtype)
        return _searched(Reference(), _with_starts(self._job, starts), images.to(self._dtype))

    def gradients(self, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """By autograd, of the loss of one pair."""
        return Reference().gradients(self._job, image.to(self._dtype), z.to(self._dtype))


def _in_dtype(loss: Callable[..., torch.Tensor], dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """A caller's loss may know one dtype alone."""
    return lambda x, y: loss(x.to(dtype), y.to(dtype)).to(x.dtype)


def _latents(job: Job, count: int) -> torch.Tensor:
    return draw(KEY, None, count, job.latent_shape, job.config.prior).to(job.device, job.dtype)


def _images(job: Job, count: int) -> torch.Tensor:
    size = torch.Size(job.image_shape).numel()
    noise = torch.from_numpy(2 * uniforms(KEY + 1, None, count, size) - 1)
    return noise.reshape(count, *job.image_shape).to(job.device, job.dtype)
