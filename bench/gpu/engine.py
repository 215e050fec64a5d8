"""Parts that run whole searches of the engine: "gate", "speed", "growth", "memory" and "profile"."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import adgan_fast
from adgan_fast.config import WEIGHTS, SearchConfig
from adgan_fast.engine import named
from adgan_fast.engine.triton.engine import LEAST_REPLAYED, Triton
from adgan_fast.testing import Losses

from ..race import cases, gate, memory
from ..race.contenders import Contender, contenders
from .part import Part

ENGINE = "triton"
GATED = (8, 8)
"""Starts of the first images that are searched in float64 as well."""
PERIOD = 16
"""The first images come again after so many: so replayed graphs are held to the reference too, not one chunk alone."""

GATE_IMAGES = 40
"""Chunks of 7, and at last one of 5: enough to be recorded."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A shape of cases.SHAPES, and in what the search differs from the paper's setting; chunk 0 is the engine's own."""

    shape: str
    precision: str
    n_seed: int = 64
    weights: str = "per_seed"
    chunk: int = 0


def build(part: Part, setting: Setting, images: int) -> cases.Case:
    """The case of a setting, with so many images; in a smoke run one that is as small as the kernels take."""
    config = SearchConfig(
        n_seed=min(setting.n_seed, 2) if part.smoke else setting.n_seed,
        steps=2 if part.smoke else SearchConfig().steps,
        chunk=setting.chunk or None,
    ).replace(weights=setting.weights, precision=setting.precision)
    if part.smoke:
        return cases.build("dcgan8x1", config, images=2, device=part.device, width=16, latent=32)
    case = cases.build(setting.shape, config, images=images, device=part.device)
    for first in range(PERIOD, images - 1, PERIOD):
        case.images[first : first + 2] = case.images[:2]
    return case


def title(case: cases.Case) -> str:
    """Case, precision and chunk."""
    chunk = f"/chunk{case.config.chunk}" if case.config.chunk else ""
    return f"{case.key}/{case.config.precision}{chunk}"


def reference(part: Part, case: cases.Case) -> gate.ReferenceLosses:
    """The float64 reference of a case's first images, once for all parts and precisions; made on the CPU.

    Waits for a process that is at it: see `references`.
    """
    key = dataclasses.replace(case, config=case.config.replace(precision="float32")).key
    path = Path(part.work) / (key.replace("/", "_") + ".reference")
    images = case.images[: len(GATED)].cpu()
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_file():
            initial, final, of_images = torch.load(path)
            if torch.equal(of_images, images):
                return gate.ReferenceLosses(initial, final, gate.plain_loop(case, GATED))
        found = gate.reference(case, GATED)
        torch.save((found.initial, found.final, images), path)
    return found


def references(part: Part) -> None:
    """Makes the references of all gates, while other parts use the GPU."""
    for setting in _gate_settings(part, "float32"):
        reference(part, build(part, setting, GATE_IMAGES))


def gated(part: Part, case: cases.Case, losses: Losses, graphs: bool = True) -> bool:
    """Whether the losses (N, S) of the first images and of their last copies are the reference's; keeps the errors."""
    wanted, last = reference(part, case), max(0, (len(losses[0]) - 2) // PERIOD * PERIOD)
    tried = [
        gate.check((losses[0][first:], losses[1][first:]), wanted, case.config.precision) for first in sorted({0, last})
    ]
    found = max(tried, key=lambda one: (not one.green, one.rms))
    for metric in ("rms", "mean", "score"):
        part.add(title(case), ENGINE, f"gate_{metric}", getattr(found, metric), "relative", graphs=graphs)
    if not found.green:
        part.fail(title(case), ENGINE, f"gate red{'' if graphs else ' without graphs'}, no speed: {found.failures}")
    return found.green


def survive(part: Part, case: str, error: Exception) -> None:
    """Note an error and go on, unless the device is lost."""
    part.fail(case, ENGINE, f"{type(error).__name__}: {error}"[:500])
    part.clock.wait()  # raises again what a device does not get over


def gates(part: Part, precision: str) -> None:
    """The engine against the reference in float64: launched and replayed, every shape, every way of owning weights."""
    for number, setting in enumerate(_gate_settings(part, precision)):
        case = build(part, setting, GATE_IMAGES)
        found: list[Losses] = []
        for graphs in (False, True) if number == 0 else (True,):
            try:
                with recorded(graphs):
                    found.append(contenders()[ENGINE].start(case)(case.images, case.starts))
                gated(part, case, found[-1], graphs)
            except Exception as error:
                survive(part, title(case), error)
        if len(found) == 2 and not all(torch.equal(a, b) for a, b in zip(*found, strict=True)):
            part.fail(title(case), ENGINE, "replayed graphs give other bits than launches")


def _gate_settings(part: Part, precision: str) -> list[Setting]:
    shapes = ["dcgan32x1", "dcgan32x3"] + ([] if part.quick else ["dcgan64x3"])
    settings = [
        Setting(shapes[0], precision, 64, chunk=7 * 64),
        Setting(shapes[0], precision, 8, "per_sample", 7),
        Setting(shapes[0], precision, 8, "frozen", 7 * 8),
    ]
    return settings + ([] if part.smoke else [Setting(shape, precision, 64, chunk=7 * 64) for shape in shapes[1:]])


@contextlib.contextmanager
def recorded(graphs: bool) -> Iterator[None]:
    """The engine records CUDA graphs meanwhile, or does not."""
    engine = named(ENGINE)
    assert isinstance(engine, Triton)
    before, engine.graphs = engine.graphs, graphs
    try:
        yield
    finally:
        engine.graphs = before


# -- speed ---------------------------------------------------------------------------------------------------------


def speed(part: Part, precision: str, again: bool = False) -> None:
    """Rows "images_per_second": the paper's setting, then other weights, fewer starts, other shapes and chunks.

    again: the paper's setting alone, by tiles that have been tuned meanwhile; the engine's name says so.
    """
    settings = [Setting("dcgan32x1", precision)]
    if precision != "tf32":
        settings += [Setting("dcgan32x1", precision, 64, weights) for weights in WEIGHTS[1:]]
        settings += [Setting("dcgan32x1", precision, n_seed) for n_seed in (8, 1)]
        settings += [Setting("dcgan32x3", precision), Setting("dcgan64x3", precision)]
    if precision == "bf16" and not part.quick:
        settings += [Setting("dcgan32x1", precision, chunk=chunk) for chunk in (256, 512, 2048, 4096)]
    for setting in settings[: 1 if again else 2 if part.smoke else 1 if part.quick else None]:
        if part.left() < (0 if part.smoke else 6):
            part.fail(str(setting), ENGINE, "no time left")
            continue
        case = build(part, setting, 4096 if setting.n_seed < 64 else 1024)
        try:
            _speed(part, case, f"{ENGINE}, tuned" if again else ENGINE)
        except Exception as error:
            survive(part, title(case), error)


def _speed(part: Part, case: cases.Case, name: str) -> None:
    """Time for images beyond the first: the difference of a large and a small call, divided by that of their images.

    What a call costs before its first image, and the first chunks, which are launched and recorded before graphs are
    replayed, are in both.
    """
    run = contenders()[ENGINE].start(case)
    small = min(len(case.images) // 2, max(2, (2 + LEAST_REPLAYED) * _chunk_images(case)))  # recorded as well
    if not gated(part, case, run(case.images[:small], case.starts)):
        return

    def seconds(images: int, about: float) -> list[float]:
        work = case.images[:images]
        return part.clock.whole(lambda: run(work, case.starts), about=about, least=1 if part.smoke else 3, warm=0)

    few = statistics.median(seconds(small, 0.2))
    large = len(case.images)
    if not part.smoke:
        twice = part.clock.whole(lambda: run(case.images[: 2 * small], case.starts), about=0, least=1, warm=0)[0]
        each = (twice - few) / small
        large = min(large, 2 * small + max(small, int(0.6 / max(each, 1e-6))))
        large = max(1, large // _chunk_images(case)) * _chunk_images(case)  # else a chunk is filled up with copies
    many = seconds(large, 0.0)
    gained = statistics.median(many) - few
    more: dict[str, Any] = {"images": large, "small": small, "setup": few - gained * small / (large - small)}
    part.add_times(title(case), f"{name}, {large} images", many, images=large)
    if gained > 0:
        part.add(title(case), name, "images_per_second", (large - small) / gained, "images/s", **more)
    else:
        part.fail(title(case), name, f"{large} images took no longer than {small}")


def _chunk_images(case: cases.Case) -> int:
    """Images of a chunk, about."""
    from adgan_fast.engine.triton.engine import CHUNK

    weights = case.config.weights
    chunk = case.config.chunk or CHUNK[weights]
    return min(256, chunk if weights == "per_sample" else max(1, chunk // len(case.starts)))


def growth(part: Part) -> None:
    """Rows "scores_per_second" of `adgan_fast.score`, all of a call counted, as the job grows to 5,000 images."""
    for precision in ("float32", "bf16"):
        case = build(part, Setting("dcgan32x1", precision), 5000)
        losses = contenders()[ENGINE].start(case)(case.images[:32], case.starts)
        if not gated(part, case, losses):
            continue
        wanted, before = losses[1].mean(1), 0.0
        for images in (1, 2) if part.smoke else (16, 64, 256, 1024, 5000):
            if not part.smoke and part.left() < 5 + 6 * before:
                part.fail(title(case), ENGINE, f"{images} images: no time left")
                break
            scores: list[torch.Tensor] = []

            def work(images: int = images, scores: list[torch.Tensor] = scores, case: cases.Case = case) -> None:
                config = case.config.replace(engine=ENGINE, starts=case.starts)
                scores.append(adgan_fast.score(case.gen, case.images[:images], config=config))

            least = 1 if part.smoke or images > 1000 else 3
            times = part.clock.whole(work, least=least, about=0, warm=0 if part.smoke or images > 64 else 1)
            last = (images - 2) // PERIOD * PERIOD if images > PERIOD else 0
            same = torch.allclose(scores[-1][: len(wanted)], wanted[:images], rtol=1e-3)
            if not same or not torch.allclose(scores[-1][last], wanted[0], rtol=1e-3):
                part.fail(title(case), ENGINE, f"{images} images: other scores than those that passed the gate")
                continue
            before = statistics.median(times)
            part.add(title(case), ENGINE, "scores_per_second", images / before, "images/s", images=images)


# -- memory and kernels in place -----------------------------------------------------------------------------------


def peaks(part: Part) -> None:
    """Rows "peak_memory" of a whole search in a process of its own, for few images and for many."""
    for precision in ("bf16",) if part.smoke or part.quick else ("float32", "bf16", "tf32"):
        for images in (1, 2) if part.smoke else (16, 512):
            if part.left() < 10 and not part.smoke:
                return part.fail(precision, ENGINE, "no time left")
            case = build(part, Setting("dcgan32x1", precision), images)
            peak = memory.peak_of_search(case, ENGINE, images, len(case.starts))
            if peak is not None:
                part.add(title(case), ENGINE, "peak_memory", peak, "bytes", images=images)


def profile(part: Part) -> None:
    """Rows "share" of each GPU kernel of a search, as PyTorch's profiler sees them: replayed graphs and all."""
    from torch.profiler import ProfilerActivity

    for precision in ("float32",) if part.smoke else ("float32", "bf16"):
        case = build(part, Setting("dcgan32x1", precision), 128)
        run = Contender(ENGINE).start(case)
        if not gated(part, case, run(case.images, case.starts)):
            continue
        activity = ProfilerActivity.CUDA if part.clock.cuda else ProfilerActivity.CPU
        with torch.profiler.profile(activities=[activity]) as seen:
            run(case.images, case.starts)
            part.clock.wait()
        took: dict[str, float] = {}
        count: Counter[str] = Counter()
        for event in seen.key_averages():
            took[event.key] = took.get(event.key, 0.0) + _microseconds(event, part.clock.cuda)
            count[event.key] += event.count
        whole = sum(took.values())
        for name, microseconds in sorted(took.items(), key=lambda item: -item[1])[:20]:
            more: dict[str, Any] = {"launches": count[name], "us_an_image": microseconds / len(case.images)}
            part.add(title(case), name[:80], "share", microseconds / whole if whole else 0.0, "of GPU time", **more)


def _microseconds(event: Any, cuda: bool) -> float:
    return float(event.self_device_time_total if cuda else event.self_cpu_time_total)
