"""Private weights of a map with one input position: K latents to J = Pout·N outputs, with an update of rank one.

The gradient of such a map is an outer product, g_s[c, j] = x_s[c] · gy_s[j]. So a pair keeps no gradient and no moment:
m_t and v_t are sums over s ≤ t of products of two short vectors, remade in registers where an update is due. And a
column j whose gy_s[j] has been exactly zero in every step so far has had no update: it takes no memory traffic and no
time. Columns that have had one are numbered in *slots*, in the order in which their gradients first were not zero
(within a step by column), and Δ is stored by slots, with room for all columns:

    delta       (G, K, capacity)       float32, or float16 times a power of two (precision.py)
    gradients   (G, steps, capacity)   float32, gy_s by slot; zero where the slot came later
    xs          (G, steps, K)          float32
    counts      (G, steps)             int32, slots in use after step s
    column      (G, capacity)          int32, the column of each slot
    slot        (G, J)                 int32, the slot of each column, or -1

Nothing waits for a count: it stays on the device, and programs beyond it end at once.

Bytes of device memory, for each parameter of the layer that is in a slot, b bytes a number of Δ (4, or 2 for "bf16"):

    forward(2)   forward(t), 2 < t ≤ k   forward(k + 1)   input_grad(t)   all of k steps
    b            2b                      b                b               3b(k - 1): for k = 5, 48 or 24

and for each pair, short against K · slots: keep 8J + 8K + 4 slots, and 4 for a new slot; forward(t + 1) 4t · slots +
4(t + 1)K, and y at the slots; input_grad 4 slots. The products with θ₀ are dense GEMMs over all pairs.

Arithmetic for each such parameter at update t: 2t multiply-adds, a square root (none at t = 1), a division, and about
five other operations. Adam's factors that depend on t alone are taken into the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton

from ..case import Case
from ..launch import backend_of, check_tensor, launch
from .choices import VECTOR_KERNELS, Tiles, chosen_tiles, default_tiles
from .geometry import Geometry
from .precision import MAP_PRECISIONS, MapPrecision, delta_scale
from .private import AdamConstants, Form, check_theta
from .vector_kernels import LINE, forward_kernel, input_grad_kernel, keep_kernel

__all__ = ["VectorMap", "cases"]

_KEEP_BLOCK = 1024  # columns of one turn of keep_kernel
_INPUT_GRAD_ROWS = 8
# Steps of history that a thread keeps in registers, two numbers each for each of its 4 or 8 slots (16 bytes of Δ).
# Longer histories are read again for every row.
_RESIDENT = 8


class VectorMap:
    """Private weights of a layer with one input position: see `PrivateMap`, whose order of calls is insisted on.

    The forward pass and the input's gradient take the θ₀ part by torch.matmul, in whatever precision that is set to.
    "bf16" stores Δ in float16, scaled; all else is float32 and short, the history too. Root and division are correctly
    rounded in "float32", as in ``adam.adam_update``, and good to a few ulp otherwise.

    Raises:
        ValueError: a geometry of several input positions or groups; form="stored", which would cost more bytes than the
            gradients that are remade; a tensor of another shape, dtype or layout; a step out of order.
        RuntimeError: a device that this process cannot run Triton on; more blocks than a grid has.
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
        _check_geometry(geometry, form)
        check_theta(theta, geometry)
        device = torch.device(device)
        backend = backend_of(forward_kernel, device)
        self._tiles = chosen_tiles(geometry, precision, backend, device, VECTOR_KERNELS)[_FORWARD]
        self.geometry, self.pairs, self.steps, self.adam, self.device = geometry, pairs, steps, adam, device
        self.form: Form = "rebuild"
        self._precision = MapPrecision.of(precision)
        self._scale = delta_scale(self._precision, adam, steps)
        self._theta, live = _dense(geometry, theta.detach().to(device))
        self._partial = not bool(live.all())
        self._live = live.to(torch.int8)
        rows, columns = self._theta.shape
        self._rows, self._columns, self._capacity = rows, columns, _capacity(geometry)

        def buffer(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
            return torch.empty((pairs, *shape), dtype=dtype, device=device)

        self._delta = buffer(rows if steps else 0, self._capacity, dtype=self._precision.delta)
        self._gradients = buffer(steps, self._capacity, dtype=torch.float32)
        self._xs = buffer(steps, rows, dtype=torch.float32)
        self._counts, self._column, self._slot = buffer(steps), buffer(self._capacity), buffer(columns)
        self._kept = 0

    @staticmethod
    def bytes_of_pair(geometry: Geometry, steps: int, precision: str, form: Form | None = None) -> int:
        """Bytes of the buffers that each pair adds, with room for a slot for every column."""
        _check_geometry(geometry, form)
        capacity, columns = _capacity(geometry), geometry.out_positions * geometry.outputs
        delta = capacity * geometry.inputs * MapPrecision.of(precision).delta.itemsize if steps else 0
        return delta + 4 * (steps * (capacity + geometry.inputs + 1) + capacity + columns)

    def shared_forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · θ₀: the forward pass of step 1, without bias. Any number of pairs."""
        y = torch.matmul(check_tensor("x", x, self._x_shape, True).view(-1, self._rows), self._theta)
        return y.view(-1, self.geometry.out_positions, self.geometry.outputs)

    def shared_input_grad(self, gy: torch.Tensor) -> torch.Tensor:
        """gy · θ₀ᵀ: the input's gradient of step 1. Any number of pairs."""
        rows = check_tensor("gy", gy, self._y_shape, True).view(-1, self._columns)
        return torch.matmul(rows, self._theta.mT).view(-1, 1, self._rows)

    def keep(self, step: int, x: torch.Tensor, gy: torch.Tensor) -> None:
        """See PrivateMap.keep."""
        if step not in (1, self._kept + 1) or step > self.steps:
            raise ValueError(f"step {step} of {self.steps} cannot be kept after step {self._kept}")
        x, gy = check_tensor("x", x, self._x_shape), check_tensor("gy", gy, self._y_shape)
        launch(
            self.device, keep_kernel, self.pairs,
            gy, x, self._gradients, self._xs, self._counts, self._column, self._slot, self._live,
            self._rows, self._columns, self._capacity, self.steps, step,
            **_keep_constants(step, self._partial),
            **_KEEP_OPTIONS,
        )  # fmt: skip
        self._kept = step

    def forward(self, x: torch.Tensor, step: int) -> torch.Tensor:
        """See PrivateMap.forward."""
        self._check_kept(step, step - 1)
        y = self.shared_forward(check_tensor("x", x, self._x_shape))
        adam, update = self.adam, step - 1
        factor_m, factor_v = adam.factors(update)
        constants, options = _forward_constants(self._precision, update, update == self.steps, self._tiles)
        launch(
            self.device, forward_kernel, self.pairs * triton.cdiv(self._capacity, constants["BLOCK"]),
            self._delta, self._gradients, self._xs, self._counts, self._column, x, y,
            self._rows, self._columns, self._capacity, self.steps, update,
            adam.beta1, adam.beta2, factor_m * self._scale, factor_v, adam.eps, 1.0 / self._scale,
            **constants,
            **options,
        )  # fmt: skip
        return y

    def input_grad(self, gy: torch.Tensor, step: int) -> torch.Tensor:
        """See PrivateMap.input_grad. gy must be that of keep(step), which has its columns in slots already."""
        self._check_kept(step, step)
        gx = self.shared_input_grad(check_tensor("gy", gy, self._y_shape))
        constants = _input_grad_constants(self._precision)
        launch(
            self.device, input_grad_kernel, self.pairs * triton.cdiv(self._rows, constants["ROWS"]),
            self._delta, self._gradients, self._counts, gx, self._rows, self._capacity, self.steps, step,
            1.0 / self._scale,
            **constants,
            **_OPTIONS,
        )  # fmt: skip
        return gx

    @property
    def _x_shape(self) -> tuple[int, int, int]:
        return self.pairs, 1, self._rows

    @property
    def _y_shape(self) -> tuple[int, int, int]:
        return self.pairs, self.geometry.out_positions, self.geometry.outputs

    def _check_kept(self, step: int, kept: int) -> None:
        if step < 2 or kept != self._kept:
            raise ValueError(f"step {step} needs step {kept} to be the last that was kept, which is {self._kept}")


def _check_geometry(geometry: Geometry, form: Form | None) -> None:
    if geometry.in_positions != 1 or geometry.groups != 1:
        raise ValueError(
            f"a vector map has one input position and one group, not {geometry.in_positions} and {geometry.groups}"
        )
    if form not in (None, "rebuild"):
        raise ValueError(f"form={form!r}: a vector map remakes its moments from two vectors a step, and stores none")


def _capacity(geometry: Geometry) -> int:
    """Columns that have weights, up to a multiple of LINE. (From one input position, a tap reaches one at most.)"""
    return -(-geometry.live_taps * geometry.outputs // LINE.value) * LINE.value


def _dense(geometry: Geometry, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """θ₀ (K, J), zero in columns that have no weights, and which columns have some: (J,) bool."""
    taps = geometry.live_taps
    target = geometry.sink[:taps, 0].long().to(theta.device)
    packed = geometry.pack(theta)[0, :taps]
    dense = theta.new_zeros(geometry.inputs, geometry.out_positions, geometry.outputs)
    dense[:, target] = packed.transpose(0, 1)
    live = torch.zeros(geometry.out_positions, geometry.outputs, dtype=torch.bool, device=theta.device)
    live[target] = True
    return dense.flatten(1), live.flatten()


# -- specialisations -----------------------------------------------------------------------------------------------

_FORWARD = VECTOR_KERNELS[0]
_KEEP_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
_OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}  # a multiply-add is one rounding less, and one instruction


def _keep_constants(step: int, partial: bool) -> dict[str, Any]:
    return {"FIRST": step == 1, "PARTIAL": partial, "BLOCK": _KEEP_BLOCK}


def _forward_constants(
    precision: MapPrecision, update: int, last: bool, tiles: Tiles
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Constants and options of forward_kernel."""
    constants = {
        "HISTORY": update if update <= _RESIDENT else 0,
        "LAST": last,
        "ROUNDED": precision.rounded,
        "ROWS": tiles.rows,
        "BLOCK": tiles.outer,
    }
    return constants, {**_OPTIONS, "num_warps": tiles.warps}


def _input_grad_constants(precision: MapPrecision) -> dict[str, Any]:
    return {"ROWS": _INPUT_GRAD_ROWS, "BLOCK": 512 // precision.delta.itemsize}


def cases() -> Iterator[Case]:
    """What `VectorMap` launches for up to five steps, its longest history in registers, and one that is not.

    Nothing is specialised for K, J, the number of steps or the step: one case serves every shape.
    """
    for step, partial in ((1, False), (1, True), (2, False), (2, True)):
        words = ["keep", "first" if step == 1 else "", "partial" if partial else ""]
        constants = _keep_constants(step, partial)
        yield _case(", ".join(filter(None, words)), keep_kernel, "", constants, _KEEP_OPTIONS)
    updates = [(t, last) for t in range(1, 6) for last in (False, True)] + [(_RESIDENT, False), (_RESIDENT + 1, False)]
    for precision in map(MapPrecision.of, MAP_PRECISIONS):
        tiles = default_tiles(_FORWARD, precision.name, "cuda", 1)
        for update, last in updates:
            yield forward_case(precision, update, last, tiles)
        if precision.name != "tf32":  # the same kernel as float32
            constants = _input_grad_constants(precision)
            yield _case(
                f"input_grad {precision.name}", input_grad_kernel, _pointer(precision), constants, _OPTIONS,
                wide_load_bytes=(constants["ROWS"] * precision.delta.itemsize + 4) * constants["BLOCK"],
            )  # fmt: skip


def forward_case(precision: MapPrecision, update: int, last: bool, tiles: Tiles) -> Case:
    """What the forward pass after that update launches, with those tiles."""
    constants, options = _forward_constants(precision, update, last, tiles)
    words = [
        precision.name,
        f"update {update if constants['HISTORY'] else 'of any step'}",
        "last" if last else "",
    ]
    row_bytes = tiles.rows * tiles.outer * precision.delta.itemsize
    return _case(
        f"forward {', '.join(filter(None, words))}", forward_kernel, _pointer(precision), constants, options,
        # The first rows and those ahead of a turn; the history of gradients.
        wide_load_bytes=2 * row_bytes * (update > 1) + 4 * tiles.outer * (constants["HISTORY"] or 1),
        wide_store_bytes=row_bytes * (not last),
    )  # fmt: skip


def _pointer(precision: MapPrecision) -> str:
    """Triton's type of delta."""
    return "*fp16" if precision.delta == torch.float16 else "*fp32"


def _case(name: str, kernel: Any, delta: str, constants: dict[str, Any], options: dict[str, Any], **more: Any) -> Case:
    """`delta`: its type, of a kernel that takes it."""
    types = dict.fromkeys(("gradients", "xs", "x", "y", "gy", "gx"), "*fp32")
    types |= dict.fromkeys(("counts", "column", "slot"), "*i32") | {"live": "*i8", "delta": delta}
    types |= dict.fromkeys(("rows", "columns", "capacity", "steps", "step"), "i32")
    types |= dict.fromkeys(("beta1", "beta2", "factor_m", "factor_v", "eps", "unscale"), "fp64")
    signature = {n: kind for n, kind in types.items() if n in kernel.arg_names}
    aligned = tuple(n for n, kind in signature.items() if kind[0] == "*" or n == "capacity")
    return Case(f"vector {name}", kernel, signature, constants, aligned, options, **more)
