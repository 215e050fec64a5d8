"""`grouped`: the whole search as batched matrix products, for any generator that has a Program; CPU or GPU.

The savings that need no kernel of their own are all here: the first forward belongs to the start alone and is done
once for all images of a block; the first Adam step reads the shared θ₀ and no moments, the last writes none.
On a CPU each thread works on chunks of its own, with every operation inside on one thread: so the pairs of a chunk
stay in that core's cache, and no result depends on the number of threads.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from ..core.block import Block
from ..core.engine import Gradients
from ..core.job import Job, Plan
from ..core.tiles import Tile, layout, on_cpu, tiles_by_starts
from ..core.workers import run_items
from . import batched
from .descent import State, descend
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
        owned = 4 * program.parameter_count if job.learns else 0
        return size * (owned + job.pairs_of_unit * (3 * program.activation_count + 3 * batched.widest(program)))

    def default_chunk(self, job: Job) -> int:
        """Measured on a CPU (docs/performance.md); on a GPU a guess, not measured yet."""
        if job.device.type == "cpu":
            return on_cpu(job, self.bytes_of_pair(job), CACHE[job.config.weights])
        return 8 if job.config.weights == "per_sample" else 512

    def gradients(self, job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """See Engine.gradients."""
        return batched.gradients(job, image, z)

    def run(self, job: Job, plan: Plan, block: Block) -> None:
        """See Engine.run."""
        load_kernels(job.device)
        spare: Spare = defaultdict(list)
        lists = tiles_by_starts(job, len(block), plan.chunk)
        run_items(lambda tiles: _search(job, block, tiles, spare), lists, job.device, plan.threads, block.cancel)


def _search(job: Job, block: Block, tiles: list[Tile], spare: Spare) -> None:
    """Search tiles that have the same starts; those of one layout share the first forward."""
    first_pass: _Pass | None = None
    for tile in tiles:
        shape = layout(job.config.weights, *tile.shape)
        if first_pass is None or first_pass.layout != shape:
            first_pass = _Pass(job, block.grouped_starts(tile))
        try:
            state = spare[shape].pop()
        except IndexError:
            state = State.like(first_pass.leaves)
        block.put(tile, *first_pass.search(block.grouped_images(tile), state))
        spare[shape].append(state)


Spare = dict[tuple[int, int], list[State]]
"""States by layout that no thread uses now: taking new memory for each tile costs a tenth of the time."""


class _Pass:
    """The first forward of a set of starts, and the search of any images from it."""

    def __init__(self, job: Job, starts: torch.Tensor):
        self.job, self.program = job, job.lowered
        self.layout = (starts.shape[0], starts.shape[1])
        self.theta = [theta.expand(self.layout[0], *theta.shape) for theta in self.program.parameters]
        self.initial = [starts, *self.program.parameters] if job.learns else [starts]
        leaves = [starts, *self.theta] if job.learns else [starts]
        self.leaves = [leaf.detach().requires_grad_(job.config.steps > 0) for leaf in leaves]
        self.first = self._forward(self.leaves)

    def _forward(self, leaves: list[torch.Tensor]) -> torch.Tensor:
        return batched.forward(self.program, leaves[0], leaves[1:] or self.theta, self.program.constants)

    def search(self, images: torch.Tensor, state: State) -> tuple[torch.Tensor, ...]:
        """Images (G, B, C, H, W) to initial and final losses, final latents, final reconstructions."""

        def gradient(leaves: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
            shared = leaves is self.leaves
            if not shared:
                leaves = [leaf.detach().requires_grad_() for leaf in leaves]
            loss = self._loss(self.first if shared else self._forward(leaves), images)
            grads = torch.autograd.grad(loss.sum(), leaves, retain_graph=shared)
            return [dw.contiguous() for dw in grads], loss.detach()

        initial, leaves = descend(self.job.config, gradient, self.leaves, self.initial, state)
        reconstruction = self.first if initial is None else self._forward(leaves)
        final = self._loss(reconstruction, images).detach()
        return final if initial is None else initial, final, leaves[0].detach().clone(), reconstruction.detach()

    def _loss(self, reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return self.job.loss(reconstruction.flatten(0, 1), images.flatten(0, 1))
