"""Scorer: a generator made ready for the search once, and then used many times."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from . import admission, outcome, rounds, validate, verify
from .adaptive import Adaptive, Rule
from .config import SearchConfig
from .core import ambient, plan, random_state, workers
from .core.block import Block
from .core.engine import Engine
from .core.job import Job, Plan, result_shapes
from .core.losses import Loss
from .core.precision import arithmetic, permitted
from .core.residuals import WEIGHTINGS, Weighting
from .core.starts import Starts, draw
from .engine import choose, needs_program
from .generator import checks
from .generator.latent_shape import latent_shape
from .generator.program import Unlowered
from .generator.rules import lower
from .generator.working_copy import Generator, home_of, portable, working_copy
from .result import SearchResult

MAPS_BYTES = 64 << 20
"""Memory that a search with maps takes more, at most (or what one image takes): the residuals of every start."""
Images = TypeVar("Images", torch.Tensor, np.ndarray)


@dataclasses.dataclass(frozen=True)
class Part:
    """What was found for some images of a run, each tensor on their device.

    Attributes:
        tensors: those of a SearchResult that were wanted; NaN for an image that is not finite.
        finite: (n,) bool, whether the image is.
        status: (n,) int8, by the numbers of `Status`.
        lost: (n, 2), see `outcome.first_lost`.
        starts_used: (n,) int64, 0 for an image that is not finite; None where all starts of every image are.
    """

    tensors: dict[str, torch.Tensor]
    finite: torch.Tensor
    status: torch.Tensor
    lost: torch.Tensor
    starts_used: torch.Tensor | None = None


class Scorer:
    """Scores images against one generator; what depends on the generator alone is done once.

    The scorer holds a copy of the generator from the moment it is made: what is done to the caller's module afterwards
    changes no score. With its first images, or by `prepare`, it checks and captures the generator, draws the starts,
    and chooses the engine, which is compared with the generator's own module. Later images, all of the shape of the
    first ones, are searched at once. Scores have the bits of `adgan_fast.score`.

    Several may live side by side; searches take turns. It can be pickled, as its generator, its config and the name of
    the engine that was chosen, and makes itself ready anew where it is loaded. A pickle can run code: load only your
    own.

    Args:
        gen, config, overrides: as for `adgan_fast.score`.

    Raises:
        ValueError, TypeError: as `adgan_fast.score`, for what is wrong with `gen` or a setting; what the generator
            makes of latents is looked at with the first images.
    """

    def __init__(self, gen: Generator, *, config: SearchConfig | None = None, **overrides: Any) -> None:
        self.config = merged(config, overrides)
        with workers.search_here(), ambient.recording():
            self._module = working_copy(gen, self.config.device)
        self._given: Generator | None = gen  # until it has been seen that the copy does not run with its tensors
        self._job: Job | None = None
        self._engine: Engine | None = None
        self._engine_name = self.config.engine
        self._rule: Rule | None = None  # of config.adaptive
        self._range_seen = False
        self._made = (0.0, 0.0)
        self._plans: dict[tuple[int, Weighting | None], Plan] = {}  # on a GPU, by the number of images, and of maps

    def __call__(self, images: Images) -> Images:
        """Scores (N,) of images (N, C, H, W): see `adgan_fast.score`."""
        return as_given(self._run(images, ["scores"])["scores"], images)

    def search(self, images: torch.Tensor | np.ndarray, *, maps: bool | Weighting = False) -> SearchResult:
        """The whole outcome for images (N, C, H, W): see `adgan_fast.search`."""
        return self._result(self._run(images, None, weighting(maps)))

    def prepare(self, image_shape: tuple[int, ...]) -> Scorer:
        """Make ready for images (C, H, W), as the first call does otherwise; returns itself.

        Raises ValueError as `adgan_fast.score`; or where it is ready for images of another shape.
        """
        with workers.search_here(), ambient.recording():
            device, _ = home_of(self._module)
            with random_state.kept(device), ambient.recording(device):
                self._ready(tuple(image_shape))
        return self

    def to(self, device: str | torch.device, engine: str | None = None) -> Scorer:
        """A scorer of the same generator and config on another device; engine: by name, when None this one's."""
        state = self.__getstate__() | {"device": str(device), "config": self.config.replace(device=device)}
        made = Scorer.__new__(Scorer)
        made.__setstate__(state | ({"engine": engine} if engine else {}))
        return made

    def settled_by(self, adaptive: Adaptive | None) -> Scorer:
        """A scorer with this setting instead (see `SearchConfig`), ready where this one is."""
        found = Scorer.__new__(Scorer)
        found.__dict__ |= self.__dict__ | {"config": self.config.replace(adaptive=adaptive), "_plans": {}}
        if self._job is not None:
            found._job = dataclasses.replace(self._job, config=self._job.config.replace(adaptive=adaptive))
            found._rule = found._rule_of()
        return found

    @property
    def generator(self) -> nn.Module:
        """The generator that it searches, as a module on the CPU: a copy, but for its numbers where they lie there."""
        return portable(self._module)

    @property
    def job(self) -> Job | None:
        """What the engine is asked for: the generator's copy, its program, the starts; None until it is ready."""
        return self._job

    @property
    def engine(self) -> str | None:
        """Name of the engine that searches; None until it is chosen."""
        return self._engine.name if self._engine else None

    def __getstate__(self) -> dict[str, Any]:
        device, _ = home_of(self._module)
        return {
            "generator": portable(self._module), "device": str(device), "config": self.config,
            "engine": self._engine_name, "range_seen": self._range_seen,
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.config, self._engine_name, self._range_seen = state["config"], state["engine"], state["range_seen"]
        with workers.search_here(), ambient.recording():
            self._module = working_copy(state["generator"], state["device"])
        self._given = self._job = self._engine = self._rule = None
        self._plans = {}

    # -- one call --------------------------------------------------------------------------------------------------

    def _run(self, images: Any, wanted: list[str] | None, maps: Weighting | None = None) -> dict[str, torch.Tensor]:
        """Of all images of a run the tensors of a SearchResult by name, all or those wanted; with its warnings."""
        part = self.part(images, wanted, maps=maps)
        assert self._job is not None
        validate.warn_of_not_finite(part.finite)
        outcome.warn_of_diverged(part.status, part.lost, self._job)
        used = {} if part.starts_used is None else {"starts_used": part.starts_used}
        return part.tensors | {"status": part.status} | used

    def _result(self, found: dict[str, torch.Tensor]) -> SearchResult:
        assert self._engine is not None
        return SearchResult(**found, engine=self._engine.name, config=self.config)

    def part(
        self,
        images: Any,
        wanted: list[str] | None,
        first: int = 0,
        total: int | None = None,
        maps: Weighting | None = None,
    ) -> Part:
        """Search images [first, first + n) of a run of `total` (those alone, when None); without warnings of them.

        `wanted`: names of tensors of a SearchResult, all when None; maps are among them where `maps` says how to weight
        starts. Errors as for `adgan_fast.score`.
        """
        used = None
        if self.config.adaptive is not None and maps is not None:
            raise ValueError("maps are over all starts: with adaptive= search without maps")
        given = validate.as_images(images)
        total = len(given) if total is None else total
        with workers.search_here(), ambient.recording():
            finite = validate.scan(given, self.config.strict)
            device, dtype = home_of(self._module)
            with random_state.kept(device), ambient.recording(device):
                (engine, job), rule = self._ready(tuple(given.shape[1:])), self._rule
                job.starts.check_images(total)
                if len(given) and not self._range_seen:
                    self._range_seen = True
                    checks.warn_of_range(job.module, self._made, given)
                found = {
                    name: torch.empty((len(given), *shape), dtype=dtype, device=given.device)
                    for name, shape in result_shapes(job).items()
                    if (maps if name == "maps" else wanted is None or name in wanted)
                }
                lost = torch.empty((len(given), 2), dtype=torch.long, device=given.device)
                if rule is not None:
                    used = torch.zeros(len(given), dtype=torch.long, device=given.device)
                if len(given):
                    before = self._plans.get((len(given), maps)) or plan.planned(engine, job, len(given))
                    planned = _search(engine, job, before, given, first, total, found, lost, maps, rule, used)
                    # On a GPU its buffers stay, and would not count as free.
                    if device.type != "cpu" and planned == before:
                        self._plans[len(given), maps] = planned
        status = outcome.statuses(finite, found["scores"])
        if not bool(finite.all()):
            for tensor in found.values():
                tensor[~finite] = float("nan")
            if used is not None:
                used[~finite] = 0
        return Part(found, finite, status, lost, used)

    # -- what is done once -----------------------------------------------------------------------------------------

    def _ready(self, image_shape: tuple[int, ...]) -> tuple[Engine, Job]:
        """The engine and the job, made when they are first asked for."""
        if self._job is None:
            device, dtype = home_of(self._module)
            config = permitted(self.config.replace(engine=self._engine_name))
            job = self._captured(config, image_shape, device, dtype)
            self._engine = choose(job, distrust)
            self._job, self._given, self._engine_name = job, None, self._engine.name
            self._rule = self._rule_of()
        elif image_shape != self._job.image_shape:
            wanted = f"(N, {', '.join(map(str, self._job.image_shape))})"
            raise ValueError(
                f"images have shape (N, {', '.join(map(str, image_shape))}), but this scorer's generator makes "
                f"{wanted}: its first images were of that shape"
            )
        assert self._engine is not None
        return self._engine, self._job

    def _rule_of(self) -> Rule | None:
        assert self._engine is not None and self._job is not None
        adaptive = self.config.adaptive
        return None if adaptive is None else rounds.rule_of(self._engine, self._job, adaptive)

    def _captured(
        self, config: SearchConfig, image_shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
    ) -> Job:
        """Check the generator against the images' shape, draw the starts, capture the program."""
        module = self._module
        shape = config.latent_shape or latent_shape(module, image_shape, device, dtype)
        starts = Starts(config, shape, device=device, dtype=dtype)
        learn = config.weights != "frozen"
        probes = _probes(config, shape, device, dtype)
        seen, loss = checks.check_generator(module, probes, image_shape, learn, self._given), Loss(config.loss)
        checks.check_loss(loss, seen.image)
        self._made = checks.made_range(module, probes)
        program, unlowered = None, ""
        if needs_program(config):
            try:
                program = lower(module, shape)
            except Unlowered as error:
                unlowered = str(error)
        return Job(
            module, program, unlowered, config, loss, starts, probes[:2], shape, image_shape, device, dtype, seen=seen
        )  # fmt: skip


def as_given(scores: torch.Tensor, images: Images) -> Images:
    """Scores as an ndarray where the images are one."""
    return scores.numpy() if isinstance(images, np.ndarray) else scores


def weighting(maps: bool | Weighting) -> Weighting | None:
    """How the maps that are asked for weight the starts, None for no maps; ValueError for what says neither."""
    if maps is not False and maps is not True and maps not in WEIGHTINGS:
        raise ValueError(f"maps must be True, False, {' or '.join(map(repr, WEIGHTINGS))}, got {maps!r}")
    return ("mean" if maps is True else maps) or None


def distrust(engine: Engine, job: Job) -> str | None:
    """Why an engine that can run a job is not to be trusted: on this machine, or else with this generator."""
    return admission.verdict(engine, job) or verify.verdict(engine, job)


def merged(config: SearchConfig | None, overrides: dict[str, Any]) -> SearchConfig:
    """The settings with those by name in their place; TypeError for other names, or a config of another type."""
    config = SearchConfig() if config is None else config
    if not isinstance(config, SearchConfig):
        remedy = "; write SearchConfig(**config)" if isinstance(config, dict) else ""
        raise TypeError(f"config must be a SearchConfig, got {type(config).__name__}{remedy}")
    return config.replace(**overrides)


def _probes(config: SearchConfig, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Latents of the prior that the generator is looked at with: (LOOKS, *latent)."""
    return draw(0, None, checks.LOOKS, shape, config.prior).to(device, dtype)


def _search(
    engine: Engine,
    job: Job,
    planned: Plan,
    images: torch.Tensor,
    before: int,
    total: int,
    found: dict[str, torch.Tensor],
    lost: torch.Tensor,
    maps: Weighting | None,
    rule: Rule | None,
    used: torch.Tensor | None,
) -> Plan:
    """Fill `found`, and `lost` (n, 2), see outcome.first_lost, for images that lie `before` others of a run of `total`.

    With a `rule` also `used` (n,), the starts used.

    Block after block, so that working memory does not grow with the number of images. Returns the plan as it worked.
    """
    whole = len(images) == total  # a part of a run is shown by who has the whole
    bar = tqdm(total=len(images) * job.n_seed, unit="pair", disable=not (job.config.progress and whole))
    with bar, arithmetic(job.config.precision):
        if rule is not None and used is not None:
            for first in range(0, len(images), rounds.SPAN):
                rows = slice(first, first + rounds.SPAN)
                mine = {name: tensor[rows] for name, tensor in found.items()}
                planned = rounds.search(
                    engine, job, planned, rule, images[rows], before + first, mine, lost[rows], used[rows], bar.update
                )  # fmt: skip
            return planned
        size = plan.BLOCK_IMAGES if maps is None else _images_of_maps(job)
        for first in range(0, len(images), size):
            rows = slice(first, first + size)
            shown = validate.to_range(images[rows].to(job.device), job.dtype)
            index = before + first
            block = Block(job, shown, index, list(found), bar.update, total - index - len(shown), maps)
            planned = plan.run(engine, job, planned, block)
            results = block.results
            for name, tensor in found.items():
                tensor[rows] = results[name]
            lost[rows] = outcome.first_lost(results["initial_losses"], results["losses"])
    return planned


def _images_of_maps(job: Job) -> int:
    """Images in a block whose residuals, of every start, take MAPS_BYTES at most."""
    of_image = job.n_seed * job.image_shape[-2] * job.image_shape[-1] * job.dtype.itemsize
    return max(1, min(plan.BLOCK_IMAGES, MAPS_BYTES // of_image))
