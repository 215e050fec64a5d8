"""How many pairs fit: chunks from free memory before the work, and smaller ones if it runs out all the same."""

from __future__ import annotations

import dataclasses
import logging

import psutil
import torch

from . import cgroups
from .block import Block
from .engine import Engine
from .job import Job, Plan

log = logging.getLogger("adgan_fast")

SHARE = 0.7  # of free memory; the rest is for fragmentation and for others
BLOCK_IMAGES = 256  # images in hand at once: what is shared between images is then shared by many


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be taken on a device: a GPU's free memory, or the machine's (or container's) available."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min([psutil.virtual_memory().available, *cgroups.bytes_left()])


def planned(engine: Engine, job: Job, n_images: int) -> Plan:
    """Chunk and threads that fit into free memory.

    On a CPU the chunk is the engine's own, and as many threads work as there is memory for. On a GPU one chunk is in
    work: the config's, else the engine's own where that fits, else what does. Raises MemoryError if nothing fits.
    """
    on_cpu = job.device.type == "cpu"
    chunk = engine.default_chunk(job)
    if not on_cpu and job.config.chunk is not None:
        return Plan(job.config.chunk)
    each, free = engine.bytes_of_pair(job), int(SHARE * free_bytes(job.device))
    least = each * (chunk if on_cpu else 1)
    if free < least:
        raise MemoryError(
            f"engine {engine.name!r} needs about {least / 2**20:.0f} MiB for one chunk of this generator, "
            f"{free / 2**20:.0f} MiB ({SHARE:.0%} of what is free on {job.device}) may be taken"
        )
    if on_cpu:
        return Plan(chunk, min(torch.get_num_threads(), free // max(1, least)))
    units = n_images * job.n_seed // job.pairs_of_unit
    return Plan(min(chunk, free // max(1, each), units))


def run(engine: Engine, job: Job, plan: Plan, block: Block) -> Plan:
    """Run a block; on an out-of-memory error go on with half. Returns the plan as it worked."""
    on_cpu = job.device.type == "cpu"
    while True:
        try:
            engine.run(job, plan, block)
            return plan
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or (plan.threads if on_cpu else plan.chunk) == 1:
                raise
            plan = _halved(plan, job.device)
        block.restart()
        if job.device.type == "cuda":
            torch.cuda.empty_cache()


def _halved(plan: Plan, device: torch.device) -> Plan:
    """Half of the threads on a CPU, half of the chunk on a GPU."""
    if device.type == "cpu":
        log.warning("out of memory on %s: %d threads at work instead of %d", device, plan.threads // 2, plan.threads)
        return dataclasses.replace(plan, threads=plan.threads // 2)
    log.warning("out of memory on %s: chunk halved to %d", device, plan.chunk // 2)
    return dataclasses.replace(plan, chunk=plan.chunk // 2)


def out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class for what its own allocator of GPU memory lacks; CPU, driver and libraries say it in words."""
    words = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error) for word in words)
