"""What a Scorer and a job add to a search: time beside the engine of one image at a time, and a job's pace."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from adgan_fast import Scorer, jobs
from adgan_fast.config import SearchConfig
from adgan_fast.core import plan
from adgan_fast.jobs import Item

from .race import cases
from .race.replay import CLOCK, replay
from .race.rows import row

MOST_BESIDE = 5e-3  # seconds
LEAST_SHARE = 0.9
ROUNDS = 3
CALL_SECONDS = 4.0
"""Of the calls that a job is held against, about."""


@pytest.fixture
def case(shape: str, device: str, pytestconfig: pytest.Config) -> cases.Case:
    config = SearchConfig(weights=pytestconfig.getoption("--weights"), precision=pytestconfig.getoption("--precision"))
    return cases.build(shape, config, images=pytestconfig.getoption("--max-images"), device=device)


@pytest.mark.benchmark(timer=CLOCK)
def test_one_image_at_a_time_costs_little_beside_its_search(
    case: cases.Case, engine: str, device: str, results: Any, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    """Seconds of a call of a ready Scorer that are not the engine's, images on the CPU.

    On a CPU those that the calling thread has had the processor, which a busy machine moves little: it waits for nobody
    there but the engine.
    """
    search, inside = plan.run, [0.0, 0.0]
    clock = time.thread_time if device == "cpu" else time.perf_counter

    def timed(*given: Any) -> Any:
        began, wall = clock(), time.perf_counter()
        try:
            return search(*given)
        finally:
            inside[:] = clock() - began, time.perf_counter() - wall

    monkeypatch.setattr(plan, "run", timed)
    scorer, image = Scorer(case.gen, config=case.config, engine=engine), case.images[:1].cpu()
    scorer(image)
    seconds, searches = [], []
    for _ in range(6 * ROUNDS):
        began = clock()
        scorer(image)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - began - inside[0])
        searches.append(inside[1])
    beside = statistics.median(seconds)
    found = row(
        case.key, engine, "engine", "seconds_beside_search", beside, "s", device, seconds=seconds,
        search=statistics.median(searches),
    )  # fmt: skip
    line = f"{engine:<10} {1e3 * beside:6.2f} ms beside a search of {1e3 * statistics.median(searches):.1f} ms"
    results.add(f"one image at a time: {case.key}", [line], [found])
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = f"{case.key}: seconds beside the search of one image"
    replay(benchmark, seconds)
    assert beside <= MOST_BESIDE


@dataclasses.dataclass
class Pictures:
    """PNG files in a folder, decoded as they are read."""

    folder: Path
    number: int
    name: str = "pictures"

    def path(self, at: int) -> Path:
        return self.folder / f"{at:05d}.png"

    def items(self) -> Iterator[Item]:
        return (Item(self.path(at).name, None, str(self.path(at).stat().st_mtime_ns)) for at in range(self.number))

    def read(self, first: int, stop: int) -> Iterator[npt.NDArray[np.uint8]]:
        for at in range(first, stop):
            with Image.open(self.path(at)) as picture:
                pixels = np.asarray(picture)
            yield pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": "pictures"}


@pytest.mark.benchmark(timer=CLOCK)
def test_a_job_keeps_the_pace_of_score(
    case: cases.Case, engine: str, device: str, results: Any, tmp_path: Path, say: Callable[[str], None], request: Any
) -> None:
    """Images a second of a job after its start-up, PNG to parquet, as a share of a ready Scorer's on the pixels."""
    scorer = Scorer(case.gen, config=case.config, engine=engine)
    shown = ((case.images.cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    scorer(shown[:1])
    began = time.perf_counter()
    scorer(shown)
    number = int(min(4096, max(8, CALL_SECONDS * len(shown) / (time.perf_counter() - began))))
    images = np.resize(shown, (number, *shown.shape[1:]))
    source = Pictures(tmp_path, number)
    for at, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(source.path(at))
    assert np.array_equal(np.stack(list(source.read(0, number))), images)
    alone, shares = [], []
    for turn in range(ROUNDS):
        say(f"{engine}: round {turn + 1} of {ROUNDS}, {number} images")
        began = time.perf_counter()
        wanted = scorer(images)
        alone.append(number / (time.perf_counter() - began))
        result = jobs.run(scorer, source, tmp_path / f"job{turn}")
        shares.append(result.images_per_second / alone[-1])
        assert np.array_equal(jobs.read(result.out)["score"].to_numpy(), wanted)
    share = statistics.median(shares)
    found = row(
        case.key, engine, "engine", "job_share_of_score", share, "ratio", device, shares=shares, images=number,
        images_per_second=statistics.median(alone), seconds=result.seconds,
    )  # fmt: skip
    line = f"{engine:<10} {share:.3f} of {statistics.median(alone):.4g} images/s ({number} images)"
    results.add(f"a job's pace beside score: {case.key}", [line], [found])
    benchmark = request.getfixturevalue("benchmark")
    benchmark.group = f"{case.key}: a job's share of score's images a second"
    replay(benchmark, shares)
    assert share >= LEAST_SHARE
