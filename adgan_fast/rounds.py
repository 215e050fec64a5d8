"""A search in rounds: some starts more for those images that are not settled yet, see `adgan_fast.adaptive`.

Round after round over all images, not image after image, so that each round is searched as one job of few starts. A
pair is computed in a tile of the same shape as in the search of all starts, and so has the same bits.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

import torch

from . import outcome, validate
from .adaptive import Adaptive, Rule
from .core import plan
from .core.block import Block
from .core.engine import Engine
from .core.job import Job, Plan

log = logging.getLogger("adgan_fast")

SPAN = 16 * plan.BLOCK_IMAGES
"""Images that go through the rounds side by side: so many that a late round has blocks to fill."""


def rule_of(engine: Engine, job: Job, adaptive: Adaptive) -> Rule:
    """When this engine looks; a log line where that is never. ValueError where `adaptive` is of other searches.

    On a CPU a pair's bits may depend on the other starts of its tile, so that rounds are made of whole tiles. On a GPU
    they do not.
    """
    together = engine.default_chunk(job) if job.device.type == "cpu" else 1
    rule = adaptive.rule(job.n_seed, together)
    if not rule.looks:
        why = f"engine {engine.name!r} computes {together} of them together"
        if adaptive.rounds[0] >= job.n_seed:
            why = f"the first look is after {adaptive.rounds[0]}"
        log.warning("adaptive: each image gets all %d starts: %s", job.n_seed, why)
    return rule


def search(
    engine: Engine,
    job: Job,
    planned: Plan,
    rule: Rule,
    images: torch.Tensor,
    before: int,
    found: dict[str, torch.Tensor],
    lost: torch.Tensor,
    used: torch.Tensor,
    advance: Callable[[int], object],
) -> Plan:
    """Fill `found` and `lost`, as the scorer does, and `used` (n,), for images that lie `before` others of a run.

    What a start that was not used would have found is NaN. Returns the plan as it worked.
    """
    n, n_seed = len(images), job.n_seed
    for tensor in found.values():
        tensor.fill_(float("nan"))
    losses, initial = (torch.full((n, n_seed), float("nan"), dtype=job.dtype, device=job.device) for _ in range(2))
    scores, best = losses[:, 0].clone(), torch.full_like(losses[:, 0], float("inf"))
    counts = torch.zeros(n, dtype=torch.long, device=job.device)
    left, start = torch.arange(n, device=job.device), 0
    for stop in (*rule.looks, n_seed):
        part = dataclasses.replace(job, starts=job.starts.part(start, stop))
        for first in range(0, len(left), plan.BLOCK_IMAGES):
            rows = left[first : first + plan.BLOCK_IMAGES]
            places, later = rows.to(images.device), len(left) - first - len(rows)
            shown = validate.to_range(images[places].to(job.device), job.dtype)
            block = Block(part, shown, [before + row for row in rows.tolist()], list(found), advance, later)
            planned = _run(engine, part, planned, block)
            results = block.results
            losses[rows, start:stop], initial[rows, start:stop] = results["losses"], results["initial_losses"]
            if "latents" in found:
                found["latents"][places, start:stop] = results["latents"].to(images.device)
            if "reconstructions" in found:
                least = torch.where(results["losses"].isnan(), float("inf"), results["losses"]).amin(1)
                better = least < best[rows]  # of equals the first start
                best[rows[better]] = least[better]
                made = results["reconstructions"][better].to(images.device)
                found["reconstructions"][places[better.to(images.device)]] = made
        settled = torch.ones_like(left, dtype=torch.bool)
        if stop < n_seed:
            settled = torch.from_numpy(rule.settled(losses[left, :stop].cpu().numpy())).to(job.device)
        done, left, start = left[settled], left[~settled], stop
        counts[done], scores[done] = stop, losses[done, :stop].mean(1)
        advance((n_seed - stop) * len(done))
        if not len(left):
            break
    for name, tensor in (("scores", scores), ("losses", losses), ("initial_losses", initial)):
        if name in found:
            found[name].copy_(tensor)
    unused = torch.arange(n_seed, device=job.device) >= counts[:, None]
    lost.copy_(outcome.first_lost(*(tensor.masked_fill(unused, 0.0) for tensor in (initial, losses))))
    used.copy_(counts)
    return planned


def _run(engine: Engine, part: Job, planned: Plan, block: Block) -> Plan:
    """Run a block of a round by the plan of the whole job; returns that as it worked."""
    if part.device.type != "cpu":
        return plan.run(engine, part, planned, block)
    chunk = min(planned.chunk, part.n_seed)  # with more, a tile of few starts would have several images
    return dataclasses.replace(planned, threads=plan.run(engine, part, Plan(chunk, planned.threads), block).threads)
