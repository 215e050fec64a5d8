"""The connection to a cluster, and how its processors and GPUs are shared out."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...given import whole

log = logging.getLogger("adgan_fast")


def imported() -> Any:
    """The package ray, with ray.data; ImportError with the remedy where it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            f"jobs on Ray need the package ray with Ray Data ({error}): pip install 'adgan-fast[ray]'"
        ) from error
    return ray


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connected within to the cluster; to the one that this process has already, where no address is given."""
    ray = imported()
    if ray.is_initialized():
        if address is not None:
            raise ValueError(f"address {address!r}: this process is connected to Ray already; leave address out")
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here reports to nobody
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    ray.init(address=address)
    try:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray takes it, and a job is to end by it as elsewhere
        yield
    finally:
        ray.shutdown()


class Share(NamedTuple):
    """What each of `workers` actors has: a torch device, processors, GPUs."""

    device: str
    workers: int
    threads: int
    gpus: int


def shared_out(device: str | None, workers: int | None, threads: int) -> Share:
    """See score_dataset. ValueError where the cluster has nothing of the kind."""
    ray = imported()
    whole("threads", threads, 1)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    device = device or ("cuda" if gpus else "cpu")
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda' on a cluster, got {device!r}")
    if kind != device:
        log.info("device %s: on a cluster any of its kind, Ray chooses which", device)
    there = gpus if kind == "cuda" else sum(int(node.get("CPU", 0)) // threads for node in nodes)
    if workers is not None:
        workers = whole("workers", workers, 1)
    elif there == 0:
        lack = "GPU" if kind == "cuda" else f"machine of {threads} processors"
        raise ValueError(f"the cluster has no {lack}: give workers= if machines are still to come")
    if workers is not None and workers > there:
        log.warning("%d workers are asked for, and the cluster has room for %d: Ray waits for more", workers, there)
    return Share(kind, workers or there, threads, int(kind == "cuda"))
