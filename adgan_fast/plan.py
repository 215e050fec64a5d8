"""How many pairs fit: chunks from free memory before the work, and smaller ones if it runs out all the same."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import psutil
import torch

from .engines import Block, Engine, Job

log = logging.getLogger("adgan_fast")

SHARE = 0.7  # of free memory; the rest is for fragmentation and for others
BLOCK_IMAGES = 256  # images in hand at once: what is shared between images is then shared by many


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device: a GPU's free memory, or the machine's (or container's) available."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min([psutil.virtual_memory().available, *_container_bytes()])


def _container_bytes() -> list[int]:
    """What a control group (v2) leaves of its memory limit, where there is one."""
    root = Path("/sys/fs/cgroup")
    try:
        limit, used = ((root / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return []
    return [max(0, int(limit) - int(used))] if limit.isdigit() and used.isdigit() else []


def planned(engine: Engine, job: Job, n_images: int) -> Job:
    """The job with a chunk: the config's, else the engine's own where that fits into free memory, else less.

    Raises MemoryError if not even one unit of `chunk` fits.
    """
    if job.config.chunk is not None:
        return dataclasses.replace(job, chunk=job.config.chunk)
    each, lanes = engine.bytes_of_pair(job), workers(job)
    free = int(SHARE * free_bytes(job.device))
    fit = free // max(1, each * lanes)
    if fit < 1:
        fit = free // max(1, each)  # allocation halves no further than one; say what it would take
    if fit < 1:
        raise MemoryError(
            f"one pair needs about {each / 2**20:.0f} MiB with engine {engine.name!r}, "
            f"{free / 2**20:.0f} MiB are free on {job.device}"
        )
    units = n_images if job.config.weights == "per_sample" else n_images * job.n_seed
    return dataclasses.replace(job, chunk=max(1, min(engine.default_chunk(job), fit, units)))


def workers(job: Job) -> int:
    """Chunks in work at the same time."""
    return torch.get_num_threads() if job.device.type == "cpu" else 1


def run(engine: Engine, job: Job, block: Block) -> Job:
    """Run a block; on an out-of-memory error halve the chunk and go on. Returns the job with the chunk that worked."""
    while True:
        try:
            engine.run(job, block)
            return job
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or (job.chunk or 1) <= 1:
                raise
            job = dataclasses.replace(job, chunk=(job.chunk or 1) // 2)
            log.warning("out of memory on %s: chunk halved to %d", job.device, job.chunk)
        block.restart()
        if job.device.type == "cuda":
            torch.cuda.empty_cache()


def _out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class for a GPU's out-of-memory error, and none for a CPU's."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
