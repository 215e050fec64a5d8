"""Engines check themselves: before its first use on a generator an engine is held to the caller's own module.

Tests show that an engine is right for the generators that their authors thought of. This check is for all others: the
engine's output and gradients against the module's own by autograd in float64, then two whole pairs against `reference`
by the rule of testing.py. Latents and image come from a fixed key, never from the caller's images, so that the choice
of an engine does not depend on these. A miss is looked at again on 16 pairs before it counts.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from typing import Any

import torch

from .core import plan
from .core.block import Block
from .core.engine import Engine, Gradients
from .core.job import Job
from .core.losses import Loss
from .core.precision import arithmetic
from .core.starts import Starts, draw
from .engine.reference import Reference
from .generator.look import first_line, sums
from .testing import PLAIN, Losses, errors, improvement, in_dtype, in_float64, violations

log = logging.getLogger("adgan_fast")

PAIRS, AGAIN = 2, 16
"""Pairs that are looked at, and where they miss, before an engine is refused."""
STRAY = 2
"""Pairs of AGAIN that do not count: now and then one takes another turn, by a gradient within rounding of zero."""
STEPS = 5
"""Steps of these pairs, at most: what a step may do wrong shows in the first ones, and rounding grows with them."""
GRADIENT, FLOOR = 1e-3, 1e-6
"""How far a gradient may be off in rms: by a share of its own rms, and by one of the rms of all of them together."""
REDUCED_GRADIENT = 5e-2
"""The same share where a GPU multiplies in TF32: its rounding of 5e-4 moves some ReLU's input across zero, and so a
gradient by about the root of that (2e-2 on an H100, a DCGAN of random weights)."""
KEY = 0x5EED
"""Of the latents and images that are looked at."""
MOST_KEPT = 256  # verdicts

_verdicts: dict[tuple[Any, ...], tuple[str | None, Any]] = {}
"""Verdicts by what they hold for; each with the loss, which is held so that its id stays its own."""


def verdict(engine: Engine, job: Job) -> str | None:
    """Why `engine` is not to be trusted with this job, with the figures; None where it agrees with the module.

    The answer is kept for the process, by engine, generator (its code, weights and output) and settings.
    """
    if not job.config.verify or engine.name == Reference.name:
        return None
    key = _key(engine, job)
    if key not in _verdicts:
        began = time.perf_counter()
        try:
            missed = disagreement(engine, job)
            found = f"disagrees with the generator: {missed}" if missed else None
        except (MemoryError, RuntimeError) as error:
            if plan.out_of_memory(error):
                log.warning("engine %r is not compared with the generator, for want of memory: %s", engine.name, error)
                return None
            found = f"fails on the generator: {first_line(error)}"
        log.info(
            "engine %r %s (%.2f s)", engine.name, found or "agrees with the generator", time.perf_counter() - began
        )
        while len(_verdicts) >= MOST_KEPT:
            _verdicts.pop(next(iter(_verdicts)))
        _verdicts[key] = (found, job.config.loss)
    return _verdicts[key][0]


def _key(engine: Engine, job: Job) -> tuple[Any, ...]:
    """What a verdict holds for.

    Weights count by their sums. Code counts by the classes and hooks in it, and by what it makes of a latent, forward
    and backward.
    """
    module, config, seen = job.module, job.config, job.seen
    code = tuple(
        (name, type(layer), *(len(hooks) for held, hooks in vars(layer).items() if held.endswith("_hooks") and hooks))
        for name, layer in module.named_modules()
    )
    weights = tuple((name, tuple(w.shape), str(sums(w))) for name, w in module.named_parameters())
    made = (_bytes(seen.image), _bytes(seen.of_latent), str(seen.of_weights)) if seen else ()
    loss: Any = config.loss
    if not isinstance(loss, str):  # a method is another object at each look at it
        loss = (id(getattr(loss, "__self__", loss)), id(getattr(loss, "__func__", loss)))
    settings = (config.weights, loss, config.steps, config.lr_z, config.lr_weights, config.betas, config.eps)
    return (
        engine.name, type(engine), code, weights, made, settings, config.precision, config.prior,
        job.latent_shape, job.image_shape, job.dtype, str(job.device),
    )  # fmt: skip


def _bytes(tensor: torch.Tensor | None) -> bytes:
    return b"" if tensor is None else tensor.detach().double().cpu().numpy().tobytes()


def disagreement(engine: Engine, job: Job, pairs: int = PAIRS) -> str:
    """What is wrong with the engine at one latent or on so many pairs, and again on AGAIN of them; "" for nothing."""
    for check, few in ((_gradients, 1), (_pairs, pairs)):
        missed = check(engine, job, few)
        if missed and (missed := check(engine, job, AGAIN)):
            return missed
    return ""


# -- output and gradients -------------------------------------------------------------------------------------------


def _gradients(engine: Engine, job: Job, count: int) -> str:
    """What is wrong with the engine's output or gradients at most of `count` latents, or ""."""
    exact, image = _Oracle(job), _images(job, 1)[0]
    misses: list[str] = []
    share = REDUCED_GRADIENT if job.device.type == "cuda" and job.config.precision != "float32" else GRADIENT
    for z in _latents(job, count):
        with arithmetic(job.config.precision):
            found = engine.gradients(job, image, z)
        with arithmetic("float32"):
            wanted = exact.gradients(image, z)
        wrong = _furthest(found, wanted, share)
        if wrong and job.dtype != torch.float64:  # some generators amplify rounding, in any float32 loop
            with arithmetic("float32"):
                plain = _Oracle(job, job.dtype).gradients(image, z)
            wrong = _furthest(found, wanted, share, plain)
        misses += [wrong] if wrong else []
    return misses[0] if 2 * len(misses) > count else ""


def _furthest(found: Gradients, wanted: Gradients, share: float, plain: Gradients | None = None) -> str:
    """The tensor furthest beyond its bound, in words, or "".

    share: of a tensor's own rms, which its error may have; plain: the plain loop's, in the engine's dtype.
    """
    mine, right, loop = _tensors(found), _tensors(wanted), _tensors(plain) if plain else {}
    gradients = [g.double().flatten() for what, g in right.items() if what != OUTPUT]
    floor = FLOOR * _rms(torch.cat(gradients))
    worst, words = 1.0, ""
    for what, like in (mine | right).items():
        nothing = torch.zeros_like(like)  # what a gradient that is not there is
        exact = right.get(what, nothing)
        off, size = _rms(mine.get(what, nothing), exact), _rms(exact)
        allowed = share * size + (0.0 if what == OUTPUT else floor)
        if plain:
            allowed = max(allowed, PLAIN * _rms(loop.get(what, nothing), exact))
        excess = off / allowed if allowed else (0.0 if off == 0 else math.inf)
        if not excess <= worst:  # NaN is beyond every bound
            worst = math.inf if math.isnan(excess) else excess
            words = f"{what} is off by {off:.1e} (rms; its size is {size:.1e}), {allowed:.0e} is allowed"
    return words


OUTPUT = "its output"


def _tensors(found: Gradients) -> dict[str, torch.Tensor]:
    named = {f"the gradient of {name}": dw for name, dw in found.of_weights.items()}
    return {OUTPUT: found.image, "the gradient of the latent": found.of_latent, **named}


def _rms(a: torch.Tensor, b: torch.Tensor | None = None) -> float:
    a = a.detach().double().cpu()
    return float((a if b is None else a - b.detach().double().cpu()).square().mean().sqrt()) if a.numel() else 0.0


# -- whole pairs ----------------------------------------------------------------------------------------------------


def _pairs(engine: Engine, job: Job, count: int) -> str:
    """How whole searches break the rule of agreement, or ""."""
    images, starts = (1, count) if job.config.weights == "per_sample" else (2, count // 2)
    small = _small(job, images, starts)
    shown = _images(job, images)
    exact, found = _Oracle(small).search(shown), _searched(engine, small, shown)
    diverges = not bool(torch.isfinite(exact.final).all())
    if count == AGAIN:
        exact = _without_worst(exact, found)
    precision = "float64" if job.dtype == torch.float64 else job.config.precision
    if not violations(found, exact, precision):
        return ""
    plain = _Oracle(small, job.dtype).search(shown)
    if diverges or not bool(torch.isfinite(plain.final).all()):
        log.info("engine %r: pairs are not compared, since with these settings a plain search diverges", engine.name)
        return ""
    missed = violations(found, exact, precision, plain)
    if errors(plain, exact).flipped:  # float32 itself says nothing of signs here
        missed = [what for what in missed if "sign" not in what]
    return "; ".join(missed)


def _without_worst(exact: Losses, found: Losses) -> Losses:
    """The reference without the STRAY pairs that are furthest off: those it does not know are left out."""
    off = (improvement(found) - improvement(exact)).abs()
    off = torch.where(off.isnan(), torch.inf, off).flatten()
    known = torch.ones_like(off)
    known[off.topk(STRAY).indices] = torch.nan
    known = known.view(exact.initial.shape).to(exact.initial.device)
    return Losses(exact.initial * known, exact.final * known)


def _small(job: Job, images: int, starts: int) -> Job:
    """The job with so many images, and as many starts of the fixed key for each."""
    return _with_starts(job, _latents(job, images * starts).reshape(images, starts, *job.latent_shape))


def _with_starts(job: Job, starts: torch.Tensor) -> Job:
    """The job with these starts (N, S, *latent), in their dtype; no more than STEPS steps."""
    config = job.config.replace(starts=starts, steps=min(job.config.steps, STEPS), chunk=None, progress=False)
    given = Starts(config, job.latent_shape, device=job.device, dtype=starts.dtype)
    return dataclasses.replace(job, config=config, starts=given, dtype=starts.dtype)


def _searched(engine: Engine, job: Job, images: torch.Tensor) -> Losses:
    """Losses of a small job: one block, with nothing kept of it but these."""
    block = Block(job, images, 0, ["losses"], lambda pairs: None)
    with arithmetic(job.config.precision):
        plan.run(engine, job, plan.planned(engine, job, len(images)), block)
    return Losses(block.results["initial_losses"], block.results["losses"])


class _Oracle:
    """`reference` on the caller's own module: in float64 where the module runs in it, or in another dtype."""

    def __init__(self, job: Job, dtype: torch.dtype = torch.float64) -> None:
        module = job.module
        if dtype != job.dtype:
            module, dtype = in_float64(module, job.probes[:1])
        self._dtype = dtype
        loss = job.loss if job.loss.builtin else Loss(in_dtype(job.loss, job.dtype), job.loss.name)
        config = job.config.replace(precision="float32")
        self._job = dataclasses.replace(job, module=module, config=config, loss=loss, dtype=dtype)

    def search(self, images: torch.Tensor) -> Losses:
        """Losses of the job's own starts."""
        job = _with_starts(self._job, self._job.starts.of_first(len(images), self._dtype))
        return _searched(Reference(), job, images.to(self._dtype))

    def gradients(self, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """By autograd, of the loss of one pair."""
        return Reference().gradients(self._job, image.to(self._dtype), z.to(self._dtype))


def _latents(job: Job, count: int) -> torch.Tensor:
    return draw(KEY, None, count, job.latent_shape, job.config.prior).to(job.device, job.dtype)


def _images(job: Job, count: int) -> torch.Tensor:
    return draw(KEY + 1, None, count, job.image_shape, "uniform").to(job.device, job.dtype)
