"""What a search moves, computes and issues on a GPU, launch by launch, and so about how long it takes.

    python -m bench.gpu.model [--case dcgan32x1] [--tiles FILE]     Markdown; docs/performance.md holds it
    python -m bench.gpu.model --against bench/results/FILE          beside what a machine measured, at its own rates

Counted for each pair of weights="per_seed": every number that a kernel reads or writes in device memory, once for each
launch that needs it (θ₀, images and tables of indices are shared and count nothing), every multiply-add of its matrix
products, and every instruction it issues, from its compiled code (count.py; of launches that have no row there, and of
PyTorch's own, none). A launch takes as long as the slowest of the three; launches follow each other, so theirs add up.
What is computed by plain PyTorch operations (layers without kernels) counts its input and output alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from adgan_fast.kernels.maps import choices as map_choices
from adgan_fast.kernels.maps.choices import Tiles
from adgan_fast.kernels.maps.geometry import Geometry
from adgan_fast.kernels.maps.precision import MapPrecision
from adgan_fast.kernels.maps.private import Form
from adgan_fast.kernels.maps.vector import VectorMap

from adgan_fast.config import PRECISIONS, SearchConfig
from adgan_fast.engine.triton.lift import Chain, lift, private_map
from adgan_fast.engine.triton.search import lifted
from adgan_fast.generator.program import Program
from adgan_fast.generator.rules import lower

from ..race import cases
from ..race.report import markdown
from .counted import Row, file_of, load, row_for
from .launches import OPEN, defaults

VIEWS = ("reshape", "permute")
COUNTED = (*map_choices.KERNELS, "keep", "vector forward", "vector input_grad", "matmul", "gather")
"""Kernels that count.py knows."""

H200 = {"copy": 4.3e12, "bf16": 7.9e14, "tf32": 3.95e14, "float32": 5.0e13, "lanes": 3.3e13}
"""bytes/s and FLOP/s, where they have not been measured in the same run. Measured before: copy and bf16. The others are
half of bf16, and three quarters of what the data sheet says. "lanes": instructions a second of single lanes, 132
multiprocessors of 128 at 1.98 GHz, the highest clock of an H100 (SXM) and an H200."""

Chosen = Callable[[Geometry, str], Mapping[str, Tiles]]
"""The tiles of a geometry's kernels in a precision."""
_DEFAULT: Chosen = defaults


@dataclasses.dataclass(frozen=True)
class Call:
    """One launch of a search, for one pair.

    Attributes:
        layer: its name in the generator.
        call: of PrivateMap, or what else it is.
        step: as that call counts.
        kernel: of choices.KERNELS or launches.py; "torch" for launches of PyTorch; else as `call`.
        bytes: read and written, of activations, gradients and history.
        state: the same of Δ, m and v.
        products: multiply-adds by mode (precision.py).
        updates: Adam steps of single numbers.
        issued: instructions of warps; None if they are not counted.
    """

    layer: str
    call: str
    step: int
    kernel: str
    bytes: float
    state: float = 0.0
    products: Mapping[str, float] = dataclasses.field(default_factory=dict)
    updates: float = 0.0
    issued: float | None = None

    def memory_seconds(self, rates: Mapping[str, float]) -> float:
        return (self.bytes + self.state) / rates["copy"]

    def matrix_seconds(self, rates: Mapping[str, float]) -> float:
        return sum(2 * count / _rate(mode, rates) for mode, count in self.products.items())

    def issue_seconds(self, rates: Mapping[str, float]) -> float:
        return (self.issued or 0.0) * 32 / rates["lanes"]

    def seconds(self, rates: Mapping[str, float]) -> float:
        """The largest of the three: within a launch they overlap at best."""
        return max(self.memory_seconds(rates), self.matrix_seconds(rates), self.issue_seconds(rates))


def _rate(mode: str, rates: Mapping[str, float]) -> float:
    """FLOP/s of a mode of products; "tf32x3" is three of TF32."""
    if mode == "tf32x3":
        return rates["tf32"] / 3
    return rates[{"ieee": "float32", "bf16 in float32": "bf16"}.get(mode, mode)]


def of_search(
    program: Program,
    steps: int,
    precision: str,
    opened: float = OPEN,
    rows: Sequence[Row] = (),
    tiles: Chosen = _DEFAULT,
) -> list[Call]:
    """All launches of a search of `steps` ≥ 1 steps from the second forward pass on, and of step 1's backward pass.

    (The first forward pass is done once for all images.) `rows` are count.py's, `tiles` those that are launched.
    """
    rest, chains = lifted(program, SearchConfig())
    found: list[Call] = []
    for chain in chains:
        name, geometry = chain.map.name, chain.geometry
        calls: Iterable[Call] = of_map(name, geometry, steps, precision, opened)
        found += with_counts(calls, name, precision, rows, tiles(geometry, precision))
        found += of_epilogue(chain, steps)
    for layer in rest.layers:
        if layer.op == "thin":
            calls = of_thin(layer.name, layer.attrs["geometry"], steps, precision)
            found += with_counts(calls, layer.name, precision, rows, {})
        elif layer.op not in ("private", *VIEWS):
            read = sum(_numbers(rest, i) for i in layer.inputs if i is not None and rest.values[i].batched)
            written = _numbers(rest, layer.output)
            name = layer.name or layer.op
            found += [Call(name, "forward", t, "torch", 4 * (read + written)) for t in range(2, steps + 2)]
            found += [Call(name, "backward", t, "torch", 4 * (2 * read + 2 * written)) for t in _each(steps)]
    image = _numbers(rest, rest.output)
    found += [Call("loss", "loss", t, "loss", 4 * image * (2 if t <= steps else 1)) for t in range(2, steps + 2)]
    small = program.parameter_count - sum(program.parameters[chain.parameter].numel() for chain in chains)
    found += [
        Call("the small parameters", "adam", t, "adam", 4 * small, 4 * small * (_adam(t, steps) - 1), {}, small)
        for t in _each(steps)
    ]
    return found


def with_counts(
    calls: Iterable[Call], layer: str, precision: str, rows: Sequence[Row], tiles: Mapping[str, Tiles]
) -> list[Call]:
    """The calls of a layer with the instructions that `rows` have of them."""
    found = []
    for call in calls:
        row = row_for(rows, layer, precision, call.kernel, tiles.get(call.kernel))
        issued = None if row is None else row["issued"].get(f"{call.call} {call.step}")
        found.append(dataclasses.replace(call, issued=issued))
    return found


def of_map(
    layer: str, geometry: Geometry, steps: int, precision: str, opened: float = OPEN, form: Form | None = None
) -> list[Call]:
    """The launches of a PrivateMap, in that form, or in the one that the cost model takes."""
    if private_map(geometry) is VectorMap:
        return list(_of_vector(layer, geometry, steps, precision, opened))
    rebuilt = map_choices.rebuilds(geometry, steps, precision) if form is None else form == "rebuild"
    return list(_of_maps(layer, geometry, steps, precision, rebuilt))


def _of_maps(layer: str, geometry: Geometry, steps: int, precision: str, rebuilt: bool) -> Iterator[Call]:
    row = MapPrecision.of(precision, "cuda")
    weights = geometry.groups * geometry.live_taps * geometry.inputs * geometry.outputs
    x = geometry.in_positions * geometry.inputs * geometry.groups
    y = geometry.out_positions * geometry.outputs * geometry.groups
    places = sum(len(part.taps) * part.target.numel() for part in geometry.classes)
    work = places * geometry.inputs * geometry.outputs * geometry.groups
    fused = map_choices.class_size(geometry) <= map_choices.FUSED_ROWS
    delta, moment, history = row.delta.itemsize, row.moments.itemsize, row.history.itemsize
    for step in _each(steps):
        yield Call(layer, "keep", step, "torch", (4 + history) * (x + y))
        yield Call(layer, "input_grad", step, "shared", 4 * (x + y), 0.0, {row.shared: work})
        if step > 1:
            yield Call(layer, "input_grad", step, "product", 4 * (2 * x + y), delta * weights, {row.change: work})
        yield Call(layer, "forward", step + 1, "shared", 4 * (x + y), 0.0, {row.shared: work})
        times = step if rebuilt else 1
        written = step < steps or not fused
        state = delta * weights * ((step > 1) + written)
        if not rebuilt:
            state += 2 * moment * weights * ((step > 1) + (step < steps))
        past, product = history * (x + y) * times, 4 * (x + 2 * y)
        made = {row.gradient: float(work * times)}
        if fused:
            made[row.change] = made.get(row.change, 0.0) + work
            yield Call(layer, "forward", step + 1, "change", past + product, state, made, weights)
        else:
            yield Call(layer, "forward", step + 1, "update", past, state, made, weights)
            yield Call(layer, "forward", step + 1, "product", product, delta * weights, {row.change: work})


def _of_vector(layer: str, geometry: Geometry, steps: int, precision: str, opened: float) -> Iterator[Call]:
    inputs, columns = geometry.inputs, geometry.out_positions * geometry.outputs
    slots = opened * columns
    delta = MapPrecision.of(precision).delta.itemsize
    dense, weights = 4 * (inputs + columns), inputs * slots
    shared = {"ieee" if precision == "float32" else "tf32": float(inputs * columns)}
    for step in _each(steps):
        yield Call(layer, "keep", step, "keep", 8 * (inputs + columns) + 4 * slots)
        yield Call(layer, "input_grad", step, "torch", dense, 0.0, shared)
        if step > 1:
            yield Call(layer, "input_grad", step, "vector input_grad", 4 * slots + 8 * inputs, delta * weights)
        yield Call(layer, "forward", step + 1, "torch", dense, 0.0, shared)
        state = delta * weights * ((step > 1) + (step < steps))
        moved = 4 * step * slots + 4 * (step + 1) * inputs + 12 * slots
        yield Call(layer, "forward", step + 1, "vector forward", moved, state, {}, weights)


def of_thin(layer: str, geometry: Geometry, steps: int, precision: str) -> Iterator[Call]:
    """A convolution of few outputs; its columns count as memory, though a chunk's may stay in the cache."""
    x, y = geometry.in_positions * geometry.inputs, geometry.out_positions * geometry.outputs
    wide = geometry.outputs * geometry.taps
    columns, weights = geometry.in_positions * wide, geometry.inputs * wide
    work = {MapPrecision.of(precision, "cuda").shared: float(x * wide)}
    for step in _each(steps):
        yield Call(layer, "input_grad", step, "gather", 4 * (y + columns))
        yield Call(layer, "input_grad", step, "matmul", 4 * (columns + weights + x), 0.0, work)
        yield Call(layer, "weight_grad", step, "matmul", 4 * (columns + weights + x), 0.0, work)
        yield Call(layer, "forward", step + 1, "matmul", 4 * (columns + weights + x), 0.0, work)
        yield Call(layer, "forward", step + 1, "gather", 4 * (columns + y))


def of_epilogue(chain: Chain, steps: int) -> list[Call]:
    """Batch norm or bias, and activation: one launch each way."""
    if chain.norm is None and chain.act is None and chain.map.inputs[2] is None:
        return []
    y = math.prod(chain.out_shape)
    forward = [Call(chain.map.name, "epilogue", t, "epilogue", 8 * y) for t in range(2, steps + 2)]
    return forward + [Call(chain.map.name, "epilogue backward", t, "epilogue backward", 12 * y) for t in _each(steps)]


def _adam(step: int, steps: int) -> int:
    """Numbers moved for each parameter by the fused Adam step (docs/kernels.md)."""
    return 2 + 1 + (2 if step > 1 else 0) + (2 if step < steps else 0)


def _each(steps: int) -> range:
    return range(1, steps + 1)


def program_of(shape: str, config: SearchConfig) -> Program:
    """A case's generator as a program."""
    return lower(cases.build(shape, config.replace(n_seed=1), images=1).gen, (256,))


def _numbers(program: Program, value: int) -> int:
    return math.prod(program.values[value].shape)


# -- tables --------------------------------------------------------------------------------------------------------


def by_layer(calls: Sequence[Call], starts: int, rates: Mapping[str, float]) -> list[tuple[str, ...]]:
    """A line for each layer, and the sum; times are of an image of `starts` starts."""
    lines: list[tuple[str, ...]] = [
        ("layer", "Adam updates", "MB a pair: state", "the rest", "memory µs", "matrix µs", "issue µs", "slowest µs")
    ]
    names = list(dict.fromkeys(call.layer for call in calls))
    for name in (*names, "sum"):
        mine = [call for call in calls if name in (call.layer, "sum")]
        ways = (Call.memory_seconds, Call.matrix_seconds, Call.issue_seconds, Call.seconds)
        times = (f"{sum(way(call, rates) for call in mine) * starts * 1e6:.0f}" for way in ways)
        updates, state, rest = (
            sum(part) / 1e6 for part in zip(*((c.updates, c.state, c.bytes) for c in mine), strict=True)
        )
        lines.append((name, f"{updates:.2f} M", f"{state:.2f}", f"{rest:.2f}", *times))
    return lines


def decisions(program: Program, steps: int, starts: int, rates: Mapping[str, float]) -> list[tuple[str, ...]]:
    """What each step of the design leaves of the parameters' traffic: bytes, and images a second if that were all."""
    numbers = program.parameter_count
    k = steps
    update, read = 7 * k, 2 * k + 1  # Adam: g, w, m, v read and w, m, v written; w read forward and for the input
    least = 3 * (k - 1)  # of the change: written, read forward, read for the input's gradient
    kept = read - 2 + 3 * (k - 1) + k + 2 * (k - 1)
    ways: list[tuple[str, float]] = [
        ("a gradient tensor, then fused Adam on w, m, v in float32", 4 * (update + read + k)),
        ("gradient and Adam in one kernel; step 1 from θ₀ without moments, none written at step k", 4 * kept),
        ("the same with Δ, m and v in 16 bits", 2 * kept),
        ("Δ in float32; m and v rebuilt from the history; the update done inside the next forward pass", 4 * least),
        ("the same with Δ in 16 bits", 2 * least),
    ]
    vectors = sum(
        program.parameters[chain.parameter].numel()
        for chain in lift(program)[1]
        if private_map(chain.geometry) is VectorMap
    )
    ways.append(("and only columns that ever had a gradient", 2 * least * (1 - (1 - OPEN) * vectors / numbers)))
    lines: list[tuple[str, ...]] = [("form", "bytes a parameter", "ms an image", "images/s at most")]
    for name, each in ways:
        seconds = each * numbers * starts / rates["copy"]
        lines.append((name, f"{each:.0f}", f"{seconds * 1e3:.2f}", f"{1 / seconds:.0f}"))
    return lines


def by_kernel(calls: Sequence[Call], rates: Mapping[str, float], starts: int) -> dict[str, tuple[float, ...]]:
    """Seconds of an image by kernel: memory, matrix units, issue, and the sum over its launches of the slowest."""
    ways = (Call.memory_seconds, Call.matrix_seconds, Call.issue_seconds, Call.seconds)
    return {
        name: tuple(sum(way(call, rates) for call in calls if call.kernel == name) * starts for way in ways)
        for name in dict.fromkeys(call.kernel for call in calls)
    }


def text(shape: str, config: SearchConfig, rates: Mapping[str, float], tiles: Chosen = _DEFAULT) -> list[str]:
    """The tables of a case, as Markdown."""
    program = program_of(shape, config)
    rows = load(file_of("sm_90", shape))
    steps, starts = config.steps, config.n_seed
    lines = [*markdown(decisions(program, steps, starts, rates)), ""]
    for precision in PRECISIONS:
        calls = of_search(program, steps, precision, OPEN, rows, tiles)
        forms = ", ".join(
            f"{chain.map.name} {'rebuilt' if _rebuilt(chain, steps, precision) else 'stored'}"
            for chain in lift(program)[1]
        )
        most = 1 / (sum(call.seconds(rates) for call in calls) * starts)
        missing = sorted({call.kernel for call in calls if call.issued is None and call.kernel in COUNTED})
        without = f"; instructions of {', '.join(missing)} not counted" if missing else ""
        lines += [f"{precision} (moments: {forms}); at most {most:.0f} images/s{without}:", ""]
        lines += [*markdown(by_layer(calls, starts, rates)), ""]
    return lines


def _rebuilt(chain: Chain, steps: int, precision: str) -> bool:
    return private_map(chain.geometry) is VectorMap or map_choices.rebuilds(chain.geometry, steps, precision)


# -- beside a machine's own figures --------------------------------------------------------------------------------

MEASURED = {
    "change": "change_kernel", "vector forward": "forward_kernel", "shared": "shared_kernel",
    "product": "product_kernel", "vector input_grad": "input_grad_kernel", "matmul": "matmul_kernel",
    "gather": "gather_sum_kernel",
}  # fmt: skip
"""Kernels that the part "profile" names, by their names here."""
AGAINST = (
    "precision", "kernel", "memory µs", "matrix µs", "issue µs", "overlapped µs", "apart µs", "measured µs",
    "overlapped / measured", "apart / measured",
)  # fmt: skip


def against(file: Path, shape: str, config: SearchConfig, tiles: Chosen = _DEFAULT) -> list[str]:
    """What is predicted at a machine's own rates beside the last figures it gave, as Markdown; of "per_seed" alone.

    Twice: if memory, matrix units and issue overlap in each launch as well as can be, and if they do not at all.
    """
    measured = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rates = {**H200, **{row["engine"]: row["value"] for row in measured if row.get("metric") == "rate"}}
    program, rows = program_of(shape, config), load(file_of("sm_90", shape))
    lines: list[tuple[str, ...]] = [AGAINST]
    for precision in ("float32", "bf16"):
        calls = of_search(program, config.steps, precision, OPEN, rows, tiles)
        found = by_kernel(calls, rates, config.n_seed)
        here = [r for r in measured if f"/s{config.n_seed}/k{config.steps}/per_seed/{precision}" in r["case"]]
        here = [r for r in here if r["case"].startswith(f"{shape}-")]
        profile = [r for r in here if "us_an_image" in r]
        last = {r["engine"]: r["us_an_image"] for r in profile if r["commit"] == profile[-1]["commit"]}
        for kernel, name in MEASURED.items():
            if name in last:
                lines.append(_line(precision, kernel, found[kernel], last[name]))
        if last:
            others = [parts for kernel, parts in found.items() if kernel not in MEASURED]
            left = sum(us for name, us in last.items() if name not in MEASURED.values())
            lines.append(_line(precision, "all else", tuple(map(sum, zip(*others, strict=True))), left))
        speeds = [r["value"] for r in here if r.get("metric") == "images_per_second"]
        if speeds:
            lines.append(_line(precision, "sum", tuple(map(sum, zip(*found.values(), strict=True))), 1e6 / speeds[-1]))
    return markdown(lines)


def _line(precision: str, name: str, parts: Sequence[float], measured: float) -> tuple[str, ...]:
    *ways, slowest = (part * 1e6 for part in parts)
    times = (f"{us:.0f}" for us in (*ways, slowest, sum(ways), measured))
    return precision, name, *times, f"{slowest / measured:.2f}", f"{sum(ways) / measured:.2f}"


def _of_file(file: Path) -> Chosen:
    """The tiles of a GPU's file, where it has some, else the defaults."""
    entries = json.loads(file.read_text(encoding="utf-8"))

    def chosen(geometry: Geometry, precision: str) -> dict[str, Tiles]:
        found = defaults(geometry, precision)
        for kernel in found:
            key = f"{kernel} {precision} {map_choices.geometry_key(geometry)}"
            if key in entries:
                found[kernel] = Tiles(**entries[key])
        return found

    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.model", description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=sorted(cases.SHAPES), default="dcgan32x1")
    parser.add_argument("--tiles", type=Path, metavar="FILE", help="of kernels/configs; default: the default tiles")
    parser.add_argument("--against", type=Path, metavar="FILE", help="rows that a machine measured, of bench/results")
    given = parser.parse_args()
    tiles, config = _of_file(given.tiles) if given.tiles else _DEFAULT, SearchConfig()
    lines = (
        against(given.against, given.case, config, tiles) if given.against else text(given.case, config, H200, tiles)
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
