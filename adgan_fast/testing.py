"""The contract's rule of agreement, and a check of any engine by it on a generator of your own.

Weights move little in five steps, so a loss alone can agree while the search is broken. What is compared is the
*improvement* of each pair, d = initial loss − final loss, with the float64 `reference`. This module is where the rule
stands: the tests, the bench, the check before an engine's first use (`adgan_fast.verify`) and `python -m adgan_fast
check` take it from here.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from . import validate
from .config import LossFunction, SearchConfig
from .core.precision import permitted
from .core.starts import Starts
from .generator.look import RAISED
from .generator.working_copy import Generator, home_of, working_copy
from .result import SearchResult

__all__ = [
    "FLOAT32", "FLOAT64", "PLAIN", "REDUCED", "SIGN", "Bound", "Check", "Errors", "Losses", "bound_of", "check_engine",
    "errors", "improvement", "in_dtype", "in_float64", "violations",
]  # fmt: skip

log = logging.getLogger("adgan_fast")


@dataclasses.dataclass(frozen=True)
class Bound:
    """What an engine may be off: rms and mean abs of the error of d, both over the rms of d; and the error of a score,
    over the image's mean initial loss. `signs`: whether d must have the reference's sign as well, see SIGN."""

    rms: float
    mean: float
    score: float
    signs: bool = True

    def __mul__(self, factor: float) -> Bound:
        return Bound(self.rms * factor, self.mean * factor, self.score * factor, self.signs)


FLOAT32 = Bound(1e-3, 2e-4, 2e-5)
"""Of float32."""
REDUCED = Bound(2e-2, 2e-2, 1e-3, signs=False)
"""Of tf32, bf16 and compressed state; the contract bounds no mean of it, which its rms does."""
FLOAT64 = Bound(1e-7, 2e-8, 2e-9)
"""Of an engine that runs in float64."""
SIGN = 1e-3
"""A float32 d has the reference's sign wherever the reference's is over this share of the pair's initial loss."""
PLAIN = 3.0
"""A float32 engine may be off by so many times what the plain float32 loop is off on the same input."""


class Losses(NamedTuple):
    """Initial and final losses (N, S). In a reference NaN marks a pair that was not searched: it is left out."""

    initial: torch.Tensor
    final: torch.Tensor


Found = SearchResult | Losses | tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Errors:
    """How far losses are from the reference's.

    Attributes:
        rms, mean: of the error of d, over the rms of the reference's d.
        score: largest error of a score, over the image's mean initial loss. Where the reference knows some starts
            alone, what these contribute to the score of all S.
        flipped: pairs whose d has another sign than the reference's, which is over SIGN of the initial loss.
    """

    rms: float
    mean: float
    score: float
    flipped: int

    def __str__(self) -> str:
        flips = f", {self.flipped} signs wrong" if self.flipped else ""
        return f"d off by {self.rms:.1e} (rms) and {self.mean:.1e} (mean), score by {self.score:.1e}{flips}"


def bound_of(precision: str) -> Bound:
    """The bound of a precision: "float32", "tf32", "bf16", or "float64" for an engine that runs in it."""
    return {"float32": FLOAT32, "float64": FLOAT64}.get(precision, REDUCED)


def improvement(found: Found) -> torch.Tensor:
    """d of each pair, (N, S) float64 on the CPU."""
    initial, final = _losses(found)
    return initial - final


def errors(found: Found, reference: Found) -> Errors:
    """How far `found` is from `reference`, both (N, S)."""
    ours, theirs = _losses(found), _losses(reference)
    if ours.initial.shape != theirs.initial.shape:
        raise ValueError(f"losses of shape {tuple(ours.initial.shape)} against {tuple(theirs.initial.shape)}")
    known = ~theirs.initial.isnan()
    if not bool(known.any()):
        return Errors(0.0, 0.0, 0.0, 0)
    want, got = improvement(theirs)[known], improvement(ours)[known]
    off, scale = got - want, want.square().mean().sqrt()
    flipped = (got.sign() != want.sign()) & (want.abs() > SIGN * theirs.initial[known])
    counts = known.sum(1)
    shift = torch.where(known, ours.final - theirs.final, 0.0).sum(1).abs() / known.shape[1]
    initial = torch.where(known, theirs.initial, 0.0).sum(1) / counts.clamp(min=1)
    scores = _over(shift, initial)[counts > 0]
    return Errors(
        float(_over(off.square().mean().sqrt(), scale)),
        float(_over(off.abs().mean(), scale)),
        float("nan") if bool(scores.isnan().any()) else float(scores.max()),
        int(flipped.sum()),
    )


def violations(
    found: Found,
    reference: Found,
    precision: str | Bound = "float32",
    plain: Found | Callable[[], Found] | None = None,
) -> list[str]:
    """What about `found` breaks the rule of agreement with the float64 `reference`; nothing: [].

    Args:
        precision: what `found` was computed in, see `bound_of`; or a bound of your own.
        plain: the plain float32 loop on the same input (`reference` in float32), or a function that runs it: it is
            called only where the fixed bound is missed. An engine in float32 may be off by PLAIN times what this is.
    """
    seen = errors(found, reference)
    bound = bound_of(precision) if isinstance(precision, str) else precision
    allowed = {name: getattr(bound, name) for name in FIGURES}
    missed = _missed(seen, allowed)
    if missed and plain is not None and bound == FLOAT32:
        noise = errors(plain() if callable(plain) else plain, reference)
        for name in missed:
            relaxed = PLAIN * getattr(noise, name)
            allowed[name] = max(allowed[name], relaxed) if math.isfinite(relaxed) else allowed[name]
        missed = _missed(seen, allowed)
    wrong = [f"{FIGURES[name].format(getattr(seen, name))}, {allowed[name]:.0e} is allowed" for name in missed]
    if seen.flipped and bound.signs:
        wrong.append(f"d has another sign in {seen.flipped} pairs")
    return wrong


FIGURES = {"rms": "rms {:.1e} of d", "mean": "mean {:.1e} of d", "score": "a score is off by {:.1e}"}
"""The figures of `Errors` that a `Bound` holds, by name, in words."""


def _missed(seen: Errors, allowed: dict[str, float]) -> list[str]:
    return [name for name in FIGURES if not getattr(seen, name) <= allowed[name]]  # NaN is over every bound


def _losses(found: Found) -> Losses:
    """In float64, on the CPU."""
    initial, final = (found.initial_losses, found.losses) if isinstance(found, SearchResult) else found
    return Losses(initial.detach().double().cpu(), final.detach().double().cpu())


def _over(error: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """error / scale; no error is none, whatever the scale."""
    return torch.where(error == 0, 0.0, error / scale)


@dataclasses.dataclass(frozen=True)
class Check:
    """What `check_engine` found.

    Attributes:
        engine: its name.
        errors: against the float64 reference.
        violations: of the rule; () where the engine passes.
        bound: what the engine was held to; in float32, what the plain loop is off may excuse more.
        seconds: of the engine's own search, its first of this generator.
    """

    engine: str
    errors: Errors
    violations: tuple[str, ...]
    bound: Bound
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.violations

    def __str__(self) -> str:
        verdict = "pass" if self.passed else f"FAIL ({'; '.join(self.violations)})"
        return f"{self.engine}: {verdict}: {self.errors}"


def check_engine(
    gen: Generator,
    images: torch.Tensor | np.ndarray,
    *,
    engine: str,
    config: SearchConfig | None = None,
    **overrides: Any,
) -> Check:
    """Hold an engine to the float64 reference on a generator and images of your own, by the rule of agreement.

    All pairs are searched twice, once by `reference` in float64: give it few images, and few starts (n_seed).

    Args:
        gen, images, config, overrides: as for `adgan_fast.search`. All starts are searched, whatever `adaptive` is.
        engine: the name of an engine.

    Raises:
        ValueError: as `adgan_fast.search` does, where the engine cannot run this generator here, say.
    """
    from .api import search  # which takes the rule from here

    config = (config or SearchConfig()).replace(**overrides).replace(verify=False, adaptive=None)
    module = working_copy(gen, config.device)
    given = validate.as_images(images)
    began = time.perf_counter()
    if not len(given):
        raise ValueError("images is empty: there is nothing to compare")
    found = search(gen, given, config=config, engine=engine)
    seconds = time.perf_counter() - began
    dtype, latent = found.latents.dtype, tuple(found.latents.shape[2:])
    starts = Starts(config, latent, device=torch.device("cpu"), dtype=dtype)
    exact, most = in_float64(module, starts.of_images([0])[:, 0])
    loss = config.loss if isinstance(config.loss, str) else in_dtype(config.loss, dtype)
    plain = config.replace(latent_shape=latent, engine="reference", precision="float32", loss=loss, chunk=None)

    def reference(gen: nn.Module, dtype: torch.dtype) -> SearchResult:
        images = given if given.dtype == dtype else validate.to_range(given, found.losses.dtype).to(dtype)
        return search(gen, images, config=plain, starts=starts.of_first(len(given), dtype))

    wanted = reference(exact, most)
    precision = "float64" if dtype == torch.float64 else permitted(config).precision
    wrong = violations(found, wanted, precision, lambda: reference(module, dtype))
    return Check(engine, errors(found, wanted), tuple(wrong), bound_of(precision), seconds)


def in_float64(module: nn.Module, z: torch.Tensor) -> tuple[nn.Module, torch.dtype]:
    """A float64 copy of a working copy, to be the oracle, and its dtype.

    The module itself, with a log line, where the copy does not run on z: some make float32 tensors in forward.
    """
    exact = working_copy(module, dtype=torch.float64)
    device, dtype = home_of(module)
    latent = z.to(device, torch.float64, copy=True).requires_grad_()
    try:
        torch.autograd.grad(exact(latent.clone()).sum(), latent)
    except RAISED as error:
        log.info("the generator is compared in %s, since it does not run in float64: %s", dtype, error)
        return module, dtype
    return exact, torch.float64


def in_dtype(loss: LossFunction, dtype: torch.dtype) -> LossFunction:
    """A caller's loss for float64 oracles: it may know one dtype alone."""

    def cast(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return loss(reconstruction.to(dtype), image.to(dtype)).to(reconstruction.dtype)

    return cast
