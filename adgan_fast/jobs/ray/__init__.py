"""Jobs on a Ray cluster: shards by actors of Ray Data, and the same folder in the end. Needs the extra `ray`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ...config import SearchConfig
from ...generator.working_copy import Generator
from ...scorer import Scorer
from ...window_settings import Windows
from ..decision import Decision
from ..runner import JobResult, Progress, carried_out
from ..source import Source
from ..sources import Shaping, open_source
from .cluster import connected, shared_out
from .crew import Cluster
from .dataset import DatasetSource, is_dataset

__all__ = ["DatasetSource", "score_dataset"]


def score_dataset(
    data: Any,
    gen: Scorer | Generator,
    out: str | os.PathLike[str],
    config: SearchConfig | None = None,
    *,
    address: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    shaping: Shaping | None = None,
    column: str | None = None,
    labels: bool = False,
    within: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    keep: Sequence[str] = (),
    shard: int | None = None,
    decision: Decision | None = None,
    progress: bool | Progress = False,
    windows: Windows | None = None,
) -> JobResult:
    """`adgan_fast.jobs.run`, with the search on a Ray cluster: the same folder, rows and description.

    Each actor takes shard after shard, reads their images and searches them; this process writes the parts. So a job
    that was begun here is gone on with there, and the other way round. An actor that dies is replaced, and its shard is
    done again. All machines have to reach the images by the same path; the folder `out` only this process.

    Args:
        data: what `adgan_fast.jobs.sources.open_source` opens, a Source, or a ray.data.Dataset (see DatasetSource).
        gen, config, out, overwrite, keep, shard, decision, progress, windows: as for `run`.
        address: of the cluster, as for ray.init: "auto" or "host:port". None: the one that this process is
            connected to, or RAY_ADDRESS names; else one is started on this machine, for the time of the job.
        device: "cuda" or "cpu"; None: that of the config, else "cuda" where the cluster has GPUs. Its kind alone
            counts, "cuda:1" is "cuda": Ray chooses the GPU, and this machine need not have one.
        workers: actors; None: one for each GPU, or for each `threads` processors of a machine.
        threads: processors of an actor.
        shaping, column, labels, within: as for `open_source`; of what is opened here.

    Raises:
        ImportError: Ray is not installed, with the remedy.
        WorkerDied: a shard has ended its actor again and again.
        JobError: a machine has another version of adgan_fast, or reads other images than the others.
        ValueError, TypeError, MemoryError, and the other errors of `run`: as there.
    """
    if isinstance(gen, Scorer) and config is not None:
        raise TypeError("a Scorer has its config: give config with a generator, or make the Scorer with it")
    with connected(address):
        source: Source
        if is_dataset(data):
            source = DatasetSource(data, shaping, column=column, labels=labels, within=within)
        elif isinstance(data, (str, os.PathLike)):
            source = open_source(data, shaping, labels=labels, column=column, within=within)
        else:
            source = data
        scorer = gen.to("cpu") if isinstance(gen, Scorer) else Scorer(gen, config=_on_cpu(config))
        asked = device or (gen.config if isinstance(gen, Scorer) else config or SearchConfig()).device
        share = shared_out(None if asked is None else str(asked), workers, threads)
        crew = Cluster(scorer, share, windows, decision.windows if decision else None)
        return carried_out(
            crew, source, out, overwrite=overwrite, keep=keep, shard=shard, decision=decision, progress=progress
        )


def _on_cpu(config: SearchConfig | None) -> SearchConfig:
    """This process may have no GPU, though the cluster has: the actors take the generator to their device."""
    return (config or SearchConfig()).replace(device="cpu")
