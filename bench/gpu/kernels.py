"""Part "kernels": each layer's kernels by themselves, held to float64 first, then timed beside what they must move.

A call's time is that of its launches inside the order of calls that a search makes, so that caches hold what they would
hold there. "forward" and "input_grad" include the products with θ₀, which are timed alone as well.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from adgan_fast.kernels.epilogue import Affine, affine_act, affine_act_grad
from adgan_fast.kernels.loss import pixel_loss
from adgan_fast.kernels.maps.choices import FUSED_ROWS, class_size
from adgan_fast.kernels.maps.general import Maps
from adgan_fast.kernels.maps.private import AdamConstants, Form, PrivateMap

from adgan_fast import ops
from adgan_fast.config import PRECISIONS, SearchConfig
from adgan_fast.core.precision import arithmetic
from adgan_fast.engine.loading import load_kernels
from adgan_fast.engine.triton.lift import Chain, lift, private_map
from adgan_fast.generator.program import Program
from adgan_fast.generator.rules import lower
from adgan_fast.models import DCGANGenerator

from ..race import cases
from . import model as gpu_model
from .clock import Work
from .launches import OPEN
from .model import Call
from .oracle import Oracle
from .part import Part

BOUNDS = {"float32": 1e-4, "tf32": 3e-3, "bf16": 1.5e-2}
"""Of ‖found − wanted‖ / ‖wanted‖, for changes as large as the weights themselves."""
GATED_PAIRS = 5


def kernels(part: Part) -> None:
    """Rows "seconds" of each call of each layer, and of the launches around them."""
    program = program_of(part, "dcgan32x1")
    for precision in ("float32",) if part.smoke else ("float32", "bf16") if part.quick else PRECISIONS:
        with arithmetic(precision):
            for setting in layer_settings(part, program, precision):
                _chain(part, "dcgan32x1", setting)
            _others(part, "dcgan32x1", program, precision)


def program_of(part: Part, shape: str) -> Program:
    """A generator of that shape as a program, with random weights, on the part's device; a tiny one in a smoke run."""
    size, channels, latent, width = (8, 1, 32, 16) if part.smoke else (*cases.SHAPES[shape], 256, 64)
    gen = DCGANGenerator(size, channels, latent, width, generator=torch.Generator().manual_seed(0))
    return lower(gen.eval().to(part.device), (latent,))


def layer_settings(part: Part, program: Program, precision: str, chosen_form: bool = False) -> list[LayerSetting]:
    """Every layer with kernels of its own, in each form that it can have, or in that of the cost model alone."""
    steps, device = 2 if part.smoke else SearchConfig().steps, torch.device(part.device)
    return [
        LayerSetting(program, chain, steps, precision, form, device)
        for chain in lift(program)[1]
        for form in ([None] if chosen_form else _forms(chain))
    ]


@dataclasses.dataclass(frozen=True)
class LayerSetting:
    """A layer, and how it is run."""

    program: Program
    chain: Chain
    steps: int
    precision: str
    form: Form | None
    device: torch.device

    @property
    def adam(self) -> AdamConstants:
        config = SearchConfig()
        return AdamConstants(config.lr_weights, *config.betas, config.eps)

    @property
    def name(self) -> str:
        form = "" if self.form is None else f" {self.form}"
        return f"{self.chain.map.name.split(' ')[0]} {self.precision}{form}"

    def map(self, pairs: int, adam: AdamConstants) -> PrivateMap:
        geometry, theta = self.chain.geometry, self.program.parameters[self.chain.parameter].detach().contiguous()
        return private_map(geometry)(
            geometry, theta, pairs=pairs, steps=self.steps, adam=adam, precision=self.precision, device=self.device,
            form=self.form,
        )  # fmt: skip

    def tensors(self, pairs: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """x of each step and one more, gy of each step; gy zero in the same 1 − OPEN of its columns at every step."""
        g, steps = self.chain.geometry, self.steps
        random = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(steps + 1, pairs, g.in_positions, g.inputs * g.groups, generator=random, device=self.device)
        gy = torch.randn(steps, pairs, g.out_positions, g.outputs * g.groups, generator=random, device=self.device)
        gy *= torch.rand(gy.shape[1:], generator=random, device=self.device) < OPEN
        return list(x), list(gy)


def largest_error(setting: LayerSetting) -> float:
    """The largest error of any result of a search's calls, each as ‖found − wanted‖ / ‖wanted‖; NaN if one is.

    In reduced precision ε is as large as gradients are: else Adam's first step is their sign, which for those that are
    nearly zero is a matter of rounding.
    """
    adam = dataclasses.replace(setting.adam, lr=1e-2)
    if setting.precision != "float32":
        adam = dataclasses.replace(adam, eps=1.0)
    mine = setting.map(GATED_PAIRS, adam)
    x, gy = setting.tensors(GATED_PAIRS)
    theta = setting.program.parameters[setting.chain.parameter]
    oracle = Oracle(setting.chain.geometry, theta, pairs=GATED_PAIRS, adam=adam)
    found = [_error(mine.shared_forward(x[0]), oracle.product(x[0], oracle.weight))]
    for step in range(1, setting.steps + 1):
        here, grad = x[step - 1], gy[step - 1]
        mine.keep(step, here, grad)
        oracle.keep(here, grad)
        gx = mine.shared_input_grad(grad) if step == 1 else mine.input_grad(grad, step)
        found.append(_error(gx, oracle.input_grad(here, grad)))
        oracle.update(step)
        found.append(_error(mine.forward(x[step], step + 1), oracle.product(x[step], oracle.weight)))
    return max(found, key=lambda error: (error != error, error))


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


def calls_of(setting: LayerSetting, pairs: int) -> list[tuple[str, Work]]:
    """The calls of a search in their order, and the products with θ₀ by themselves."""
    mine = setting.map(pairs, setting.adam)
    x, gy = setting.tensors(pairs)
    found: list[tuple[str, Work]] = []
    for step in range(1, setting.steps + 1):
        here, grad, after = x[step - 1], gy[step - 1], x[step]
        found.append((f"keep {step}", partial(mine.keep, step, here, grad)))
        if step > 1:
            found.append((f"input_grad {step}", partial(mine.input_grad, grad, step)))
        else:
            found.append(("input_grad 1", partial(mine.shared_input_grad, grad)))
        found.append((f"forward {step + 1}", partial(mine.forward, after, step + 1)))
    found.append(("shared_forward", partial(mine.shared_forward, x[0])))
    found.append(("shared_input_grad", partial(mine.shared_input_grad, gy[0])))
    return found


def pairs_that_fit(part: Part, each: int, wanted: int) -> int:
    """At most `wanted` pairs of `each` bytes in half of what is free."""
    if not part.clock.cuda:
        return min(wanted, 2)
    return max(1, min(wanted, int(torch.cuda.mem_get_info()[0] / 2) // each))


def _forms(chain: Chain) -> list[Form | None]:
    """Both where the kernels have both, since which is better is a guess before it is measured."""
    both = private_map(chain.geometry) is Maps and class_size(chain.geometry) <= FUSED_ROWS
    return ["rebuild", "stored"] if both else [None]


def _chain(part: Part, shape: str, setting: LayerSetting) -> None:
    if part.left() < 5:
        return part.fail(shape, setting.name, "no time left")
    error = largest_error(setting)
    part.add(shape, setting.name, "error", error, "relative")
    if not error <= BOUNDS[setting.precision]:
        return part.fail(shape, setting.name, f"error {error:.1e}, {BOUNDS[setting.precision]:.0e} is allowed")
    geometry = setting.chain.geometry
    buffers = private_map(geometry).bytes_of_pair(geometry, setting.steps, setting.precision, setting.form)
    activations = geometry.in_positions * geometry.inputs + geometry.out_positions * geometry.outputs
    pairs = pairs_that_fit(part, buffers + 8 * (setting.steps + 2) * geometry.groups * activations, 1024)
    times = part.clock.each(calls_of(setting, pairs), **_rounds(part, 12))
    model: dict[str, list[Call]] = {}
    for launch in gpu_model.of_map("", geometry, setting.steps, setting.precision, OPEN, setting.form):
        model.setdefault(f"{launch.call} {launch.step}", []).append(launch)
    _shares(part, shape, setting.name, times, model, pairs)


def _shares(
    part: Part,
    shape: str,
    name: str,
    times: Mapping[str, list[float]],
    model: Mapping[str, Sequence[Call]],
    pairs: int,
) -> None:
    """Rows of times, with what the model says of each: bytes, and its least time by memory and by matrix units."""
    rates = {**gpu_model.H200, **part.rates()}
    for called, seconds in times.items():
        more: dict[str, Any] = {"pairs": pairs, "layer": name, "call": called}
        if called in model:
            launches, median = model[called], statistics.median(seconds)
            more["bytes"] = sum(it.bytes + it.state for it in launches) * pairs
            more["share_of_copy"] = sum(it.memory_seconds(rates) for it in launches) * pairs / median
            more["share_of_matrix"] = sum(it.matrix_seconds(rates) for it in launches) * pairs / median
        part.add_times(shape, f"{name} {called}", seconds, **more)


def _rounds(part: Part, rounds: int) -> dict[str, int]:
    return {"rounds": 1, "warm": 0} if part.smoke else {"rounds": rounds}


def _others(part: Part, shape: str, program: Program, precision: str) -> None:
    """Epilogues, the loss, and Adam for the small parameters, each on what a chunk has of them."""
    pairs = 2 if part.smoke else 1024
    load_kernels(torch.device(part.device))
    for name, work, moved in _launches(program, pairs, torch.device(part.device)):
        call = Call("", name, 0, name, moved / pairs)
        times = part.clock.cold(work, **_rounds(part, 20))
        _shares(part, shape, precision, {name: times}, {name: [call]}, pairs)


def _launches(program: Program, pairs: int, device: torch.device) -> Iterator[tuple[str, Work, int]]:
    """Name, work and bytes."""
    chains = lift(program)[1]
    for chain in chains:
        positions, channels = chain.geometry.out_positions, chain.geometry.outputs * chain.geometry.groups
        y, ga = (torch.randn(pairs, positions, channels, device=device) for _ in range(2))
        affine = Affine(*(torch.rand(n, device=device) + 0.5 for n in (channels, channels)),
                        *(torch.rand(pairs, channels, device=device) for _ in range(2)))  # fmt: skip
        act = chain.act.op if chain.act is not None else "none"
        layer = chain.map.name.split(" ")[0]
        yield f"epilogue of {layer}", partial(affine_act, y, affine, act), 2 * y.nbytes
        yield f"epilogue backward of {layer}", partial(affine_act_grad, ga, y, affine, act), 3 * y.nbytes
    made = torch.randn(pairs, *program.image_shape, device=device)
    image = torch.randn(pairs // 64 or 1, *program.image_shape, device=device)
    yield "loss", lambda: pixel_loss("l2", made, image), 2 * made.nbytes
    lifted = {chain.parameter for chain in chains}
    small = [p.detach() for i, p in enumerate(program.parameters) if i not in lifted]
    state = [[torch.rand(pairs, *p.shape, device=device) for p in small] for _ in range(4)]
    rates = [5e-5] * len(small)
    yield (
        "adam of the small parameters",
        lambda: ops.adam_step_(*state, [], rates, 0.5, 0.999, 1e-8, 2, False),
        7 * sum(p.nbytes for p in state[0]),
    )
