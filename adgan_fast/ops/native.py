"""native_search: the whole of Algorithm 1 in C++, and what else is asked of that code. Kernels: csrc/ops_native.cpp.

There is no plain-PyTorch implementation: these operators run once the extension is loaded (`load_extension`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

from ..config import LOSSES

NATIVE_LOSSES = (*LOSSES, "function")
"""In the order of csrc/core/modes.h, as `config.WEIGHTS` is; "function" is one of the caller's."""

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
"""In the order of csrc/core/modes.h; baseline is SSE2 on x86-64, NEON on aarch64."""


class SearchArguments(NamedTuple):
    """What `native_search` takes, in the order of its schema, which is made from this.

    Attributes:
        images: (N, C, H, W), float32 and contiguous on the CPU, as all other tensors.
        starts: (S, *latent), the same for every image, or (N, S, *latent).
        parameters, constants: as the program names them.
        code, numbers: the program, as `adgan_fast.engine.native.encode` writes it.
        weights: who owns a copy of the weights, by its place in `config.WEIGHTS`.
        loss: by its place in `NATIVE_LOSSES`.
        steps: k.
        rates: lr_z, lr_weights, beta1, beta2, eps.
        threads: to use, where memory allows no more; 0: all of PyTorch's.
        poison: fill all scratch memory with NaN before each use (for tests).
        compact: keep moments, or what a first layer has moved by, in 16 bits: precision="bf16".
        own_loss: for the loss "function" the address of a C function, which is called once for each pass of each pair,
            from the threads that search, without Python's lock (a ctypes callback takes it): void (const float*
            reconstruction, const float* image, float* gradient, float* value, int* done), all [H][W][C]. The gradient
            is not asked for where it is null. Where it leaves done at 0 the search ends with an error. 0 for the other
            losses. `adgan_fast.engine.native.callback` makes one.
        isa: instruction set, by its place in `INSTRUCTION_SETS`; -1: the best of this processor. Others are for tests.
        stop: the address of a C int; once that is not 0 the search ends soon, with an error. 0: nothing stops it.
    """

    images: Tensor
    starts: Tensor
    parameters: Sequence[Tensor]
    constants: Sequence[Tensor]
    code: Sequence[int]
    numbers: Sequence[float]
    weights: int
    loss: int
    steps: int
    rates: Sequence[float]
    threads: int = 0
    poison: bool = False
    compact: bool = False
    own_loss: int = 0
    isa: int = -1
    stop: int = 0


_TYPES = {
    Tensor: "Tensor", Sequence[Tensor]: "Tensor[]", Sequence[int]: "int[]", Sequence[float]: "float[]",
    int: "int", bool: "bool",
}  # fmt: skip


def _define(operator: str, names: Sequence[str], returns: str) -> None:
    """Define an operator of some of the arguments above."""
    types, defaults = get_type_hints(SearchArguments), SearchArguments._field_defaults
    given = [f"{_TYPES[types[name]]} {name}" + (f"={defaults[name]}" if name in defaults else "") for name in names]
    torch.library.define(f"adgan_fast::{operator}", f"({', '.join(given)}) -> {returns}")


_GRADIENTS = ("images", "starts", "parameters", "constants", "code", "numbers", "weights", "loss", "own_loss")
_PROFILE = (
    "images", "starts", "parameters", "constants", "code", "numbers", "weights", "loss", "steps", "rates", "compact"
)  # fmt: skip

_define("native_search", SearchArguments._fields, "(Tensor, Tensor, Tensor, Tensor)")
_define("native_gradients", _GRADIENTS, "Tensor[]")
_define("native_profile", _PROFILE, "Tensor")
torch.library.define(
    "adgan_fast::native_bytes",
    "(int[] code, float[] numbers, int weights, int loss, int steps, int n_seed, bool compact=False) -> int[]",
)
torch.library.define("adgan_fast::native_isa", "() -> int")


def native_search(*arguments: Any, **more: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The whole of Algorithm 1 for every (image, start).

    A pair's result depends on that pair alone (per_sample: on its image and all starts), to the last bit: not on the
    others of the call, nor on the number of threads.

    Args:
        arguments, more: those of `SearchArguments`, in its order or by name.

    Returns:
        Initial and final losses (N, S), final latents (N, S, *latent), final reconstructions (N, S, C, H, W).

    Raises:
        RuntimeError: naming the argument; or where the program does not fit together.
    """
    return torch.ops.adgan_fast.native_search.default(*SearchArguments(*arguments, **more))


@torch.library.register_fake("adgan_fast::native_search")
def _native_search_fake(*arguments: Any, **more: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given = SearchArguments(*arguments, **more)
    latent_rank = given.code[_latent_rank_at(given.code)]
    per_image = given.starts.dim() - latent_rank == 2
    n, s = given.images.shape[0], given.starts.shape[1 if per_image else 0]
    latent = given.starts.shape[2 if per_image else 1 :]
    losses = given.images.new_empty((n, s))
    return (
        losses,
        torch.empty_like(losses),
        given.images.new_empty((n, s, *latent)),
        given.images.new_empty((n, s, *given.images.shape[1:])),
    )


def _latent_rank_at(code: Sequence[int]) -> int:
    """Where `code` holds the rank of the latent: values are (kind, index, rank, *sizes), the latent's kind is 0."""
    at = 1
    while code[at] != 0:
        at += 3 + code[at + 2]
    return at + 2


def native_gradients(given: SearchArguments) -> list[Tensor]:
    """Gradients of the loss of one start (1, *latent) against one image (1, C, H, W), by the code that searches.

    Returns:
        Of the latent (1, *latent), then, unless weights are frozen, of each parameter in its shape.
    """
    return torch.ops.adgan_fast.native_gradients.default(*(getattr(given, name) for name in _GRADIENTS))


def native_profile(given: SearchArguments) -> Tensor:
    """Seconds of `native_search` on one thread, for bench/studies/profile_native.py.

    Returns:
        (layers + 1, 2): forward and backward of each layer; in the last row what belongs to none, and the updates.
    """
    return torch.ops.adgan_fast.native_profile.default(*(getattr(given, name) for name in _PROFILE))


def native_bytes(
    code: Sequence[int], numbers: Sequence[float], weights: int, loss: int, steps: int, n_seed: int, compact: bool
) -> tuple[int, int]:
    """Bytes of what all threads of `native_search` share, and of what each has for itself; n_seed: S."""
    found = torch.ops.adgan_fast.native_bytes.default(code, numbers, weights, loss, steps, n_seed, compact)
    return found[0], found[1]


def best_instruction_set() -> str:
    """The one that `native_search` takes on this processor."""
    return INSTRUCTION_SETS[torch.ops.adgan_fast.native_isa.default()]
