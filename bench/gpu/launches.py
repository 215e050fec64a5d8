"""The launches of a search as they are compiled, with how many programs each has and how often its loops turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import triton
from adgan_fast.kernels import gather, products
from adgan_fast.kernels.case import Case
from adgan_fast.kernels.maps import choices as map_choices
from adgan_fast.kernels.maps import general, vector
from adgan_fast.kernels.maps.choices import Tiles, default_tiles
from adgan_fast.kernels.maps.geometry import Geometry
from adgan_fast.kernels.maps.precision import MapPrecision

from adgan_fast.engine.triton.lift import private_map
from adgan_fast.engine.triton.thin import terms_of

OPEN = 0.6
"""Share of a vector map's columns that ever have a gradient: 2,400 of 4,096 in a trial on the CPU."""
PAIRS = 1024
"""Of a launch; a program of `shared_kernel` takes rows of several pairs."""


@dataclasses.dataclass(frozen=True)
class Launch:
    """A launch of a search.

    Attributes:
        call, step: of PrivateMap; of a convolution of few outputs alike, and "weight_grad".
        kernel: of choices.KERNELS, or "keep", "vector forward", "vector input_grad", "matmul" or "gather".
        case: to compile.
        programs: of a pair, those with work.
        turns: of each loop of the source, in their order.
    """

    call: str
    step: int
    kernel: str
    case: Case
    programs: float
    turns: tuple[float, ...]


def launches_of(geometry: Geometry, precision: str, steps: int, tiles: Mapping[str, Tiles]) -> list[Launch]:
    """Of a layer, in a search of that many steps; `tiles` may lack kernels, which take the default."""
    used = {**defaults(geometry, precision), **tiles}
    if private_map(geometry) is vector.VectorMap:
        return list(_of_vector(geometry, precision, steps, used["vector forward"]))
    form = map_choices.form_of(geometry, steps, precision, None)
    found = []
    for call, step, case in general.cases_of_search(geometry, precision, "cuda", steps, form, used):
        programs = general.blocks_of(case.kernel, case.constexprs, PAIRS) / PAIRS
        found.append(Launch(call, step, _NAMES[case.kernel], case, programs, _turns(case)))
    return found


def defaults(geometry: Geometry, precision: str) -> dict[str, Tiles]:
    """The default tiles of each kernel, whatever kernels/configs holds."""
    rows = map_choices.class_size(geometry)
    kernels = (*map_choices.KERNELS, *map_choices.VECTOR_KERNELS)
    return {kernel: default_tiles(kernel, precision, "cuda", rows) for kernel in kernels}


def _turns(case: Case) -> tuple[float, ...]:
    """Of the one loop of each of the four kernels; taps are those of the average class."""
    sizes = case.constexprs
    if case.kernel is general.update_kernel:
        return (sizes["WIDTH"] / sizes["ROWS"],)
    inner, block = (sizes[name] for name in (("K", "BLOCK_K") if "K" in sizes else ("IN", "BLOCK_IN")))
    return (sizes["TAPS"] / sizes["CLASSES"] * triton.cdiv(inner, block),)


def _of_vector(geometry: Geometry, precision: str, steps: int, tiles: Tiles) -> Iterator[Launch]:
    """OPEN of the columns have slots, from the first step on."""
    known = {case.name: case for case in vector.cases()}
    rows, columns = geometry.inputs, geometry.out_positions * geometry.outputs
    for step in range(1, steps + 1):
        keep = known["vector keep, first" if step == 1 else "vector keep"]
        block = keep.constexprs["BLOCK"]
        yield Launch("keep", step, "keep", keep, 1, (triton.cdiv(rows, block), triton.cdiv(columns, block)))
        if step > 1:
            grad = known[f"vector input_grad {precision}"]
            sizes = grad.constexprs
            turns = OPEN * columns / sizes["BLOCK"]
            yield Launch("input_grad", step, "vector input_grad", grad, triton.cdiv(rows, sizes["ROWS"]), (turns,))
        update = vector.forward_case(MapPrecision.of(precision), step, step == steps, tiles)
        sizes = update.constexprs
        programs = OPEN * columns / sizes["BLOCK"]
        yield Launch("forward", step + 1, "vector forward", update, programs, (triton.cdiv(rows, sizes["ROWS"]),))


def launches_of_thin(geometry: Geometry, bias: bool, precision: str, steps: int) -> Iterator[Launch]:
    """Of a convolution of few outputs (engine/triton/thin.py), in a search of that many steps."""
    rows, inputs, columns = geometry.in_positions, geometry.inputs, geometry.outputs * geometry.taps
    outputs = geometry.outputs * geometry.out_positions

    def matmul(call: str, step: int, order: str, height: int, width: int, depth: int) -> Launch:
        case = products.case_of(precision, "cuda", order, height, width, depth)
        sizes = case.constexprs
        programs = triton.cdiv(height, sizes["ROWS"]) * triton.cdiv(width, sizes["COLUMNS"])
        return Launch(call, step, "matmul", case, programs, (triton.cdiv(depth, sizes["DEPTH"]),))

    def gathered(call: str, step: int, terms: int, bias: bool, outputs: int) -> Launch:
        case = gather.case_of(terms, bias)
        return Launch(call, step, "gather", case, triton.cdiv(outputs, case.constexprs["BLOCK"]), ())

    for step in range(1, steps + 1):
        yield gathered("input_grad", step, 1, False, rows * columns)
        yield matmul("input_grad", step, "a · bᵀ", rows, inputs, columns)
        yield matmul("weight_grad", step, "aᵀ · b", inputs, columns, rows)
        yield matmul("forward", step + 1, "a · b", rows, columns, inputs)
        yield gathered("forward", step + 1, terms_of(geometry), bias, outputs)


_NAMES = dict(
    zip((general.change_kernel, general.update_kernel, general.product_kernel, general.shared_kernel),
        map_choices.KERNELS, strict=True)
)  # fmt: skip
