"""`grouped`: the whole search as batched matrix products, for any generator that has a Program; CPU or GPU.

The savings that need no kernel of their own are all here: the first forward belongs to the start alone and is done
once for all images of a block; the first Adam step reads the shared θ₀ and no moments, the last writes none.
On a CPU each thread works on chunks of its own, with every operation inside on one thread: so the pairs of a chunk
stay in that core's cache, and no result depends on the number of threads.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch

from .. import ops
from ..core.engine import Gradients
from ..core.job import Block, Job
from ..core.tiles import Tile, images_of, layout, on_cpu, runs_of_tiles, starts_of
from ..core.workers import run_items
from ..generator.program import Program
from . import batched
from .loading import load_kernels

# Bytes in use by a thread on a CPU, measured (docs/performance.md): private weights are to stay in cache, while the
# rows of a dense product gain by their number.
CACHE = {"per_seed": 16 << 20, "per_sample": 16 << 20, "frozen": 128 << 20}


class Grouped:
    name = "grouped"
    exact = True
    needs_program = True

    def why_not(self) -> str | None:
        return None

    def refuses(self, job: Job) -> str | None:
        return None

    def bytes_of_pair(self, job: Job) -> int:
        """θ, m, v and dW of each owner of weights; activations kept for the backward pass, and columns, of each row."""
        program = job.lowered
        size = torch.empty((), dtype=job.dtype).element_size()
        owners = 0 if job.config.weights == "frozen" else 4 * program.parameter_count
        rows = job.n_seed if job.config.weights == "per_sample" else 1
        return size * (owners + rows * (3 * program.activation_count + 3 * batched.widest(program)))

    def default_chunk(self, job: Job) -> int:
        """Measured on a CPU (docs/performance.md); on a GPU a guess, not measured yet."""
        if job.device.type == "cpu":
            return on_cpu(job, self.bytes_of_pair(job), CACHE[job.config.weights])
        return 8 if job.config.weights == "per_sample" else 512

    def gradients(self, job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """See Engine.gradients."""
        return batched.gradients(job, image, z)

    def run(self, job: Job, block: Block) -> None:
        """See Engine.run."""
        load_kernels(job.device)
        spare: Spare = defaultdict(list)
        runs = runs_of_tiles(job, len(block.images), job.chunk)
        run_items(lambda run: _search(job, block, run, spare), runs, job.device, job.lanes, block.cancel)


def _search(job: Job, block: Block, run: list[Tile], spare: Spare) -> None:
    """Search tiles that have the same starts; those of one layout share the first forward."""
    first_pass: _Pass | None = None
    for tile in run:
        shape = layout(job, tile)
        if first_pass is None or first_pass.layout != shape:
            first_pass = _Pass(job, job.lowered, starts_of(job, block, tile))
        try:
            state = spare[shape].pop()
        except IndexError:
            state = _State.like(first_pass.leaves)
        initial, final, latents, reconstructions = first_pass.search(images_of(job, block, tile), state)
        block.put(tile.first, tile.start, initial, final, latents, reconstructions, tile.shape)
        spare[shape].append(state)


class _State(NamedTuple):
    """What Adam changes: latents and private weights (G, ...), and their moments."""

    values: list[torch.Tensor]
    moments: list[torch.Tensor]
    squares: list[torch.Tensor]

    @staticmethod
    def like(leaves: list[torch.Tensor]) -> _State:
        """Uninitialised."""
        return _State(*([leaf.new_empty(leaf.shape) for leaf in leaves] for _ in range(3)))


Spare = dict[tuple[int, int], list[_State]]
"""States by layout that no thread uses now: taking new memory for each tile costs a tenth of the time."""


class _Pass:
    """The first forward of a set of starts, and the search of any images from it."""

    def __init__(self, job: Job, program: Program, starts: torch.Tensor):
        self.job, self.program = job, program
        self.layout = (starts.shape[0], starts.shape[1])
        self.theta = [theta.expand(self.layout[0], *theta.shape) for theta in program.parameters]
        self.old = [starts] if job.config.weights == "frozen" else [starts, *program.parameters]
        self.leaves = [starts, *self.theta][: len(self.old)]
        self.leaves = [leaf.detach().requires_grad_(job.config.steps > 0) for leaf in self.leaves]
        self.first = self._forward(self.leaves)

    def _forward(self, leaves: list[torch.Tensor]) -> torch.Tensor:
        return batched.forward(self.program, leaves[0], leaves[1:] or self.theta, self.program.constants)

    def search(self, images: torch.Tensor, state: _State) -> tuple[torch.Tensor, ...]:
        """Images (G, B, C, H, W) to initial and final losses, final latents, final reconstructions."""
        config, steps = self.job.config, self.job.config.steps
        lrs = [config.lr_z] + [config.lr_weights] * (len(self.leaves) - 1)
        leaves, reconstruction = self.leaves, self.first
        loss = initial = self._loss(reconstruction, images)
        for step in range(1, steps + 1):
            grads = [dw.contiguous() for dw in torch.autograd.grad(loss.sum(), leaves, retain_graph=step == 1)]
            old = self.old if step == 1 else []
            ops.adam_step_(*state, grads, old, lrs, *config.betas, config.eps, step, step == steps)
            del grads  # their memory serves the next ones
            leaves = [leaf.detach().requires_grad_(step < steps) for leaf in state.values]
            reconstruction = self._forward(leaves)
            loss = self._loss(reconstruction, images)
        return initial.detach(), loss.detach(), leaves[0].detach().clone(), reconstruction.detach()

    def _loss(self, reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return self.job.loss(reconstruction.flatten(0, 1), images.flatten(0, 1))
