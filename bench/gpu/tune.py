"""Part "tune": the tiles of each layer's kernels, into kernels/configs/<gpu>.json.

A file holds tiles, warps and stages by "<kernel> <precision> <geometry>", as kernels/maps/choices.py reads them: no
choice of precision or form, so that it cannot change what is computed beyond the order of a sum. Each layer's kernel is
tuned in a process of its own: the default, the tiles whose compiled code has the fewest instructions (count.py's rows
of the case, if there are some), and unless "quick" one setting of the best after the other. Processes compile side by
side and time in turn. Tiles whose result is not that of the default ones are passed over, and so are those that do not
fit the GPU, whose errors the kernel's row names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import triton
from adgan_fast.kernels.maps import choices as map_choices
from adgan_fast.kernels.maps.choices import FUSED_ROWS, Tiles, class_size, default_tiles, geometry_key
from adgan_fast.kernels.maps.vector import VectorMap
from triton.runtime.errors import PTXASError

from adgan_fast.core.precision import arithmetic
from adgan_fast.engine.triton.lift import private_map

from .candidates import OPTIONS
from .clock import Work
from .counted import favoured, file_of, load
from .kernels import BOUNDS, LayerSetting, layer_settings, pairs_that_fit, program_of
from .part import Part

GAIN = 1.02
"""Least speed-up for which tiles are written down."""
UNFIT = (triton.OutOfResources, triton.CompilationError, PTXASError)
"""What tiles that do not fit a GPU raise; another error is no matter of tiles."""
PAIRS = 512
WORKERS = 14
SMOKE = ("vector forward", "product")
"""Kernels that a smoke run tunes, of the first layer that has them."""
TARGET, FAVOURED = "sm_90", 6
"""Whose count says which tiles are tried first, and how many of each kernel."""


@dataclasses.dataclass(frozen=True)
class TuningTask:
    """A kernel of one layer: its place in the `layer_settings` of a shape's program."""

    part: Part
    shape: str
    precision: str
    index: int
    kernel: str


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What a task comes to.

    Attributes:
        key: of the kernel's tiles, in the file.
        tiles: the best ones; speedup: how much faster they are than the default.
        unfit: the error of each choice of tiles that does not fit the GPU.
        measured: the seconds of every other choice, the default first.
    """

    key: str
    tiles: Tiles
    speedup: float
    unfit: list[dict[str, Any]]
    measured: list[dict[str, Any]]


def tune(part: Part) -> None:
    """Rows "speedup" of each kernel that was tuned; the file grows with each."""
    gpu = torch.cuda.get_device_name() if part.clock.cuda else "smoke"
    used = map_choices.config_file(gpu)
    files = [Path(part.out) / used.name, *([used] if part.clock.cuda else [])]
    found: dict[str, dict[str, int]] = {}
    for task, result in _results(part, _tasks(part)):
        name = f"{task.kernel} {task.precision}"
        if isinstance(result, str):
            part.fail(task.shape, name, result)
            continue
        tiles = dataclasses.asdict(result.tiles)
        part.add(
            task.shape, name, "speedup", result.speedup, "times faster",
            key=result.key, tiles=tiles, unfit=result.unfit, measured=result.measured,
        )  # fmt: skip
        if result.speedup >= GAIN:
            found[result.key] = tiles
            for file in files:
                write(file, found)


def write(file: Path, entries: Mapping[str, Mapping[str, int]]) -> None:
    """A file of tiles, with what it held before where `entries` says nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(json.dumps({**before, **entries}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(file)


def _tasks(part: Part) -> list[TuningTask]:
    shapes = ("dcgan32x1",) if part.smoke or part.quick else ("dcgan32x1", "dcgan64x3")
    precisions = ("bf16",) if part.smoke else ("float32", "bf16") if part.quick else ("float32", "bf16", "tf32")
    tasks = []
    for shape in shapes:
        program = program_of(part, shape)
        for precision in precisions:
            for index, setting in enumerate(layer_settings(part, program, precision, chosen_form=True)):
                if private_map(setting.chain.geometry) is VectorMap:
                    kernels = map_choices.VECTOR_KERNELS
                else:
                    fused = class_size(setting.chain.geometry) <= FUSED_ROWS
                    kernels = ("change" if fused else "update", "product", "shared")
                tasks += [TuningTask(part, shape, precision, index, kernel) for kernel in kernels]
    return [next(task for task in tasks if task.kernel == name) for name in SMOKE] if part.smoke else tasks


def _results(part: Part, tasks: list[TuningTask]) -> Iterator[tuple[TuningTask, Tuned | str]]:
    """Each task with its result, or with words where it has none, as they come."""
    if part.smoke:
        for task in tasks:
            yield task, _tuned(task)
        return
    spawn = multiprocessing.get_context("spawn")
    workers = min(WORKERS, os.cpu_count() or 1)
    with spawn.Pool(workers, _take_turns, (spawn.Lock(),), maxtasksperchild=1) as pool:
        waiting = [(task, pool.apply_async(_tuned, (task,))) for task in tasks]
        while waiting and part.left() > 5:
            for task, result in list(waiting):
                if result.ready():
                    waiting.remove((task, result))
                    yield task, result.get()
            if waiting:
                waiting[0][1].wait(0.2)
        for task, _ in waiting:
            yield task, "not done in time"


_turn: Any = contextlib.nullcontext()
"""Held while something is timed."""


def _take_turns(lock: Any) -> None:
    global _turn
    _turn = lock


def _tuned(task: TuningTask) -> Tuned | str:
    """What a task comes to, or the words of what failed."""
    try:
        return _search(task)
    except Exception as error:
        return _words(error)


def _words(error: BaseException) -> str:
    """The kind of an error and the first line of its message, which Triton's compiler puts behind a piece of source."""
    message = getattr(error, "error_message", None) or str(error)
    return f"{type(error).__name__}: {(message.strip().splitlines() or [''])[0]}"[:300]


def _search(task: TuningTask) -> Tuned:
    part = task.part
    program = program_of(part, task.shape)
    setting = layer_settings(part, program, task.precision, chosen_form=True)[task.index]
    geometry = setting.chain.geometry
    key = f"{task.kernel} {task.precision} {geometry_key(geometry)}"
    each = private_map(geometry).bytes_of_pair(geometry, setting.steps, task.precision) * WORKERS
    pairs = pairs_that_fit(part, each, PAIRS)
    best = default_tiles(task.kernel, task.precision, "cuda", class_size(geometry))
    with arithmetic(task.precision):
        wanted, default = _measure(part, setting, task.kernel, pairs, {key: best})
        least, unfit, times = default, [], [(best, default)]

        def attempt(tiles: Tiles) -> None:
            nonlocal best, least
            if tiles in [known for known, _ in times] or part.left() < 8:
                return
            try:
                found, seconds = _measure(part, setting, task.kernel, pairs, {key: tiles})
            except UNFIT as error:
                unfit.append({"tiles": dataclasses.asdict(tiles), "error": _words(error)})
                return
            times.append((tiles, seconds))
            if seconds < least and _same(found, wanted, BOUNDS[task.precision]):
                best, least = tiles, seconds

        for tiles in _counted(task, setting.chain.map.name):
            attempt(tiles)
        if not part.quick:
            for field, values in list(OPTIONS[task.kernel].items())[: 1 if part.smoke else None]:
                for value in values:
                    attempt(dataclasses.replace(best, **{field: value}))
    measured = [{"tiles": dataclasses.asdict(tiles), "seconds": seconds} for tiles, seconds in times]
    return Tuned(key, best, default / least, unfit, measured)


def _counted(task: TuningTask, layer: str) -> list[Tiles]:
    """The tiles that the count favours; none in a smoke run, whose generator is another."""
    if task.part.smoke:
        return []
    file = file_of(TARGET, task.shape)
    if not file.is_file():
        task.part.say(f"{task.shape}: no count at {file}; the default alone is where tuning begins")
    return favoured(load(file), layer, task.precision, task.kernel, FAVOURED)


def _same(found: torch.Tensor, wanted: torch.Tensor, bound: float) -> bool:
    return bool((found - wanted).norm() <= bound * wanted.norm())


def _measure(
    part: Part, setting: LayerSetting, kernel: str, pairs: int, tiles: Mapping[str, Tiles]
) -> tuple[torch.Tensor, float]:
    """What a kernel's call makes with these tiles, and its median time."""
    with using(tiles):
        mine = setting.map(pairs, setting.adam)
    x, gy = setting.tensors(pairs)
    calls: dict[str, Work] = {
        "product": lambda: mine.input_grad(gy[1], 2),
        "shared": lambda: torch.cat([mine.shared_forward(x[0]).flatten(), mine.shared_input_grad(gy[0]).flatten()]),
    }
    step = min(3, setting.steps)  # of the middle: as long a history as the average
    call = calls.get(kernel, lambda: mine.forward(x[step], step + 1))
    mine.keep(1, x[0], gy[0])
    mine.forward(x[1], 2)  # makes Δ
    for later in range(2, step + 1):
        mine.keep(later, x[later - 1], gy[later - 1])
    made = call().clone()
    part.clock.wait()
    with _turn:
        times = part.clock.cold(call, rounds=1 if part.smoke else 8, warm=1)
    return made, statistics.median(times)


@contextlib.contextmanager
def using(tiles: Mapping[str, Tiles]) -> Iterator[None]:
    """Maps made meanwhile take these tiles, by their keys, before those of the GPU's file."""
    before = map_choices._config
    entries = {key: dataclasses.asdict(value) for key, value in tiles.items()}
    map_choices._config = lambda gpu: {**before(gpu), **entries}
    try:
        yield
    finally:
        map_choices._config = before
