"""`native`: the whole search in C++ (csrc/), for any generator that has a Program; CPU, float32.

Python cuts a block into calls, from a thread of its own, and stops what is at work where an interrupt comes. A call's
threads are PyTorch's own; where the loss is a function in Python, they are the workers of the other engines: each
calls C++, which calls the loss.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from ... import ops
from ...config import WEIGHTS
from ...core.block import Block, Cancelled
from ...core.engine import Gradients
from ...core.job import Job, Plan
from ...core.tiles import Tile
from ...core.workers import run_items
from ..batched import by_name
from .callback import OwnLoss
from .encode import encoded, unknown

CALL_SECONDS = 2.0  # of work in one call, about: progress is told between calls
CALL_BYTES = 64 * 2**20  # of results of one call, at most, but for one image's


class Native:
    name = "native"
    exact = True
    needs_program = True

    def why_not(self) -> str | None:
        return ops.load_extension()

    def refuses(self, job: Job) -> str | None:
        if job.device.type != "cpu":
            return f"it runs on the CPU, not on {job.device}"
        if job.dtype != torch.float32:
            return f"it computes in float32, not in {job.dtype}"
        return unknown(job.lowered)

    def bytes_of_pair(self, job: Job) -> int:
        """What a thread holds, and θ₀ as the kernels want it (one for all threads).

        The results of a call, at most about CALL_BYTES, are not in it.
        """
        mode, loss, steps, _ = settings(job)
        code, numbers = encoded(job.lowered)
        return sum(ops.native_bytes(code, numbers, mode, loss, steps, job.n_seed, _compact(job)))

    def default_chunk(self, job: Job) -> int:
        """A thread has one owner of weights at a time, whatever the chunk."""
        return 1

    def gradients(self, job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """See Engine.gradients."""
        own = None if job.loss.builtin else OwnLoss(job.loss, job.image_shape)
        address = own.address if own else 0
        given = arguments(job, image.unsqueeze(0), z.unsqueeze(0))._replace(own_loss=address, compact=False)
        try:
            made = ops.native_search(*given._replace(steps=0))[3]
            of_latent, *of_weights = ops.native_gradients(given)
        except RuntimeError:
            if own is not None and own.error is not None:
                raise own.error from None
            raise
        return Gradients(made[0, 0], of_latent[0], by_name(job, of_weights))

    def run(self, job: Job, plan: Plan, block: Block) -> None:
        """See Engine.run."""
        call = _Call(job, block)
        if job.loss.builtin:
            return call.search_all(plan.threads)
        # Each call has one thread; the loss is asked at every step whether to stop.
        call.size = max(1, min(call.size, len(block) * job.n_seed // (4 * plan.threads)))
        own = OwnLoss(job.loss, job.image_shape, block.check)
        with contextlib.suppress(Cancelled):
            run_items(
                lambda tile: call.search(tile, 1, own), list(call.tiles(1)), job.device, plan.threads, block.cancel
            )
        if own.error is not None:
            raise own.error


class _Call:
    """Calls of the operator for parts of a block.

    `size`: pairs to take in one, `most` of them; `stop`: not 0 once the calls are to end.
    """

    def __init__(self, job: Job, block: Block):
        self.job, self.block = job, block
        self.stop = ctypes.c_int(0)
        self.most = max(1, CALL_BYTES // (4 * (_size(job.image_shape) + _size(job.latent_shape))))
        # Before any has been timed: half of CALL_SECONDS, at a slow machine's rate.
        guess = CALL_SECONDS * 2e10 / max(1, 6 * job.lowered.multiply_adds * (job.config.steps + 1))
        self.size = max(1, min(int(guess), self.most))

    def search_all(self, threads: int) -> None:
        """Search the block from a thread of its own, so that this one hears an interrupt while C++ is at work.

        With a built-in loss: one of the caller's has workers of its own.
        """

        def work() -> None:
            for tile in self.tiles(threads):
                self.search(tile, threads)

        with ThreadPoolExecutor(1, "adgan_fast", torch.set_num_threads, (torch.get_num_threads(),)) as pool:
            try:
                pool.submit(work).result()
            except BaseException:
                self.stop.value = 1
                raise

    def tiles(self, threads: int) -> Iterator[Tile]:
        """Some starts, and all images of the block for these: their first pass is shared. By `size` as it then is."""
        n, n_seed, start = len(self.block), self.job.n_seed, 0
        while start < n_seed:
            # Each call lays θ₀ out anew: with few images, many starts make it worth while.
            many = max(threads, self.size // n // threads * threads)
            shared = self.job.config.weights == "per_sample"
            stop = n_seed if shared else min(n_seed, start + many)
            first = 0
            while first < n:
                images = max(1, self.size // (stop - start))
                if shared:  # an image for each thread
                    images = max(threads, images // threads * threads)
                last = min(n, first + images)
                yield Tile(first, last, start, stop)
                first = last
            start = stop

    def search(self, tile: Tile, threads: int, own: OwnLoss | None = None) -> None:
        """Search a tile on so many threads, and put the results into the block. Cancelled where the loss failed."""
        job, block = self.job, self.block
        starts = block.starts_of(tile)
        if block.shares_starts:
            starts = starts[0]
        before = time.monotonic()
        try:
            found = ops.native_search(
                *arguments(job, block.images_of(tile), starts)._replace(
                    threads=threads, own_loss=own.address if own else 0, stop=ctypes.addressof(self.stop)
                )
            )
        except RuntimeError:
            if own is None or own.error is None:
                raise
            raise Cancelled from None
        block.put(tile, *found)
        if own is None:
            pairs, seconds = tile.shape[0] * tile.shape[1], time.monotonic() - before
            self.size = max(1, min(int(pairs * CALL_SECONDS / max(seconds, 1e-6)), 4 * pairs, self.most))


def _size(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


def arguments(job: Job, images: torch.Tensor, starts: torch.Tensor) -> ops.SearchArguments:
    """Those of the operator for some images (N, C, H, W) and their starts."""
    program = job.lowered
    parameters = [p.detach().contiguous() for p in program.parameters]
    constants = [c.detach().to(torch.float32).contiguous() for c in program.constants]
    code, numbers = encoded(program)
    weights, loss, steps, rates = settings(job)
    return ops.SearchArguments(
        images.contiguous(), starts.contiguous(), parameters, constants, code, numbers, weights, loss, steps, rates,
        compact=_compact(job),
    )  # fmt: skip


def settings(job: Job) -> tuple[int, int, int, list[float]]:
    """weights, loss, steps and rates of the operator."""
    config = job.config
    rates = [config.lr_z, config.lr_weights, *config.betas, config.eps]
    loss = ops.NATIVE_LOSSES.index(job.loss.name if job.loss.builtin else "function")
    return WEIGHTS.index(config.weights), loss, config.steps, rates


def _compact(job: Job) -> bool:
    return job.config.precision == "bf16"
