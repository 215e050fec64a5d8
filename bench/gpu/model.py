"""The least a search has to move and to compute on a GPU, by layer and kernel, and so the time it cannot go below.

    python -m bench.gpu.model [--case dcgan32x1]          Markdown; docs/performance.md holds it

Counted for each pair of weights="per_seed": every number that a kernel reads or writes in device memory, once for each
launch that needs it (θ₀, images and tables of indices are shared and count nothing), and every multiply-add of its
matrix products; instructions of Adam's steps are estimated. What is computed by plain PyTorch operations (the layers
that are not lifted) counts its input and output alone: a floor, and not what happens.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from adgan_fast.kernels.maps import choices as map_choices
from adgan_fast.kernels.maps.geometry import Geometry
from adgan_fast.kernels.maps.precision import MapPrecision
from adgan_fast.kernels.maps.private import Form
from adgan_fast.kernels.maps.vector import VectorMap

from adgan_fast.config import PRECISIONS, SearchConfig
from adgan_fast.engine.triton.lift import Chain, lift, private_map
from adgan_fast.generator.program import Program
from adgan_fast.generator.rules import lower

from ..race import cases
from ..race.report import markdown

OPEN = 0.6
"""Share of a vector map's columns that ever have a gradient: 2,400 of 4,096 in a trial on the CPU."""

VIEWS = ("reshape", "permute")

H200 = {"copy": 4.3e12, "bf16": 7.9e14, "tf32": 3.95e14, "float32": 5.0e13, "lanes": 3.3e13}
"""bytes/s and FLOP/s, where they have not been measured in the same run. Measured before: copy and bf16. The others are
half of bf16, and three quarters of what the data sheet says. "lanes": instructions a second of single lanes, 132
multiprocessors of 128 at 1.98 GHz."""

UPDATE = {True: 30, False: 15}
"""Instructions of a lane for an Adam step of a number, by whether root and division are correctly rounded: guesses."""
REBUILT = 4
"""And for each gradient of the history beyond the first."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a search, for one pair.

    Attributes:
        layer: its name in the generator.
        call: of PrivateMap, or what else it is.
        step: as that call counts.
        bytes: read and written, of activations, gradients and history.
        state: the same of Δ, m and v.
        products: multiply-adds by mode (precision.py).
        updates: Adam steps of single numbers.
        instructions: of one such step.
    """

    layer: str
    call: str
    step: int
    bytes: float
    state: float = 0.0
    products: Mapping[str, float] = dataclasses.field(default_factory=dict)
    updates: float = 0.0
    instructions: float = 0.0

    def memory_seconds(self, rates: Mapping[str, float]) -> float:
        return (self.bytes + self.state) / rates["copy"]

    def matrix_seconds(self, rates: Mapping[str, float]) -> float:
        return sum(2 * count / _rate(mode, rates) for mode, count in self.products.items())

    def update_seconds(self, rates: Mapping[str, float]) -> float:
        return self.updates * self.instructions / rates["lanes"]

    def seconds(self, rates: Mapping[str, float]) -> float:
        """The largest of the three: they overlap at best."""
        return max(self.memory_seconds(rates), self.matrix_seconds(rates), self.update_seconds(rates))


def _rate(mode: str, rates: Mapping[str, float]) -> float:
    """FLOP/s of a mode of products; "tf32x3" is three of TF32."""
    if mode == "tf32x3":
        return rates["tf32"] / 3
    return rates[{"ieee": "float32", "bf16 in float32": "bf16"}.get(mode, mode)]


def of_search(program: Program, steps: int, precision: str, opened: float = OPEN) -> list[Call]:
    """All calls of a search of `steps` ≥ 1 steps from the second forward pass on, and of step 1's backward pass.

    (The first forward pass is done once for all images.)
    """
    rest, chains = lift(program)
    found: list[Call] = []
    for chain in chains:
        found += of_map(chain.map.name, chain.geometry, steps, precision, opened)
        found += of_epilogue(chain, steps)
    for layer in rest.layers:
        if layer.op not in ("private", *VIEWS):
            read = sum(_numbers(rest, i) for i in layer.inputs if i is not None and rest.values[i].batched)
            written = _numbers(rest, layer.output)
            name = layer.name or layer.op
            found += [Call(name, "torch", t, 4 * (read + written)) for t in range(2, steps + 2)]
            found += [Call(name, "torch backward", t, 4 * (2 * read + 2 * written)) for t in range(1, steps + 1)]
    image = _numbers(rest, rest.output)
    found += [Call("loss", "loss", t, 4 * image * (2 if t <= steps else 1)) for t in range(2, steps + 2)]
    small = program.parameter_count - sum(program.parameters[chain.parameter].numel() for chain in chains)
    found += [
        Call("the small parameters", "adam", t, 4 * small, 4 * small * (_adam(t, steps) - 1), {}, small, UPDATE[True])
        for t in _each(steps)
    ]
    return found


def of_map(
    layer: str, geometry: Geometry, steps: int, precision: str, opened: float = OPEN, form: Form | None = None
) -> list[Call]:
    """The calls of PrivateMap, in that form, or in the one that the cost model takes."""
    if private_map(geometry) is VectorMap:
        return list(_of_vector(layer, geometry, steps, precision, opened))
    rebuilt = map_choices.rebuilds(geometry, steps, precision) if form is None else form == "rebuild"
    return list(_of_maps(layer, geometry, steps, precision, rebuilt))


def _of_maps(layer: str, geometry: Geometry, steps: int, precision: str, rebuilt: bool) -> Iterator[Call]:
    row = MapPrecision.of(precision, "cuda")
    weights = geometry.groups * geometry.live_taps * geometry.inputs * geometry.outputs
    x = geometry.in_positions * geometry.inputs * geometry.groups
    y = geometry.out_positions * geometry.outputs * geometry.groups
    rows = sum(len(part.taps) * part.target.numel() for part in geometry.classes)
    work = rows * geometry.inputs * geometry.outputs * geometry.groups
    fused = map_choices.class_size(geometry) <= map_choices.FUSED_ROWS
    delta, moment, history = row.delta.itemsize, row.moments.itemsize, row.history.itemsize
    dense = 4 * (x + y)
    for step in _each(steps):
        yield Call(layer, "keep", step, dense + history * (x + y))
        product = {row.shared: work, row.change: 0.0}
        moved = 0
        if step > 1:
            product[row.change] += work
            moved = 4 * (2 * x + y)
        yield Call(layer, "input_grad", step, dense + moved, delta * weights * (step > 1), product)
        times = step if rebuilt else 1
        touched = (step > 1) + (step < steps or not fused)
        state = delta * weights * (touched + (not fused))
        if not rebuilt:
            state += 2 * moment * weights * ((step > 1) + (step < steps))
        moved = history * (x + y) * times + 4 * (x + 2 * y)
        product = {mode: 0.0 for mode in (row.shared, row.change, row.gradient)}
        for mode, count in ((row.shared, work), (row.change, work), (row.gradient, work * times)):
            product[mode] += count
        each = UPDATE[False] + REBUILT * (times - 1)
        yield Call(layer, "forward", step + 1, dense + moved, state, product, weights, each)


def _of_vector(layer: str, geometry: Geometry, steps: int, precision: str, opened: float) -> Iterator[Call]:
    inputs, columns = geometry.inputs, geometry.out_positions * geometry.outputs
    slots = opened * columns
    delta = MapPrecision.of(precision).delta.itemsize
    dense, weights = 4 * (inputs + columns), inputs * slots
    shared = {"ieee" if precision == "float32" else "tf32": float(inputs * columns)}
    for step in _each(steps):
        yield Call(layer, "keep", step, 8 * (inputs + columns) + 4 * slots)
        moved = 0.0 if step == 1 else 4 * slots + 8 * inputs
        yield Call(layer, "input_grad", step, dense + moved, delta * weights * (step > 1), shared)
        state = delta * weights * ((step > 1) + (step < steps))
        moved = 4 * step * slots + 4 * (step + 1) * inputs + 12 * slots
        each = UPDATE[precision == "float32"] + REBUILT * (step - 1)
        yield Call(layer, "forward", step + 1, dense + moved, state, shared, weights, each)


def of_epilogue(chain: Chain, steps: int) -> list[Call]:
    """Batch norm or bias, and activation: one launch each way."""
    if chain.norm is None and chain.act is None and chain.map.inputs[2] is None:
        return []
    y = math.prod(chain.out_shape)
    forward = [Call(chain.map.name, "epilogue", t, 8 * y) for t in range(2, steps + 2)]
    return forward + [Call(chain.map.name, "epilogue backward", t, 12 * y) for t in _each(steps)]


def _adam(step: int, steps: int) -> int:
    """Numbers moved for each parameter by the fused Adam step (docs/kernels.md)."""
    return 2 + 1 + (2 if step > 1 else 0) + (2 if step < steps else 0)


def _each(steps: int) -> range:
    return range(1, steps + 1)


def _numbers(program: Program, value: int) -> int:
    return math.prod(program.values[value].shape)


# -- tables --------------------------------------------------------------------------------------------------------


def by_layer(calls: Sequence[Call], starts: int, rates: Mapping[str, float]) -> list[tuple[str, ...]]:
    """A line for each layer, and the sum; times are of an image of `starts` starts."""
    lines: list[tuple[str, ...]] = [
        ("layer", "Adam updates", "MB a pair: state", "the rest", "memory µs", "matrix µs", "update µs", "least µs")
    ]
    names = list(dict.fromkeys(call.layer for call in calls))
    for name in (*names, "sum"):
        mine = [call for call in calls if name in (call.layer, "sum")]
        ways = (Call.memory_seconds, Call.matrix_seconds, Call.update_seconds, Call.seconds)
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


def text(shape: str, config: SearchConfig, rates: Mapping[str, float]) -> list[str]:
    """The tables of a case, as Markdown."""
    program = lower(cases.build(shape, config.replace(n_seed=1), images=1).gen, (256,))
    steps, starts = config.steps, config.n_seed
    lines = [*markdown(decisions(program, steps, starts, rates)), ""]
    for precision in PRECISIONS:
        calls = of_search(program, steps, precision)
        forms = ", ".join(
            f"{chain.map.name} {'rebuilt' if _rebuilt(chain, steps, precision) else 'stored'}"
            for chain in lift(program)[1]
        )
        most = 1 / (sum(call.seconds(rates) for call in calls) * starts)
        lines += [f"{precision} (moments: {forms}); at most {most:.0f} images/s:", ""]
        lines += [*markdown(by_layer(calls, starts, rates)), ""]
    return lines


def _rebuilt(chain: Chain, steps: int, precision: str) -> bool:
    return private_map(chain.geometry) is VectorMap or map_choices.rebuilds(chain.geometry, steps, precision)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.model", description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=sorted(cases.SHAPES), default="dcgan32x1")
    print("\n".join(text(parser.parse_args().case, SearchConfig(), H200)))


if __name__ == "__main__":
    main()
