"""Some images of a job, and what is found for them (`Block`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch

from .job import Job
from .residuals import Weighting, mean_over_starts, residual
from .tiles import Tile, layout


class Cancelled(Exception):
    """Work on a block has been called off."""


class Block:
    """Some images and, filled in tile by tile, what was found for them.

    It hands out what a tile of it needs, and takes what was found for the tile; from several threads as well.

    Args:
        job: whose starts these images are searched from.
        images: (n, C, H, W) on the job's device, in its dtype.
        first: index of the first in the whole run; or of each of them, where they do not lie in a row there.
        wanted: names of the tensors of a SearchResult to keep.
        advance: called with the number of pairs that were put.
        later: images of the run after these.
        maps: how maps weight the starts, where they are wanted; they take n · S · H · W numbers meanwhile.
    """

    def __init__(
        self,
        job: Job,
        images: torch.Tensor,
        first: int | Sequence[int],
        wanted: list[str],
        advance: Callable[[int], object],
        later: int = 0,
        maps: Weighting | None = None,
    ):
        n, n_seed = len(images), job.n_seed
        self.later = later
        self._images, self._starts, self._weights = images, job.starts, job.config.weights
        self._indices = range(first, first + n) if isinstance(first, int) else first
        self._initial, self._final = images.new_empty((n, n_seed)), images.new_empty((n, n_seed))
        self._latents = images.new_empty((n, n_seed, *job.latent_shape)) if "latents" in wanted else None
        self._reconstructions = torch.full_like(images, float("nan")) if "reconstructions" in wanted else None
        # Of every start, so that their mean has one order of summation, in whatever order tiles come.
        self._residuals = images.new_empty((n, n_seed, *images.shape[2:])) if maps else None
        self._maps, self._loss = maps, job.config.loss
        self._advance, self._lock = advance, threading.Lock()
        self._cancelled, self._done = False, 0
        self.restart()

    def __len__(self) -> int:
        """Images."""
        return len(self._images)

    # -- what a tile needs ---------------------------------------------------------------------------------------

    def images_of(self, tile: Tile) -> torch.Tensor:
        """The images of a tile: (images, C, H, W)."""
        return self._images[tile.first : tile.last]

    @property
    def shares_starts(self) -> bool:
        """Whether the starts of all images are the same."""
        return self._starts.common is not None

    def starts_of(self, tile: Tile) -> torch.Tensor:
        """The starts of a tile: (images, starts, *latent); of stride 0 over the images where these share them."""
        return self._starts.of_images(list(self._indices[tile.first : tile.last]), tile.start, tile.stop)

    def grouped_images(self, tile: Tile) -> torch.Tensor:
        """The image of each pair of a tile, by who owns weights (see tiles.layout): (G, B, C, H, W)."""
        images = self.images_of(tile)
        spread = images.unsqueeze(1).expand(*tile.shape, *images.shape[1:])
        return spread.reshape(*layout(self._weights, *tile.shape), *images.shape[1:])

    def grouped_starts(self, tile: Tile) -> torch.Tensor:
        """The start of each pair of a tile, likewise: (G, B, *latent), a copy."""
        starts = self.starts_of(tile)
        rows = starts.reshape(*layout(self._weights, *tile.shape), *starts.shape[2:])
        return rows.clone(memory_format=torch.contiguous_format)

    # -- what was found ------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Forget what was put; the next run begins anew."""
        self._initial.fill_(float("nan"))
        self._final.fill_(float("nan"))
        self._best = self._images.new_full((len(self._images),), float("inf"))
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
        if self._residuals is not None and self._maps is not None:
            found["maps"] = mean_over_starts(self._residuals, self._final, self._maps)
        return found

    def put(
        self,
        tile: Tile,
        initial: torch.Tensor,
        final: torch.Tensor,
        latents: torch.Tensor,
        reconstructions: torch.Tensor,
    ) -> None:
        """Keep the results of a tile.

        Each tensor holds its images · starts pairs, images first, in any layout: losses (images, starts), latents
        (images, starts, *latent), reconstructions (images, starts, C, H, W).
        """
        self.check()
        rows, columns, shape = slice(tile.first, tile.last), slice(tile.start, tile.stop), tile.shape
        final = final.reshape(shape)
        with self._lock:
            self._initial[rows, columns] = initial.reshape(shape)
            self._final[rows, columns] = final
            if self._latents is not None:
                self._latents[rows, columns] = latents.reshape(*shape, *self._latents.shape[2:])
            of_pairs = reconstructions.reshape(*shape, *self._images.shape[1:])
            if self._residuals is not None:
                self._residuals[rows, columns] = residual(of_pairs, self._images[rows, None], self._loss)
            if self._reconstructions is not None:
                self._keep_best(rows, tile.start, final, of_pairs)
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
