"""What 10^6 to 10^9 images cost, and what stragglers and failures add: ``python -m bench.studies.scale``; seconds.

The tables of docs/scale.md. The first is arithmetic on measured rates. The others are a simulation, seeded: workers
that each hold two shards, one in work; a share of them slow; failures at random, each losing the shard in work and the
time of a restart; one process that takes up every shard and hands out the next one. Nothing else of a cluster is in it
(no shared file system, no network, no wait for machines). With ``--ray`` the time of that process for a shard is
measured, on a Ray cluster that is started here.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections import deque
from typing import NamedTuple

import numpy as np

GPU_RATE, GPU_RATE_BF16, CPU_RATE = 398.0, 760.0, 3.52
"""Images a second: an H200 in float32 and in bf16, two cores of a CPU. DCGAN 32×32, 64 starts of 5 steps
(docs/performance.md)."""
DRIVER_SECONDS = 0.02
"""Of the one process for a shard of 4,096 rows, rounded up from `--ray` and the writing of a part."""
RESTART_SECONDS = 60.0
"""From the death of a worker until another searches. (Assumed.)"""
HOUR = 3600.0


class Run(NamedTuple):
    """seconds: until the last shard; lost: share of the workers' searching that was done in vain."""

    seconds: float
    lost: float


def simulated(
    images: int, workers: int, shard: int, *, rate: float = GPU_RATE, failure_hours: float = np.inf,
    slow_share: float = 0.0, slow_factor: float = 3.0, driver: float = DRIVER_SECONDS, seed: int = 0,
) -> Run:  # fmt: skip
    """A job: `failure_hours` between two failures of one worker, a `slow_share` of them `slow_factor` times slower."""
    random = np.random.default_rng(seed)
    left = deque([shard] * (images // shard) + ([images % shard] if images % shard else []))
    unfinished = len(left)
    pace = np.full(workers, rate)
    pace[: round(slow_share * workers)] /= slow_factor
    fails = (
        random.exponential(failure_hours * HOUR, workers) if np.isfinite(failure_hours) else np.full(workers, np.inf)
    )
    hands: list[deque[tuple[float, int]]] = [deque() for _ in range(workers)]  # shards by when they arrive
    free = 0.0  # when the one process is
    searched = lost = now = 0.0
    events: list[tuple[float, int, float]] = []  # when a worker ends its shard (or itself), and when it began

    def hand_out(worker: int) -> None:
        nonlocal free
        free = max(free, now) + driver
        if left:
            hands[worker].append((free, left.popleft()))

    def begin(worker: int, at: float) -> None:
        if hands[worker]:
            arrives, size = hands[worker][0]
            start = max(at, arrives)
            heapq.heappush(events, (min(start + size / pace[worker], max(fails[worker], start)), worker, start))

    for _ in range(2):
        for worker in range(workers):
            hand_out(worker)
    for worker in range(workers):
        begin(worker, 0.0)
    idle: set[int] = {worker for worker in range(workers) if not hands[worker]}
    while unfinished:
        now, worker, start = heapq.heappop(events)
        searched += now - start
        if now >= fails[worker]:
            lost += now - start
            left.extendleft(size for _, size in reversed(hands[worker]))  # done again by whoever comes next
            hands[worker].clear()
            back = now + RESTART_SECONDS
            fails[worker] = back + random.exponential(failure_hours * HOUR)
            takers = sorted(idle)[: len(left)]
            idle.difference_update(takers)
            for other in takers:
                hand_out(other)
                begin(other, now)
            hand_out(worker)
            begin(worker, back)
        else:
            hands[worker].popleft()
            unfinished -= 1
            hand_out(worker)
            begin(worker, now)
        if not hands[worker]:
            idle.add(worker)
    return Run(max(now, free), lost / searched)


def table(head: list[str], rows: list[list[str]]) -> None:
    for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def costs() -> None:
    rows = []
    for power in (6, 8, 9):
        n = 10**power
        hours = [n / rate / HOUR for rate in (GPU_RATE, GPU_RATE_BF16, CPU_RATE / 2)]
        rows.append([f"10^{power}", *(f"{each:,.3g}" if each < 1000 else f"{each:,.0f}" for each in hours)])
    table(["images", "H200 hours, float32", "bf16", "CPU core hours"], rows)


def sizes(images: int, workers: int) -> None:
    minutes = images / workers / GPU_RATE / 60
    print(f"{images:,} images, {workers} GPUs: {minutes:.1f} minutes if nothing is lost. In % more:\n")
    shards = (256, 1024, 4096, 16384, 65536)
    settings = {
        "nothing fails": {},
        "1 in 20 is 3 times slower": {"slow_share": 0.05},
        "a worker fails every 100 hours": {"failure_hours": 100},
        "every 10 hours": {"failure_hours": 10},
        "every hour": {"failure_hours": 1},
        "1 in 20 slow, and a failure every 10 hours": {"failure_hours": 10, "slow_share": 0.05},
    }
    rows = []
    for name, given in settings.items():
        cells = []
        for shard in shards:
            pace = workers - given.get("slow_share", 0.0) * workers * 2 / 3
            ideal = images / pace / GPU_RATE
            runs = [simulated(images, workers, shard, seed=seed, **given).seconds for seed in range(3)]
            cells.append(f"{100 * (np.mean(runs) / ideal - 1):.1f}")
        rows.append([name, *cells])
    table([f"shard (seconds of it: {shards[0] / GPU_RATE:.1f} to {shards[-1] / GPU_RATE:.0f})"]
          + [f"{shard:,}" for shard in shards], rows)  # fmt: skip


def widths(images: int, shard: int) -> None:
    print(f"{images:,} images in shards of {shard:,}, {DRIVER_SECONDS * 1e3:.0f} ms of one process for each:\n")
    rows = []
    for workers in (10, 100, 500, 1000, 2000):
        run = simulated(images, workers, shard, failure_hours=100)
        ideal = images / workers / GPU_RATE
        rows.append(
            [str(workers), f"{ideal / HOUR:.2f}", f"{run.seconds / HOUR:.2f}", f"{100 * ideal / run.seconds:.0f} %"]
        )
    table(["GPUs", "hours if nothing is lost", "simulated", "of the GPUs' pace"], rows)


class Rows:
    """An actor that searches nothing."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        n = int(batch["stop"][0] - batch["first"][0])
        text = np.full(n, "ok", object)
        numbers = {name: np.zeros(n, np.float32) for name in ("score", "score_std", "score_min", "initial_loss")}
        about = {"shard": np.full(n, batch["number"][0]), "row": np.arange(batch["first"][0], batch["stop"][0])}
        return {**numbers, "status": text, "error": text, **about, "seconds_search": np.zeros(n)}


def driver_seconds(count: int, size: int) -> None:
    """How long Ray Data and the process that began the job take for a shard in which nothing is searched."""
    import ray
    import ray.data

    from adgan_fast.jobs.manifest import shards
    from adgan_fast.jobs.ray.crew import gathered

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    of = shards(count * size, size)
    found = ray.data.from_items([shard._asdict() for shard in of], override_num_blocks=count).map_batches(
        Rows, batch_size=None, compute=ray.data.ActorPoolStrategy(size=2)
    )
    outcomes = gathered(found.iter_batches(batch_size=None, batch_format="numpy"), of)
    next(outcomes)
    before, cpu = time.perf_counter(), time.process_time()
    rest = sum(1 for _ in outcomes)
    took, cpu = time.perf_counter() - before, time.process_time() - cpu
    print(f"{rest} shards of {size} rows by 2 actors: {took / rest * 1e3:.1f} ms each, {cpu / rest * 1e3:.1f} ms of "
          "processor time in this process")  # fmt: skip
    ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", action="store_true", help="measure the time of the one process for a shard")
    if parser.parse_args().ray:
        driver_seconds(300, 4096)
        return
    costs()
    sizes(10**8, 100)
    widths(10**9, 4096)


if __name__ == "__main__":
    main()
