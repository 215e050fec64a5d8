"""`native`: the whole search in C++ (csrc/), for any generator that has a Program; CPU, float32.

Python cuts a block into calls, from a thread of its own, and stops what is at work where an interrupt comes. A call's
threads are PyTorch's own; where the loss is a function in Python, they are the workers of the other engines: each
calls C++, which calls the loss.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from ... import ops
from ...core.block import Block, Cancelled
from ...core.engine import Gradients
from ...core.job import Job, Plan
from ...core.own_loss import OwnLoss
from ...core.tiles import Tile
from ...core.workers import run_items
from ...generator.program import Layer, Program
from ..batched import by_name

KINDS = ("latent", "activation", "parameter", "constant", "weight")
OPS = (
    "linear", "conv2d", "conv_transpose2d", "batch_norm",
    "relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus", "silu", "scale_shift",
    "add", "mul", "div",
    "reshape", "permute", "upsample_nearest", "pixel_shuffle",
)  # fmt: skip
"""In the order of csrc/core/op.h."""
WEIGHTS = ("per_seed", "per_sample", "frozen")
LOSSES = ("l2", "l1", "laplacian", "a function")
BATCH = 16
"""Samples in hand at a time where they share weights (csrc/core/plan_builder.cpp)."""
CALL_SECONDS = 2.0  # of work in one call, about: progress is told between calls
CALL_BYTES = 64 * 2**20  # of results of one call, at most, but for one image's


class Native:
    name = "native"
    exact = True
    needs_program = True

    def why_not(self) -> str | None:
        return ops.load_extension()

    def refuses(self, job: Job) -> str | None:
        if job.device.type != "cpu":
            return f"it runs on the CPU, not on {job.device}"
        if job.dtype != torch.float32:
            return f"it computes in float32, not in {job.dtype}"
        return None if job.program is None else unknown(job.program)

    def bytes_of_pair(self, job: Job) -> int:
        """What a thread holds, and θ₀ as the kernels want it (one for all threads).

        The results of a call, at most about CALL_BYTES, are not in it.
        """
        mode, loss, steps, _ = settings(job)
        shared, own = torch.ops.adgan_fast.native_bytes.default(
            *encode(job.lowered), mode, loss, steps, job.n_seed, compact=job.config.precision == "bf16"
        )
        return shared + own

    def default_chunk(self, job: Job) -> int:
        """A thread has one owner of weights at a time, whatever the chunk."""
        return 1

    def gradients(self, job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """See Engine.gradients."""
        own = None if job.loss.builtin else OwnLoss(job.loss, job.image_shape)
        address = own.address if own else 0
        (parameters, constants), (code, numbers) = tensors_of(job), encode(job.lowered)
        image, start = image.unsqueeze(0).contiguous(), z.unsqueeze(0).contiguous()
        mode, loss, _, rates = settings(job)
        given = (image, start, parameters, constants, code, numbers, mode, loss)
        try:
            made = ops.native_search(*given, 0, rates, own_loss=address)[3]
            of_latent, *of_weights = torch.ops.adgan_fast.native_gradients.default(*given, address)
        except RuntimeError:
            if own is not None and own.error is not None:
                raise own.error from None
            raise
        return Gradients(made[0, 0], of_latent[0], by_name(job, of_weights))

    def run(self, job: Job, plan: Plan, block: Block) -> None:
        """See Engine.run."""
        call = _Call(job, block)
        if job.loss.builtin:
            return call.search_all(plan.lanes)
        # Each call has one thread; the loss is asked at every step whether to stop.
        call.size = max(1, min(call.size, len(block) * job.n_seed // (4 * plan.lanes)))
        own = OwnLoss(job.loss, job.image_shape, block.check)
        with contextlib.suppress(Cancelled):
            run_items(lambda tile: call.search(tile, 1, own), list(call.tiles(1)), job.device, plan.lanes, block.cancel)
        if own.error is not None:
            raise own.error


class _Call:
    """Calls of the operator for parts of a block.

    `size`: pairs to take in one, `most` of them; `stop`: not 0 once the calls are to end.
    """

    def __init__(self, job: Job, block: Block):
        self.job, self.block = job, block
        self.stop = ctypes.c_int(0)
        self.most = max(1, CALL_BYTES // (4 * (_size(job.image_shape) + _size(job.latent_shape))))
        # Before any has been timed: half of CALL_SECONDS, at a slow machine's rate.
        guess = CALL_SECONDS * 2e10 / max(1, 6 * job.lowered.multiply_adds * (job.config.steps + 1))
        self.size = max(1, min(int(guess), self.most))
        self._tensors, self._code = tensors_of(job), encode(job.lowered)

    def search_all(self, lanes: int) -> None:
        """Search the block from a thread of its own, so that this one hears an interrupt while C++ is at work.

        With a built-in loss: one of the caller's has workers of its own.
        """

        def work() -> None:
            for tile in self.tiles(lanes):
                self.search(tile, lanes)

        with ThreadPoolExecutor(1, "adgan_fast", torch.set_num_threads, (torch.get_num_threads(),)) as pool:
            try:
                pool.submit(work).result()
            except BaseException:
                self.stop.value = 1
                raise

    def tiles(self, lanes: int) -> Iterator[Tile]:
        """Some starts, and all images of the block for these: their first pass is shared. By `size` as it then is."""
        n, n_seed, start = len(self.block), self.job.n_seed, 0
        while start < n_seed:
            # Each call lays θ₀ out anew: with few images, many starts make it worth while.
            many = max(lanes, self.size // n // lanes * lanes)
            shared = self.job.config.weights == "per_sample"
            stop = n_seed if shared else min(n_seed, start + many)
            first = 0
            while first < n:
                images = max(1, self.size // (stop - start))
                if shared:  # an image for each thread
                    images = max(lanes, images // lanes * lanes)
                last = min(n, first + images)
                yield Tile(first, last, start, stop)
                first = last
            start = stop

    def search(self, tile: Tile, lanes: int, own: OwnLoss | None = None) -> None:
        """Search a tile on so many threads, and put the results into the block. Cancelled where the loss failed."""
        job, block, (parameters, constants), (code, numbers) = self.job, self.block, self._tensors, self._code
        starts = block.starts_of(tile)
        if block.shares_starts:
            starts = starts[0]
        before = time.monotonic()
        try:
            found = ops.native_search(
                block.images_of(tile).contiguous(), starts.contiguous(), parameters, constants,
                code, numbers, *settings(job), lanes=lanes,
                compact=job.config.precision == "bf16", own_loss=own.address if own else 0,
                stop=ctypes.addressof(self.stop),
            )  # fmt: skip
        except RuntimeError:
            if own is None or own.error is None:
                raise
            raise Cancelled from None
        block.put(tile, *found)
        if own is None:
            pairs, seconds = tile.shape[0] * tile.shape[1], time.monotonic() - before
            self.size = max(1, min(int(pairs * CALL_SECONDS / max(seconds, 1e-6)), 4 * pairs, self.most))


def _size(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())


def tensors_of(job: Job) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Parameters and constants of the program as the op takes them."""
    program = job.lowered
    return [p.detach().contiguous() for p in program.parameters], [
        c.detach().to(torch.float32).contiguous() for c in program.constants
    ]


def settings(job: Job) -> tuple[int, int, int, list[float]]:
    """weights, loss, steps and rates of the op."""
    config = job.config
    rates = [config.lr_z, config.lr_weights, *config.betas, config.eps]
    loss = LOSSES.index(job.loss.name if job.loss.builtin else "a function")
    return WEIGHTS.index(config.weights), loss, config.steps, rates


def unknown(program: Program) -> str | None:
    """What of a program the C++ code does not know, by the layer's name; None if it knows all."""
    for layer in program.layers:
        if layer.op not in OPS:
            return f"layer {layer.name!r}: {layer.op} is not in the C++ engine"
        if layer.op in ("linear", "conv2d", "conv_transpose2d", "batch_norm"):
            for i in layer.inputs[1:3]:
                if i is not None and program.values[i].kind == "weight" and _transposed(program, layer, i) is None:
                    return f"layer {layer.name!r}: its weight is computed from parameters, which C++ does not do"
    return None


def _transposed(program: Program, layer: Layer, weight: int) -> int | None:
    """The stored matrix whose transpose a linear layer's weight is, if it is that."""
    for maker in program.layers:
        if maker.output == weight and layer.op == "linear" and layer.inputs[1] == weight:
            source = maker.inputs[0]
            assert source is not None
            if maker.op == "permute" and maker.attrs["dims"] == (1, 0):
                return source if program.values[source].kind in ("parameter", "constant") else None
    return None


def encode(program: Program) -> tuple[list[int], list[float]]:
    """A program as the flat lists that csrc/core/program.cpp reads.

    code: the number of values, and each as (kind, index, rank, *shape); latent and output; the number of layers, and
    each as (op, output, number of inputs, *inputs, number of whole numbers, *them, number of real ones). numbers: the
    real ones in order. An absent input is -1.
    """
    code, numbers = [len(program.values)], []
    for value in program.values:
        code += [KINDS.index(value.kind), value.index, len(value.shape), *value.shape]
    code += [program.latent, program.output]
    layers = [_encode(program, layer) for layer in program.layers]
    used = {i for _, inputs, _, _, _ in layers for i in inputs} | {program.output}
    layers = [layer for layer in layers if layer[2] in used]  # without transposes that their layers do themselves
    code.append(len(layers))
    for op, inputs, output, whole, real in layers:
        code += [op, output, len(inputs), *inputs, len(whole), *whole, len(real)]
        numbers += real
    return code, numbers


Encoded = tuple[int, list[int], int, list[int], list[float]]


def _encode(program: Program, layer: Layer) -> Encoded:
    """op, inputs, output, whole numbers, real numbers."""
    attrs, inputs = layer.attrs, [-1 if i is None else i for i in layer.inputs]
    whole: list[int] = []
    if layer.op == "linear":
        source = _transposed(program, layer, inputs[1])
        whole = [int(source is not None)]
        inputs[1] = inputs[1] if source is None else source
    elif layer.op in ("conv2d", "conv_transpose2d"):
        whole = [*attrs["stride"], *attrs["padding"], *attrs["dilation"], attrs["groups"]]
    elif layer.op == "permute":
        whole = list(attrs["dims"])
    elif layer.op == "upsample_nearest":
        whole = list(attrs["scale"])
    elif layer.op == "pixel_shuffle":
        whole = [attrs["factor"]]
    names = {
        "batch_norm": ("eps",), "leaky_relu": ("slope",), "elu": ("alpha", "scale", "input_scale"),
        "softplus": ("beta", "threshold"), "scale_shift": ("scale", "shift"), "add": ("alpha",),
    }  # fmt: skip
    return OPS.index(layer.op), inputs, layer.output, whole, [float(attrs[name]) for name in names.get(layer.op, ())]
