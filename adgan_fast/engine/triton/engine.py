"""`triton`: the search by the Triton kernels of kernels/, on a GPU; under Triton's interpreter on the CPU, for tests.

Triton is imported when a search begins, and not before. See search.py for what is computed, lift.py for
the layers that have kernels of their own, and graph.py for CUDA graphs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ...core.block import Block
from ...core.engine import Gradients
from ...core.job import Job, Plan
from ...core.tiles import Tile, tiles_by_starts
from ...generator.look import first_line
from .. import batched
from ..loading import load_kernels

if TYPE_CHECKING:
    from .graph import Graphed
    from .search import TileResult, TileSearch

log = logging.getLogger("adgan_fast")

CHUNK = {"per_seed": 1024, "per_sample": 16, "frozen": 4096}
"""Pairs (images for per_sample) in work at once on a GPU: a guess at what fills one, not measured. SearchConfig.chunk
takes precedence."""
MOST_RECORDED = 256  # steps in a CUDA graph: kernels/adam.py keeps tables for so many at least
LEAST_REPLAYED = 4
"""Tiles that have to be left for a recording to be worth its time. A guess."""
LEAST_CAPABILITY = (8, 0)  # of an NVIDIA GPU: TF32


class Triton:
    """graphs: whether launches are recorded in CUDA graphs and replayed. Losses are the same bits either way."""

    name = "triton"
    exact = True
    needs_program = True

    def __init__(self, graphs: bool = True) -> None:
        self.graphs = graphs
        self._kept: _Kept | None = None

    @property
    def replays(self) -> bool:
        """Whether the job at hand has been recorded and is replayed."""
        return self._kept is not None and self._kept.runner.replays

    def why_not(self) -> str | None:
        # A GPU first: without one, to install Triton would help nobody.
        if not interpreting() and not torch.cuda.is_available():
            return "there is no CUDA device; it takes a GPU and a PyTorch built for it"
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed; pip install 'adgan-fast[triton]'"
        return interpreter_fault() if interpreting() else None

    def refuses(self, job: Job) -> str | None:
        if interpreting():
            if job.device.type != "cpu":
                return f"TRITON_INTERPRET=1 is set, which is for tensors on the CPU, not on {job.device}"
            if job.config.engine != self.name:
                return (
                    "TRITON_INTERPRET=1 is set, and interpreted kernels are slow: they run only when asked for by name"
                )
        elif job.device.type != "cuda":
            return f"it runs on a CUDA device, not on {job.device}"
        elif torch.version.hip is None and torch.cuda.get_device_capability(job.device) < LEAST_CAPABILITY:
            return f"{torch.cuda.get_device_name(job.device)} is older than compute capability 8.0"
        if job.dtype != torch.float32:
            return f"it computes in float32, not in {job.dtype}"
        return None

    def bytes_of_pair(self, job: Job) -> int:
        """The maps' own buffers; values, moments and two gradients of small parameters; activations and columns.

        As for grouped, with the dense activations of the first pass beside those of the step at work.
        """
        from .lift import private_map
        from .search import lifted
        from .thin import numbers_of_pair

        program, config = job.lowered, job.config
        left, chains = lifted(program, config)
        private = sum(
            private_map(chain.geometry).bytes_of_pair(chain.geometry, config.steps, config.precision)
            for chain in chains
        )
        small = program.parameter_count - sum(program.parameters[chain.parameter].numel() for chain in chains)
        owned = (5 * small if job.learns else 0) + numbers_of_pair(left)
        return private + 4 * (owned + job.pairs_of_unit * (4 * program.activation_count + 3 * batched.widest(program)))

    def default_chunk(self, job: Job) -> int:
        """See CHUNK; under the interpreter the config's own, as on a GPU."""
        if job.device.type == "cpu":
            return job.config.chunk or (1 if job.config.weights == "per_sample" else job.n_seed)
        return CHUNK[job.config.weights]

    def gradients(self, job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """See Engine.gradients: the program's. The kernels keep none of theirs; whole pairs show what those do."""
        return batched.gradients(job, image, z)

    def run(self, job: Job, plan: Plan, block: Block) -> None:
        """See Engine.run. Buffers and graphs stay for the next block of the same job and plan, and go with the job.

        A block of more images than they were made for gets new ones.
        """
        load_kernels(job.device)
        if self._kept is None or not self._kept.serves(job, plan, len(block)):
            self._kept = None  # its memory first
            runner = Runner(job, plan.chunk, len(block), self.graphs)
            self._kept = _Kept(weakref.ref(job, self._forget), plan, runner)
        try:
            self._kept.runner.run(job, block)
        except BaseException:
            self._kept = None  # memory for a smaller chunk
            raise

    def _forget(self, job: weakref.ref[Job]) -> None:
        if self._kept is not None and self._kept.job is job:
            self._kept = None


class _Kept:
    def __init__(self, job: weakref.ref[Job], plan: Plan, runner: Runner):
        self.job, self.plan, self.runner = job, plan, runner

    def serves(self, job: Job, plan: Plan, n: int) -> bool:
        """Whether its buffers are of this job and plan, and large enough for n images."""
        return self.job() is job and self.plan == plan and n <= self.runner.images


def interpreting() -> bool:
    """Whether Triton's kernels run under its interpreter: decided by the environment when Triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def interpreter_fault() -> str | None:
    """Why Triton's interpreter cannot run here, with the remedy: 3.6 takes arrays of one number for numbers.

    NumPy has refused that since 2.4, and each loop of a kernel would end in a TypeError.
    """
    import numpy
    import triton

    if _release(triton.__version__) >= (3, 7) or _release(numpy.__version__) < (2, 4):
        return None
    return (
        f"the interpreter of Triton {triton.__version__} (TRITON_INTERPRET=1) fails with NumPy {numpy.__version__}; "
        "pip install 'triton>=3.7' or 'numpy<2.4'"
    )


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all searches: libraries and the allocator keep memory for each stream."""
    return torch.cuda.Stream(device)


class Runner:
    """The search of a job's blocks, tile by tile and all in one shape: a smaller tile is filled up with copies.

    So there is one set of buffers, and one of graphs, and the other tiles of a run are no matter for a pair's bits. The
    first tile is launched as it is, which compiles kernels and readies libraries; graphs are recorded for the next one,
    if LEAST_REPLAYED are left. What cannot be recorded is launched for every tile, and a log line says why. All work is
    on a stream of its own, since the default one cannot be recorded.
    """

    def __init__(self, job: Job, chunk: int, n: int, graphs: bool = True):
        """chunk: see Plan; n: images of the first block, which is the largest."""
        from .search import TileSearch

        self.images = n
        self._chunk = even_chunk(job, chunk, n)
        largest = tiles_by_starts(job, n, self._chunk)[0][0]
        self._stream = _stream(job.device) if job.device.type == "cuda" else None
        why_not = ""
        if not graphs:
            why_not = "they are switched off"
        elif not job.loss.builtin:
            why_not = f"the loss {job.loss.name!r} is a function of your own"
        elif job.config.steps > MOST_RECORDED:
            why_not = f"{job.config.steps} steps are more than {MOST_RECORDED}"
        self._graphs = self._stream is not None and not why_not
        if self._stream is not None and why_not:
            log.info("engine 'triton' without CUDA graphs: %s", why_not)
        with self._on_stream():
            self._search = TileSearch(job.lowered, job.loss, job.config, job.device, largest.shape)
        self._work: TileSearch | Graphed = self._search
        self._warm = False

    @property
    def replays(self) -> bool:
        """Whether graphs have been recorded."""
        return self._work is not self._search

    def run(self, job: Job, block: Block) -> None:
        """Search a block and put the results into it."""
        lists = tiles_by_starts(job, len(block), self._chunk)
        left = -(-sum(map(len, lists)) * (len(block) + block.later) // max(1, len(block)))  # in later blocks too
        with self._on_stream():
            for tiles in lists:
                self._starts(block, tiles[0])
                started = False
                for tile in tiles:
                    if self._graphs and self._warm and not self.replays and left >= LEAST_REPLAYED:
                        self._work, started = self._recorded(), False
                    if not started:
                        self._work.first()
                        started = True
                    fill(self._search.images, block.images_of(tile))
                    self._put(block, tile, self._work.run())
                    self._warm, left = True, left - 1

    def _starts(self, block: Block, tile: Tile) -> None:
        """The starts of a tile into their buffer."""
        starts = block.starts_of(tile)
        mine = self._search.starts[: len(starts)]
        fill(mine.transpose(0, 1), starts.transpose(0, 1))
        fill(self._search.starts, mine)

    def _recorded(self) -> TileSearch | Graphed:
        """The search as graphs, or itself where it cannot be recorded."""
        from .graph import Graphed

        try:
            return Graphed(self._search)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("engine 'triton' goes on without CUDA graphs: %s", first_line(error))
            self._graphs = False
            return self._search

    def _put(self, block: Block, tile: Tile, found: TileResult) -> None:
        rows, columns = tile.shape
        block.put(tile, *(part.unflatten(0, self._search.shape)[:rows, :columns] for part in found))

    @contextlib.contextmanager
    def _on_stream(self) -> Iterator[None]:
        """Work on the own stream, after what was launched before; when all is done, go on.

        So no graph is at work when it is let go, and the wait is one a block.
        """
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            self._stream.synchronize()


def even_chunk(job: Job, chunk: int, n: int) -> int:
    """At most `chunk` pairs (images for per_sample), so that the tiles of n images come out as equal as can be."""

    def even(total: int, most: int) -> int:
        return -(-total // -(-total // most))

    if job.config.weights == "per_sample":
        return even(n, chunk)
    if chunk < job.n_seed:
        return even(job.n_seed, chunk)
    return even(n, chunk // job.n_seed) * job.n_seed


def fill(buffer: torch.Tensor, rows: torch.Tensor) -> None:
    """Put rows into the head of a buffer, and copies of the last one into the rest."""
    buffer[: len(rows)] = rows
    buffer[len(rows) :] = rows[-1:]
