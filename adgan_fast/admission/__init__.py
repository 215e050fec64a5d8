"""The admission of a machine: an engine of the GPU is tried once on a (GPU, driver, software) that it has not run on.

`verify` holds an engine to each generator, in every process; that says nothing of what a first search does not show:
whether replayed graphs, another order of the images or memory of another past change a bit. Here the engine is tried on
generators of the package's own (trial.py), once for a machine (machine.py), and the verdict is kept in the user's cache
(kept.py). On a CPU nothing is asked.
"""

from __future__ import annotations

import datetime
import logging
import time

import torch

from ..config import SearchConfig
from ..core import ambient, plan, random_state, workers
from ..core.engine import Engine
from ..core.job import Job
from ..engine.grouped import Grouped
from ..engine.triton.engine import Triton
from ..generator.look import first_line
from . import kept, machine, trial
from .kept import Settings, Verdict
from .machine import Machine

__all__ = ["ADMITTED", "Machine", "Settings", "Verdict", "anew", "settings_of", "verdict"]

log = logging.getLogger("adgan_fast")

ADMITTED = (Triton.name, Grouped.name)
"""The engines that run kernels of this package on a GPU. The others are PyTorch's own work there."""
AGAIN = "`adgan-fast check` tries it anew, verify=False takes it all the same"

_verdicts: dict[tuple[Machine, Settings], Verdict] = {}
"""Those that this process has asked for: where the cache cannot be written, they are asked for once all the same."""


def verdict(engine: Engine, job: Job) -> str | None:
    """Why `engine` is not to be trusted on the machine that a job runs on, with the figures; None where it is right.

    Within a search. What has not been tried here is tried now, which takes some seconds, and a log line says so.
    """
    if job.device.type != "cuda" or not job.config.verify or engine.name not in ADMITTED:
        return None
    here, asked = machine.of(job.device), settings_of(engine, job.config)
    found = _verdicts.get((here, asked)) or kept.find(here, asked)
    if found is None:
        found = _tried(engine, here, asked, job.device)
    if found is None:
        return None
    _verdicts[here, asked] = found
    return f"is not right on {here}: {found.wrong} (seen {found.when}; {AGAIN})" if found.wrong else None


def anew(engine: Engine, config: SearchConfig, device: torch.device) -> Verdict | None:
    """Try an engine on `device` whatever is known of it, and keep the verdict; None for want of memory.

    Args:
        config: its precision and weights count.
        device: a CUDA device; or the CPU, for `triton` under Triton's interpreter: that verdict is not kept.

    Raises ValueError where the engine cannot run there at all.
    """
    here, asked = machine.of(device), settings_of(engine, config)
    with workers.search_here(), random_state.kept(device), ambient.recording(device):
        if reason := engine.why_not() or engine.refuses(trial.any_job(engine, *asked[1:], device)):
            raise ValueError(f"engine {engine.name!r} cannot run: {reason}")
        found = _tried(engine, here, asked, device)
    if found is not None:
        _verdicts[here, asked] = found
    return found


def settings_of(engine: Engine, config: SearchConfig) -> Settings:
    """What of an engine and a config decides which kernels run."""
    launched = isinstance(engine, Triton) and not engine.graphs
    return Settings(engine.name + " without CUDA graphs" * launched, config.precision, config.weights)


def _tried(engine: Engine, here: Machine, asked: Settings, device: torch.device) -> Verdict | None:
    began = time.perf_counter()
    note, lasting = "", True
    try:
        wrong, note = trial.wrong_and_note(engine, asked.precision, asked.weights, device)
        lasting = not note  # what could not be tried now may be tried another time
    except Exception as error:  # of any kind: on another version of Triton or PyTorch that is what there is to find
        if plan.out_of_memory(error):
            log.warning("%s is not tried on %s, for want of memory: %s", asked, here, first_line(error))
            return None
        wrong = f"it fails: {type(error).__name__}: {first_line(error)}"
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    found = Verdict(wrong, note, round(time.perf_counter() - began, 2), when)
    where = kept.keep(here, asked, found) if device.type == "cuda" and lasting else ""
    log.info(
        "%s was tried on %s: %s (%.1f s, once; %s)",
        asked, here, found, found.seconds, f"kept in {where}" if where else "not kept",
    )  # fmt: skip
    return found
