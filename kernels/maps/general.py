"""Private weights of linear, conv2d and conv_transpose2d maps: `PrivateMap` by the kernels of general_kernels.py.

    y = x · θ₀ + x · Δ        gx = gy · θ₀ᵀ + gy · Δᵀ

The products of θ₀ are dense, over the rows of all pairs together. Those of Δ are each pair's own; in the forward pass
the update that is due is done on the tile of Δ in hand, so that Δ crosses memory once in each direction for a step, and
once more to be read for the input's gradient. Bytes of device memory for each weight of each pair over k steps, b bytes
a number of Δ and c one of m and v:

    rebuild   3b(k - 1)                 m and v are made from the history of x and gy, which is small
    stored    3b(k - 1) + 4c(k - 1)

A class of more than FUSED_ROWS positions is updated by a kernel of its own, and Δ's part is b(4k - 2).
Results are the same at every launch: no atomics, and each sum in a fixed order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import triton

from ..case import TARGETS, Case
from ..launch import backend_of, check_tensor, launch
from .choices import FUSED_ROWS, KERNELS, Tiles, block, chosen_tiles, class_size, default_tiles, form_of
from .general_kernels import change_kernel, product_kernel, shared_kernel, update_kernel
from .geometry import Geometry
from .precision import MAP_PRECISIONS, Backend, MapPrecision, delta_scale, round_to_tf32
from .private import AdamConstants, Form, check_theta

__all__ = ["Maps", "blocks_of", "cases", "cases_of_search"]


# -- what is compiled ----------------------------------------------------------------------------------------------


_LEAST_EPS = 1e-18  # its square is a normal number of float32, and so is that of √v̂ + ε


def _width(size: int, rows: int) -> int:
    """Rows of a table with room for `size`, in whole blocks."""
    return -(-size // rows) * rows


class _Launches:
    """The compile-time constants and options of each launch of one map."""

    def __init__(
        self,
        geometry: Geometry,
        row: MapPrecision,
        steps: int,
        form: Form,
        tiles: Mapping[str, Tiles],
        eps: float = 1e-8,
    ) -> None:
        self.geometry, self.row, self.steps, self.rebuild, self.tiles = geometry, row, steps, form == "rebuild", tiles
        self.tiny_eps = eps < _LEAST_EPS
        self.size = class_size(geometry)
        self.fused = self.size <= FUSED_ROWS
        # One table of sources serves change and product, whose blocks differ.
        if self.fused:
            self.width = block(FUSED_ROWS, self.size)
        else:
            largest = max(block(self.tiles[name].rows, self.size) for name in ("update", "product"))
            self.width = _width(self.size, largest)
        self.sink_width = _width(geometry.in_positions, block(tiles["product"].rows, geometry.in_positions))

    def _options(self, kernel: str) -> dict[str, Any]:
        tiles = self.tiles[kernel]
        return {"num_warps": tiles.warps, "num_stages": tiles.stages, "enable_fp_fusion": True}

    def _sizes(self) -> dict[str, int]:
        geometry = self.geometry
        return {
            "GROUPS": geometry.groups, "TAPS": geometry.live_taps, "P": geometry.in_positions,
            "POUT": geometry.out_positions,
        }  # fmt: skip

    def update(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Constants and options of change_kernel, or of update_kernel where an update is not fused with its product."""
        geometry, name = self.geometry, "change" if self.fused else "update"
        tiles = self.tiles[name]
        constants = {
            **self._sizes(), "K": geometry.inputs, "N": geometry.outputs, "WIDTH": self.width,
            "BLOCK_K": block(tiles.inner, geometry.inputs), "BLOCK_N": block(tiles.outer, geometry.outputs),
            "STEP": step if self.rebuild else min(step, 2),
            "REBUILD": self.rebuild, "LAST": step == self.steps, "GRADIENT": self.row.gradient,
            "TINY_EPS": self.tiny_eps,
        }  # fmt: skip
        if self.fused:
            constants |= {"CLASSES": len(geometry.classes), "CHANGE": self.row.change}
        else:
            constants["ROWS"] = block(tiles.rows, self.size)
        return constants, self._options(name)

    def product(self, backward: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of product_kernel, forward (where an update is not fused with its product) or for the input's gradient."""
        return self._product("product", backward, self.row.change), self._options("product")

    def shared(self, backward: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of shared_kernel."""
        size = self.geometry.in_positions if backward else self.size
        constants = {**self._product("shared", backward, self.row.shared), "SIZE": size}
        constants["ROWS"] = self.tiles["shared"].rows
        return constants, self._options("shared")

    def _product(self, kernel: str, backward: bool, mode: str) -> dict[str, Any]:
        geometry, tiles, sizes = self.geometry, self.tiles[kernel], self._sizes()
        inner, outer = geometry.inputs, geometry.outputs
        width, classes, size = self.width, len(geometry.classes), self.size
        if backward:
            inner, outer, width, classes, size = outer, inner, self.sink_width, 1, geometry.in_positions
            sizes["P"], sizes["POUT"] = sizes["POUT"], sizes["P"]
        return {
            **sizes, "IN": inner, "OUT": outer, "CLASSES": classes, "WIDTH": width,
            "ROWS": block(tiles.rows, size), "BLOCK_IN": block(tiles.inner, inner),
            "BLOCK_OUT": block(tiles.outer, outer), "TRANSPOSED": backward, "MODE": mode,
        }  # fmt: skip


def blocks_of(kernel: Any, constants: Mapping[str, Any], pairs: int) -> int:
    """Programs of a launch of one of the four kernels, with these compile-time constants, for so many pairs."""
    groups = constants["GROUPS"]
    if kernel in (change_kernel, update_kernel):
        blocks = groups * triton.cdiv(constants["N"], constants["BLOCK_N"])
        if kernel is change_kernel:
            return pairs * blocks * constants["CLASSES"]
        return pairs * blocks * constants["TAPS"] * triton.cdiv(constants["K"], constants["BLOCK_K"])
    blocks = groups * constants["CLASSES"] * triton.cdiv(constants["OUT"], constants["BLOCK_OUT"])
    if kernel is product_kernel:
        return pairs * blocks * constants["WIDTH"] // constants["ROWS"]
    return blocks * triton.cdiv(pairs * constants["SIZE"], constants["ROWS"])


def _padded(table: torch.Tensor, width: int) -> torch.Tensor:
    """(rows, Q) to (rows, width), -1 in the new places."""
    return torch.nn.functional.pad(table, (0, width - table.shape[1]), value=-1)


# -- the map -------------------------------------------------------------------------------------------------------


class Maps:
    """One layer's private weights: see `PrivateMap`.

    Raises ValueError for a tensor of another shape, dtype or layout than the map's, RuntimeError for a device that
    this process cannot run Triton on.
    """

    def __init__(
        self,
        geometry: Geometry,
        theta: torch.Tensor,
        *,
        pairs: int,
        steps: int,
        adam: AdamConstants,
        precision: str,
        device: torch.device,
        form: Form | None = None,
    ) -> None:
        check_theta(theta, geometry)
        device = torch.device(device)
        backend = backend_of(change_kernel, device)
        row = MapPrecision.of(precision, backend)
        form = form_of(geometry, steps, precision, form)
        tiles = chosen_tiles(geometry, precision, backend, device)
        self.geometry, self.pairs, self.steps, self.adam, self.form = geometry, pairs, steps, adam, form
        self.device = device
        self._launches = _Launches(geometry, row, steps, form, tiles, adam.eps)
        self._scale = delta_scale(row, adam, steps)
        packed = geometry.pack(theta.detach().to(device))[:, : geometry.live_taps].contiguous()
        self._theta = round_to_tf32(packed) if row.shared == "tf32" else packed
        self._tables(device)
        shape = (pairs, *packed.shape)
        self._delta = torch.empty(shape if steps else (0,), dtype=row.delta, device=device)
        moments = shape if form == "stored" and steps > 1 else (0,)
        self._m, self._v = (torch.empty(moments, dtype=row.moments, device=device) for _ in range(2))
        kept = (steps if form == "rebuild" else min(steps, 1), pairs)
        x_shape, y_shape = self._x_shape, self._y_shape
        self._kept_x = torch.empty((*kept, *x_shape[1:]), dtype=row.history, device=device)
        self._kept_gy = torch.empty((*kept, *y_shape[1:]), dtype=row.history, device=device)

    @property
    def _x_shape(self) -> tuple[int, int, int]:
        return self.pairs, self.geometry.in_positions, self.geometry.inputs * self.geometry.groups

    @property
    def _y_shape(self) -> tuple[int, int, int]:
        return self.pairs, self.geometry.out_positions, self.geometry.outputs * self.geometry.groups

    def _tables(self, device: torch.device) -> None:
        geometry, launches = self.geometry, self._launches
        taps, positions = geometry.live_taps, geometry.in_positions
        sources = [_padded(part.source, launches.width) for part in geometry.classes]
        targets = [_padded(part.target.unsqueeze(0), launches.width) for part in geometry.classes]
        spans = [(part.taps.start, len(part.taps)) for part in geometry.classes]
        classes = [i for i, part in enumerate(geometry.classes) for _ in part.taps]
        everywhere = torch.arange(positions, dtype=torch.int32).unsqueeze(0)

        def on_device(numbers: Any) -> torch.Tensor:
            return torch.as_tensor(numbers, dtype=torch.int32).contiguous().to(device)

        self._classes = on_device(classes)
        self._forward_tables = on_device(spans), on_device(torch.cat(sources)), on_device(torch.cat(targets))
        self._backward_tables = (
            on_device([(0, taps)]),
            on_device(_padded(geometry.sink[:taps], launches.sink_width)),
            on_device(_padded(everywhere, launches.sink_width)),
        )

    @staticmethod
    def bytes_of_pair(geometry: Geometry, steps: int, precision: str, form: Form | None = None) -> int:
        """Bytes of the buffers that each pair adds: Δ, m and v, the history."""
        row = MapPrecision.of(precision)
        weights = geometry.groups * geometry.live_taps * geometry.inputs * geometry.outputs
        rows = geometry.groups * (geometry.in_positions * geometry.inputs + geometry.out_positions * geometry.outputs)
        stored = form_of(geometry, steps, precision, form) == "stored"
        moments = 2 * row.moments.itemsize if stored and steps > 1 else 0
        kept = min(steps, 1) if stored else steps
        return weights * (row.delta.itemsize * (steps > 0) + moments) + kept * rows * row.history.itemsize

    def shared_forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · θ₀: the forward pass of step 1, without bias. Any number of pairs."""
        return self._shared(check_tensor("x", x, self._x_shape, True), self._y_shape, False)

    def shared_input_grad(self, gy: torch.Tensor) -> torch.Tensor:
        """gy · θ₀ᵀ: the input's gradient of step 1. Any number of pairs."""
        return self._shared(check_tensor("gy", gy, self._y_shape, True), self._x_shape, True)

    def keep(self, step: int, x: torch.Tensor, gy: torch.Tensor) -> None:
        """See PrivateMap.keep."""
        self._check_step(step, 1, self.steps)
        slot = step - 1 if self.form == "rebuild" else 0
        self._kept_x[slot].copy_(check_tensor("x", x, self._x_shape))
        self._kept_gy[slot].copy_(check_tensor("gy", gy, self._y_shape))

    def forward(self, x: torch.Tensor, step: int) -> torch.Tensor:
        """See PrivateMap.forward."""
        self._check_step(step, 2, self.steps + 1)
        y = self.shared_forward(check_tensor("x", x, self._x_shape))
        launches = self._launches
        constants, options = launches.update(step - 1)
        kept = self._kept_x, self._kept_gy, self._kept_x.stride(0), self._kept_gy.stride(0)
        state = self._delta, self._m, self._v
        if launches.fused:
            launch(
                self.device, change_kernel, blocks_of(change_kernel, constants, self.pairs),
                x, y, *kept, *state, *self._forward_tables, *self._scalars(step - 1), 1.0 / self._scale,
                **constants, **options,
            )  # fmt: skip
        else:
            _, source, target = self._forward_tables
            launch(
                self.device, update_kernel, blocks_of(update_kernel, constants, self.pairs),
                *kept, *state, self._classes, source, target, *self._scalars(step - 1),
                **constants, **options,
            )  # fmt: skip
            self._add_product(x, y, False)
        return y

    def input_grad(self, gy: torch.Tensor, step: int) -> torch.Tensor:
        """See PrivateMap.input_grad."""
        self._check_step(step, 2, self.steps)
        gx = self.shared_input_grad(check_tensor("gy", gy, self._y_shape))
        self._add_product(gy, gx, True)
        return gx

    def _scalars(self, update: int) -> tuple[float, ...]:
        """Adam's constants, with what update `update` makes of them; the step is in Δ's scale."""
        adam, (factor_m, factor_v) = self.adam, self.adam.factors(update)
        return adam.beta1, adam.beta2, factor_m * self._scale, factor_v, adam.eps

    def _shared(self, x: torch.Tensor, shape: tuple[int, int, int], backward: bool) -> torch.Tensor:
        pairs = x.shape[0]
        y = torch.empty((pairs, *shape[1:]), dtype=torch.float32, device=self.device)
        constants, options = self._launches.shared(backward)
        tables = self._backward_tables if backward else self._forward_tables
        blocks = blocks_of(shared_kernel, constants, pairs)
        launch(self.device, shared_kernel, blocks, x, y, self._theta, *tables, pairs, **constants, **options)
        return y

    def _add_product(self, x: torch.Tensor, y: torch.Tensor, backward: bool) -> None:
        """y += x · Δ, or with Δᵀ."""
        constants, options = self._launches.product(backward)
        tables = self._backward_tables if backward else self._forward_tables
        blocks = blocks_of(product_kernel, constants, self.pairs)
        unscale = 1.0 / self._scale
        launch(self.device, product_kernel, blocks, x, y, self._delta, *tables, unscale, **constants, **options)

    def _check_step(self, step: int, first: int, last: int) -> None:
        if not first <= step <= last:
            raise ValueError(f"step must be in {first}..{last}, got {step}")


# -- ahead of time -------------------------------------------------------------------------------------------------

_TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
_POINTERS = (
    "x",
    "y",
    "theta",
    "kept_x",
    "kept_gy",
    "delta",
    "moment",
    "square",
    "spans",
    "source",
    "target",
    "classes",
)


def _case(name: str, kernel: Any, launches: _Launches, what: tuple[dict[str, Any], dict[str, Any]]) -> Case:
    row = launches.row
    types = {
        "x": torch.float32, "y": torch.float32, "theta": torch.float32, "kept_x": row.history, "kept_gy": row.history,
        "delta": row.delta, "moment": row.moments, "square": row.moments,
    }  # fmt: skip
    constants, options = what
    signature = {}
    for param in kernel.params:
        if param.name in types:
            signature[param.name] = _TYPES[types[param.name]]
        elif param.name in _POINTERS:
            signature[param.name] = "*i32"
        elif not param.is_constexpr:
            signature[param.name] = param.annotation_type or "i32"
    # A step's stride is a multiple of 16 wherever the number of channels is.
    aligned = tuple(name for name in signature if name in _POINTERS or name in ("x_step", "gy_step"))
    return Case(name, kernel, signature, constants, aligned, options, tensor_core=True)


def cases_of_search(
    geometry: Geometry, precision: str, backend: Backend, steps: int, form: Form, tiles: Mapping[str, Tiles]
) -> Iterator[tuple[str, int, Case]]:
    """Every launch of these kernels in a search, as the call of PrivateMap that makes it, that call's step, and itself.

    From the second forward pass on, and from step 1's backward pass: the first forward pass is shared by all images.
    """
    launches = _Launches(geometry, MapPrecision.of(precision, backend), steps, form, tiles)
    update = change_kernel if launches.fused else update_kernel
    for step in range(1, steps + 1):
        yield "input_grad", step, _case("shared, back", shared_kernel, launches, launches.shared(True))
        if step > 1:
            yield "input_grad", step, _case("product, back", product_kernel, launches, launches.product(True))
        yield "forward", step + 1, _case("shared", shared_kernel, launches, launches.shared(False))
        yield "forward", step + 1, _case(f"update {step}", update, launches, launches.update(step))
        if not launches.fused:
            yield "forward", step + 1, _case("product", product_kernel, launches, launches.product(False))


def cases() -> Iterator[Case]:
    """Launches of a search of five steps in DCGAN's maps of 32×32 (and one larger), in every precision and form."""
    for backend in ("cuda", "hip"):
        targets = tuple(name for name, target in TARGETS.items() if target.backend == backend)
        for precision in (
            MAP_PRECISIONS if backend == "cuda" else ("float32", "bf16")
        ):  # "tf32" is float32's but for a root
            for case in _cases(precision, backend):
                yield dataclasses.replace(case, targets=targets)


def _cases(precision: str, backend: Backend) -> Iterator[Case]:
    row = MapPrecision.of(precision, backend)

    def of_map(side: int, channels: int, form: Form, steps: int = 5) -> _Launches:
        """Of the transposed convolution that doubles both sides and halves the channels."""
        shape = {"kernel": (4, 4), "stride": (2, 2), "padding": (1, 1), "output_padding": (0, 0), "dilation": (1, 1)}
        geometry = Geometry.conv_transpose2d((side, side), channels, channels // 2, groups=1, **shape)
        size = class_size(geometry)
        return _Launches(
            geometry, row, steps, form, {name: default_tiles(name, precision, backend, size) for name in KERNELS}
        )

    label = f"maps {precision}{' (hip)' if backend == 'hip' else ''},"
    small, middle, large = of_map(4, 256, "rebuild"), of_map(8, 128, "stored"), of_map(16, 128, "stored")
    short = of_map(8, 128, "rebuild", 3)
    for step in (1, 3, 5):
        yield _case(f"{label} change, rebuild, update {step} of 5", change_kernel, small, small.update(step))
        yield _case(f"{label} change, stored, update {step} of 5", change_kernel, middle, middle.update(step))
    yield _case(f"{label} change, rebuild, update 3 of 3, 64 rows", change_kernel, short, short.update(3))
    yield _case(f"{label} update, stored, update 3 of 5, 256 rows", update_kernel, large, large.update(3))
    yield _case(f"{label} product, 256 rows", product_kernel, large, large.product(False))
    for found in (small, middle):
        rows = found.geometry.in_positions
        yield _case(f"{label} product, back, {rows} rows", product_kernel, found, found.product(True))
    yield _case(f"{label} shared", shared_kernel, small, small.shared(False))
    yield _case(f"{label} shared, back", shared_kernel, small, small.shared(True))
