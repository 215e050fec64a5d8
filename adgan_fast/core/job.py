"""What the api hands to an engine: a `Job`, and its images block by block (`Block`)."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import torch
from torch import nn

from ..config import SearchConfig
from ..generator.look import Look
from ..generator.program import Program
from .losses import Loss
from .starts import Starts


@dataclasses.dataclass(frozen=True)
class Job:
    """One search, ready to run.

    Attributes:
        module: the run's own copy of the generator: in eval mode, on `device`, in `dtype`; engines do not change it.
        program: the generator's Program; None where `unlowered` says why there is none, and where no engine that may be
            asked needs one.
        starts: of every image.
        probes: two latents of the prior (2, *latent), to try things on.
        config, loss: as the user asked.
        seen: what the generator made of the first probe, and its gradients there.
        chunk: pairs to compute together (images for weights="per_sample"), and lanes: chunks in work at the same time;
            as plan.py finds them.
    """

    module: nn.Module
    program: Program | None
    unlowered: str
    config: SearchConfig
    loss: Loss
    starts: Starts
    probes: torch.Tensor
    latent_shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    chunk: int = 1
    lanes: int = 1
    seen: Look | None = None

    @property
    def n_seed(self) -> int:
        return self.starts.n_seed

    @property
    def pairs_of_unit(self) -> int:
        """Pairs in a unit of `chunk`: the starts of an image where they share weights, else one."""
        return self.n_seed if self.config.weights == "per_sample" else 1

    @property
    def learns(self) -> bool:
        """Whether weights move, not the latents alone."""
        return self.config.weights != "frozen"

    @property
    def lowered(self) -> Program:
        """The program, for engines with `needs_program`: they run no job without one."""
        assert self.program is not None, "the choice of an engine comes first"
        return self.program


def result_shapes(job: Job, everything: bool) -> dict[str, tuple[int, ...]]:
    """The tensors of a SearchResult, and their shapes for one image; the scores alone unless `everything`."""
    shapes: dict[str, tuple[int, ...]] = {"scores": ()}
    if everything:
        shapes |= {"losses": (job.n_seed,), "initial_losses": (job.n_seed,)}
        shapes |= {"latents": (job.n_seed, *job.latent_shape), "reconstructions": job.image_shape}
    return shapes


class Cancelled(Exception):
    """Work on a block has been called off."""


class Block:
    """Some images in a row and, filled in tile by tile, what was found for them.

    images: (n, C, H, W) on the job's device, in its dtype; `first` is the index of the first in the whole run.
    `wanted` names the tensors of a SearchResult to keep. Tiles may be put from several threads.
    """

    def __init__(self, job: Job, images: torch.Tensor, first: int, wanted: list[str], advance: Callable[[int], object]):
        n, n_seed = len(images), job.n_seed
        self.images, self.first = images, first
        self._initial, self._final = images.new_empty((n, n_seed)), images.new_empty((n, n_seed))
        self._latents = images.new_empty((n, n_seed, *job.latent_shape)) if "latents" in wanted else None
        self._reconstructions = torch.full_like(images, float("nan")) if "reconstructions" in wanted else None
        self._advance, self._lock = advance, threading.Lock()
        self._cancelled, self._done = False, 0
        self.restart()

    def restart(self) -> None:
        """Forget what was put; the next run begins anew."""
        self._initial.fill_(float("nan"))
        self._final.fill_(float("nan"))
        self._best = self.images.new_full((len(self.images),), float("inf"))
        self._best_start = torch.full_like(self._best, self._final.shape[1], dtype=torch.long)
        self._advance(-self._done)
        self._cancelled, self._done = False, 0

    def cancel(self) -> None:
        """Have every later `put` or `check` raise Cancelled, so that threads at work on the block stop soon."""
        self._cancelled = True

    def check(self) -> None:
        """Raise Cancelled if the work has been called off."""
        if self._cancelled:
            raise Cancelled

    @property
    def results(self) -> dict[str, torch.Tensor]:
        """The tensors of a SearchResult for these images, those wanted and those at hand anyway."""
        found = {"scores": self._final.mean(1), "losses": self._final, "initial_losses": self._initial}
        if self._latents is not None:
            found["latents"] = self._latents
        if self._reconstructions is not None:
            found["reconstructions"] = self._reconstructions
        return found

    @property
    def indices(self) -> list[int]:
        """Indices of the images in the whole run."""
        return list(range(self.first, self.first + len(self.images)))

    def put(
        self,
        image: int,
        start: int,
        initial: torch.Tensor,
        final: torch.Tensor,
        latents: torch.Tensor,
        reconstructions: torch.Tensor,
        shape: tuple[int, int] = (1, 1),
    ) -> None:
        """Keep the results of a tile of `shape` (a, b) whose first pair is (image, start).

        Each tensor holds a·b pairs, images first, in any layout: losses (a, b), latents (a, b, *latent),
        reconstructions (a, b, C, H, W).
        """
        self.check()
        rows, columns = slice(image, image + shape[0]), slice(start, start + shape[1])
        final = final.reshape(shape)
        with self._lock:
            self._initial[rows, columns] = initial.reshape(shape)
            self._final[rows, columns] = final
            if self._latents is not None:
                self._latents[rows, columns] = latents.reshape(*shape, *self._latents.shape[2:])
            if self._reconstructions is not None:
                self._keep_best(rows, start, final, reconstructions.reshape(*shape, *self.images.shape[1:]))
            self._done += shape[0] * shape[1]
            self._advance(shape[0] * shape[1])

    def _keep_best(self, rows: slice, start: int, final: torch.Tensor, reconstructions: torch.Tensor) -> None:
        """The lowest final loss of each image, the first start of equals, in whatever order tiles come; NaN is none."""
        assert self._reconstructions is not None
        best, where = torch.where(final.isnan(), float("inf"), final).min(1)
        where_start = where + start
        old, old_start = self._best[rows], self._best_start[rows]
        better = (best < old) | ((best == old) & (where_start < old_start))
        chosen = reconstructions[torch.arange(len(final), device=final.device), where]
        self._reconstructions[rows] = torch.where(better[:, None, None, None], chosen, self._reconstructions[rows])
        self._best[rows] = torch.where(better, best, old)
        self._best_start[rows] = torch.where(better, where_start, old_start)
