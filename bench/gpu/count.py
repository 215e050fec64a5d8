"""What the kernels of a search cost by their machine code, for each candidate tile; no GPU is needed.

    python -m bench.gpu.count [--target sm_90] [--case dcgan32x1] [--out FILE]

Compiles what FILE lacks, in one process, a row on disk as soon as it is made, and prints a table of all. (Kernels or a
Triton that have changed since are not noticed, but a test does: take FILE away and count anew.) A row has
registers, spills, shared memory, how many blocks a multiprocessor holds, and instructions by kind. The table's times
are those of an image of 64 starts, each as if nothing else cost time: issue (the four schedulers of a multiprocessor
issue an instruction of a warp each cycle), matrix units and device memory (model.py; the same for all tiles), and the
cache (what threads ask for, at the rate that choices.py guesses). How instructions are counted, and what that cannot
see: sass.py. What is left out is waiting, for memory, for matrix units, at barriers: few blocks on a multiprocessor and
many barriers cost more than the table says.

Which tiles are candidates: candidates.py. Layers with one input position have no tiles: one row a kernel.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import triton
from adgan_fast.kernels import aot
from adgan_fast.kernels.maps import choices as map_choices

from adgan_fast.config import SearchConfig
from adgan_fast.engine.triton.search import lifted
from adgan_fast.generator.program import Program

from ..race import cases
from ..race.report import markdown
from . import model as gpu_model
from . import sass
from .candidates import OPTIONS, candidates
from .counted import Row, file_of, instructions, load, name_of
from .launches import Launch, launches_of, launches_of_thin
from .model import Call

PRECISIONS = ("float32", "bf16")


def count(launches: Iterable[Launch], target: str) -> Row:
    """Of one kernel's launches: sums of a pair over a search; resources as the largest of any launch.

    Raises what compiling raises, and ValueError where the machine code is not understood (sass.py).
    """
    kinds: Counter[str] = Counter()
    products: Counter[str] = Counter()
    accessed = 0.0
    issued: dict[str, float] = {}
    registers = spills = shared = 0
    blocks = 32
    compiled: dict[str, tuple[aot.Resources, sass.Code, sass.Code]] = {}  # several steps may launch the same
    for launch in launches:
        key = repr((launch.case.constexprs, launch.case.options))
        if key not in compiled:
            made = aot.compile_case(launch.case, target)
            code = sass.machine_code(sass.disassembled(made.binary))
            compiled[key] = made, code, sass.ptx_code(made.assembly)
        made, code, ptx = compiled[key]
        warps = launch.case.options["num_warps"]
        tally = sass.tally(code, ptx, launch.turns)
        times = launch.programs * warps
        for name, number in tally.kinds.items():
            kinds[name] += number * times
        for name, number in tally.products.items():
            products[name] += number * times
        accessed += tally.accessed * times
        issued[f"{launch.call} {launch.step}"] = round(tally.instructions * times)
        registers, spills, shared = max(registers, made.registers), max(spills, made.spills), max(shared, made.shared)
        blocks = min(blocks, resident(made.registers, made.shared, warps))
    return {
        "registers": registers, "spills": spills, "shared": shared, "blocks": blocks,
        "kinds": {name: round(kinds[name]) for name in (*sass.KINDS, "other") if kinds[name]},
        "products": {name: round(number) for name, number in sorted(products.items())},
        "accessed": round(accessed), "issued": issued,
    }  # fmt: skip


def resident(registers: int, shared: int, warps: int) -> int:
    """Blocks that a multiprocessor of compute capability 9.0 holds at once.

    Source: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability": 65,536 registers, given
    to warps by 256, 228 KiB of shared memory, of which a block takes 1 KiB more than it asks for, 64 warps, 32 blocks.
    """
    by_registers = 65536 // (-(-registers * 32 // 256) * 256) // warps
    return min(32, 64 // warps, by_registers, 228 * 1024 // (shared + 1024))


def orders(program: Program, steps: int) -> Iterator[tuple[Row, list[Launch]]]:
    """What names a row, with its launches: the defaults of all kernels first."""
    rounds: list[list[tuple[Row, list[Launch]]]] = []
    left, chains = lifted(program, SearchConfig())
    for precision in PRECISIONS:
        for chain in chains:
            geometry = chain.geometry
            named = {"layer": chain.map.name, "precision": precision}
            launches = launches_of(geometry, precision, steps, {})
            for kernel in dict.fromkeys(launch.kernel for launch in launches):
                if kernel not in OPTIONS:
                    rounds.append([({**named, "kernel": kernel, "tiles": None}, _of(kernel, launches))])
                    continue
                rounds.append([])
                for tiles in candidates(kernel, geometry, precision):
                    mine = _of(kernel, launches_of(geometry, precision, steps, {kernel: tiles}))
                    rounds[-1].append(({**named, "kernel": kernel, "tiles": dataclasses.asdict(tiles)}, mine))
        for layer in left.layers:
            if layer.op == "thin":
                named = {"layer": layer.name, "precision": precision, "tiles": None}
                bias = layer.inputs[2] is not None
                launches = list(launches_of_thin(layer.attrs["geometry"], bias, precision, steps))
                kernels = dict.fromkeys(launch.kernel for launch in launches)
                rounds += [[({**named, "kernel": kernel}, _of(kernel, launches))] for kernel in kernels]
    for turn in itertools.zip_longest(*rounds):
        yield from (order for order in turn if order is not None)


def _of(kernel: str, launches: Iterable[Launch]) -> list[Launch]:
    return [launch for launch in launches if launch.kernel == kernel]


def fill(file: Path, program: Program, steps: int, target: str) -> list[Row]:
    """Make what `file` lacks, a row after the other; returns all of them.

    Tiles that do not compile, or whose code is not understood, have a row with the error.
    """
    rows = load(file)
    known = [name_of(row) for row in rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    for named, launches in orders(program, steps):
        if name_of(named) in known:
            continue
        try:
            row = {**named, **count(launches, target), "triton": triton.__version__}
        except (triton.CompilationError, ValueError) as error:
            row = {**named, "failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:200]}
            row["triton"] = triton.__version__
        rows.append(row)
        with open(file, "a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
    return rows


def table(rows: Sequence[Row], program: Program, config: SearchConfig) -> list[tuple[str, ...]]:
    """A line for each row, by layer, precision and kernel, those with the fewest instructions first."""
    rates, starts = gpu_model.H200, config.n_seed
    lines: list[tuple[str, ...]] = [HEADS]
    for precision in PRECISIONS:
        calls = gpu_model.of_search(program, config.steps, precision)
        for (layer, kernel), same in _grouped(rows, precision):
            of = [call for call in calls if (call.layer, call.kernel) == (layer, kernel)]
            fixed = [
                sum(way(call, rates) for call in of) * starts for way in (Call.matrix_seconds, Call.memory_seconds)
            ]
            for row in same:
                first = (layer.split(" ")[0], precision, kernel, _words(row["tiles"]))
                if "failed" in row:
                    lines.append((*first, *[""] * (len(HEADS) - 5), row["failed"]))
                    continue
                issue = starts * 32 / rates["lanes"]
                cache = row["accessed"] * starts / map_choices.CACHE_RATE
                figures = (str(row[name]) for name in ("registers", "spills", "shared", "blocks"))
                times = (
                    *(row["kinds"].get(kind, 0) * issue for kind in KINDS),
                    instructions(row) * issue,
                    *fixed,
                    cache,
                )
                lines.append((*first, *figures, *(f"{seconds * 1e6:.0f}" for seconds in times)))
    return lines


KINDS = (*sass.KINDS, "other")
HEADS = (
    "layer", "precision", "kernel", "tiles", "registers", "spills", "shared bytes", "blocks",
    *KINDS, "issue µs", "matrix µs", "memory µs", "cache µs",
)  # fmt: skip
"""Of the table; under a kind's name microseconds of issuing it."""


def _grouped(rows: Sequence[Row], precision: str) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    mine = [row for row in rows if row["precision"] == precision]
    for name in dict.fromkeys((row["layer"], row["kernel"]) for row in mine):
        same = [row for row in mine if (row["layer"], row["kernel"]) == name]
        yield name, sorted(same, key=lambda row: instructions(row) if "issued" in row else float("inf"))


def _words(tiles: Mapping[str, int] | None) -> str:
    """ "64 × 32 × 128, 4 warps, 2 stages": rows, inner, outer."""
    if tiles is None:
        return "-"
    blocks = " × ".join(str(tiles[name]) for name in ("rows", "inner", "outer"))
    return f"{blocks}, {tiles['warps']} warps, {tiles['stages']} stages"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.count", description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=("sm_90",), default="sm_90", help="whose opcodes and limits are known")
    parser.add_argument("--case", choices=sorted(cases.SHAPES), default="dcgan32x1")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: bench/results/count/<target>-<case>.jsonl")
    given = parser.parse_args()
    config = SearchConfig()
    program = gpu_model.program_of(given.case, config)
    rows = fill(given.out or file_of(given.target, given.case), program, config.steps, given.target)
    print("\n".join(markdown(table(rows, program, config))))


if __name__ == "__main__":
    main()
