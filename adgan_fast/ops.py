"""The contracts of the custom operators: schema, shapes, dtypes, fake and plain-PyTorch implementations.

No kernel lives here. Each operator exists as soon as this module is imported and computes correctly on any device
with ordinary torch operations; faster kernels register themselves for the same operator when they are loaded:

* CPU: the C++ extension (`csrc/`), loaded by :func:`load_extension`;
* CUDA: the Triton kernels (`adgan_fast.kernels`).

Importing this module loads neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["adam_step_", "adam_step_torch", "check_adam_step", "load_extension", "native_search"]

_EXTENSION_REMEDY = (
    "To get it, install a C++ compiler and torch>=2.11, then reinstall adgan-fast from source with "
    "ADGAN_FAST_BUILD_EXT=1 pip install --no-build-isolation ."
)


def check_adam_step(
    params: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    grads: Sequence[Tensor],
    initial: Sequence[Tensor],
    lrs: Sequence[float],
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """Raise a RuntimeError that names the first argument of :func:`adam_step_` that breaks its contract.

    Every kernel written in Python calls this; the C++ kernel makes the same checks, in the same words.
    """
    _require(step >= 1, f"step must be 1 or more, got {step}")
    _require(0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0, f"betas must lie in [0, 1), got {beta1} and {beta2}")
    _require(eps >= 0.0, f"eps must not be negative, got {eps}")
    _require(not initial or step == 1, f"initial is read at step 1 only; pass an empty list at step {step}")
    lists = {"exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs, "grads": grads, "lrs": lrs}
    if initial:
        lists["initial"] = initial
    for name, entries in lists.items():
        _require(len(entries) == len(params), f"params has {len(params)} entries but {name} has {len(entries)}")
    for k, p in enumerate(params):
        _require(
            p.dtype in (torch.float32, torch.float64) and p.dtype == params[0].dtype,
            f"params[{k}] must be float32 or float64, the same for every entry, got {p.dtype}",
        )
        _require(p.dim() >= 1, f"params[{k}] needs a first dimension of pairs, got a tensor without dimensions")
        _check_like(p, f"params[{k}]", p, params[0].device)
        for name, tensors in (("exp_avgs", exp_avgs), ("exp_avg_sqs", exp_avg_sqs), ("grads", grads)):
            _check_like(tensors[k], f"{name}[{k}]", p, p.device)
            _check_shape(tensors[k], f"{name}[{k}]", p)
        if initial:
            _check_like(initial[k], f"initial[{k}]", p, p.device)
            _check_shape(initial[k], f"initial[{k}]", p if initial[k].dim() == p.dim() else p.new_empty(p.shape[1:]))


def _check_like(t: Tensor, name: str, p: Tensor, device: torch.device) -> None:
    _require(t.dtype == p.dtype, f"{name} must have its parameter's dtype {p.dtype}, got {t.dtype}")
    _require(t.device == device, f"{name} must be on {device} as the other entries, got {t.device}")
    _require(t.layout == torch.strided and t.is_contiguous(), f"{name} must be contiguous")


def _check_shape(t: Tensor, name: str, p: Tensor) -> None:
    _require(t.shape == p.shape, f"{name} must have shape {list(p.shape)}, got {list(t.shape)}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(f"adgan_fast::adam_step_: {message}")


def adam_step_torch(
    params: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    grads: Sequence[Tensor],
    initial: Sequence[Tensor],
    lrs: Sequence[float],
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    last: bool,
) -> None:
    """`adam_step_` in plain PyTorch: one Adam step, in place, over parameters of which every pair owns a private copy.

    Kingma & Ba (ICLR 2015), algorithm 1, in the form of `torch.optim.Adam`, to float rounding::

        m = beta1 m + (1 - beta1) g            v = beta2 v + (1 - beta2) g²
        p = p - lr / (1 - beta1^step) · m / (sqrt(v) / sqrt(1 - beta2^step) + eps)

    A gradient that has been zero since step 1 is exactly no update, whatever eps. An entry's result depends on that
    entry alone, to the last bit: not on its place in the tensor, nor on the number of threads.

    Args:
        params: K tensors (G, *shape_k), G pairs' private copies; float32 or float64, contiguous, one dtype and one
            device for all K. Written.
        exp_avgs: K tensors shaped as `params`: m. Not read at step 1 (may be uninitialised). Written unless `last`.
        exp_avg_sqs: the same for v.
        grads: K tensors shaped as `params`.
        initial: empty, or at step 1 the K values to start from: each either shape_k (one for all pairs) or
            (G, *shape_k). The old value is then read from here, and `params` may be uninitialised.
        lrs: K learning rates.
        beta1: decay of m, in [0, 1).
        beta2: decay of v, in [0, 1).
        eps: added to the denominator, ≥ 0.
        step: 1-based number of this step, for the bias corrections.
        last: no further step follows, so m and v need not be written.

    Raises:
        RuntimeError: naming the argument and what was expected of it.
    """
    check_adam_step(params, exp_avgs, exp_avg_sqs, grads, initial, lrs, beta1, beta2, eps, step)
    bias1 = 1.0 - beta1**step
    inv_sqrt_bias2 = 1.0 / math.sqrt(1.0 - beta2**step)
    for k, (p, m, v, g) in enumerate(zip(params, exp_avgs, exp_avg_sqs, grads, strict=True)):
        # The operations and order of csrc/core/adam.cpp. No fused multiply-add (alpha=, addcmul): torch's vectorised
        # loops use it in a loop's body and not in its tail, so that an element's result would depend on its place.
        new_m = g * (1.0 - beta1)
        new_v = (g * (1.0 - beta2)).mul_(g)
        if step > 1:
            new_m += m * beta1
            new_v += v * beta2
        if not last:
            m.copy_(new_m)
            v.copy_(new_v)
        denom = new_v.sqrt_().mul_(inv_sqrt_bias2).add_(eps)
        update = new_m.div_(denom).mul_(lrs[k] / bias1)
        if eps < torch.finfo(p.dtype).tiny:  # else denom > 0
            update.masked_fill_(denom == 0, 0.0)  # no gradient so far: 0/0
        torch.sub(initial[k] if initial else p, update, out=p)


# The operator, with the function above as its kernel wherever no faster one is registered. `custom_op` rather than a
# bare schema, since it also tells autograd that params, exp_avgs and exp_avg_sqs have been written.
adam_step_ = torch.library.custom_op(
    "adgan_fast::adam_step_",
    adam_step_torch,
    mutates_args=("params", "exp_avgs", "exp_avg_sqs"),
    schema=(
        "(Tensor(a!)[] params, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, Tensor[] grads, Tensor[] initial, "
        "float[] lrs, float beta1, float beta2, float eps, int step, bool last) -> ()"
    ),
)


@adam_step_.register_fake
def _adam_step_fake(
    params: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    grads: Sequence[Tensor],
    initial: Sequence[Tensor],
    lrs: Sequence[float],
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    last: bool,
) -> None:
    check_adam_step(params, exp_avgs, exp_avg_sqs, grads, initial, lrs, beta1, beta2, eps, step)


torch.library.define(
    "adgan_fast::native_search",
    "(Tensor images, Tensor starts, Tensor[] parameters, Tensor[] constants, int[] code, float[] numbers, "
    "int weights, int loss, int steps, float[] rates, int lanes=0, bool poison=False, bool compact=False, "
    "int own_loss=0, int isa=-1, int stop=0) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
"""In the order of csrc/core/cpu.h; baseline is SSE2 on x86-64, NEON on aarch64."""

torch.library.define("adgan_fast::native_isa", "() -> int")  # the best of this processor

torch.library.define(  # of what the threads of native_search share, and of what each has for itself
    "adgan_fast::native_bytes",
    "(int[] code, float[] numbers, int weights, int loss, int steps, int starts, bool compact=False) -> int[]",
)

torch.library.define(  # of a loss, by the latent and each parameter, as the search computes them (verify.py)
    "adgan_fast::native_gradients",
    "(Tensor image, Tensor start, Tensor[] parameters, Tensor[] constants, int[] code, float[] numbers, "
    "int weights, int loss, int own_loss=0) -> Tensor[]",
)

torch.library.define(  # seconds by layer, for bench/studies/profile_native.py
    "adgan_fast::native_profile",
    "(Tensor images, Tensor starts, Tensor[] parameters, Tensor[] constants, int[] code, float[] numbers, "
    "int weights, int loss, int steps, float[] rates, bool compact=False) -> Tensor",
)


def native_search(
    images: Tensor,
    starts: Tensor,
    parameters: Sequence[Tensor],
    constants: Sequence[Tensor],
    code: Sequence[int],
    numbers: Sequence[float],
    weights: int,
    loss: int,
    steps: int,
    rates: Sequence[float],
    lanes: int = 0,
    poison: bool = False,
    compact: bool = False,
    own_loss: int = 0,
    isa: int = -1,
    stop: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The whole of Algorithm 1 for every (image, start), in the C++ extension: there is no plain-PyTorch kernel.

    A pair's result depends on that pair alone (per_sample: on its image and all starts), to the last bit: not on the
    others of the call, nor on the number of threads.

    Args:
        images: (N, C, H, W), float32 and contiguous on the CPU, as all other tensors.
        starts: (S, *latent), the same for every image, or (N, S, *latent).
        parameters, constants: as the program names them.
        code, numbers: the program, as `adgan_fast.engine.native.engine.encode` writes it.
        weights: 0 per_seed, 1 per_sample, 2 frozen.
        loss: 0 l2, 1 l1, 2 laplacian, 3 own_loss.
        steps: k.
        rates: lr_z, lr_weights, beta1, beta2, eps.
        lanes: threads to use, where memory allows no more; 0: all of PyTorch's.
        poison: fill all scratch memory with NaN before each use (for tests).
        compact: keep moments, or what a first layer has moved by, in 16 bits: precision="bf16".
        own_loss: for loss 3 the address of a C function, which is called once for each pass of each pair, from the
            threads that search, without Python's lock (a ctypes callback takes it): void (const float*
            reconstruction, const float* image, float* gradient, float* value, int* done), all [H][W][C]. The gradient
            is not asked for where it is null. Where it leaves done at 0 the search ends with an error. 0 for the other
            losses. `adgan_fast.core.own_loss` makes one.
        isa: instruction set, by its place in `INSTRUCTION_SETS`; -1: the best of this processor. Others are for tests.
        stop: the address of a C int; once that is not 0 the search ends soon, with an error. 0: nothing stops it.

    Returns:
        Initial and final losses (N, S), final latents (N, S, *latent), final reconstructions (N, S, C, H, W).

    Raises:
        RuntimeError: naming the argument; or where the program does not fit together.
    """
    return torch.ops.adgan_fast.native_search.default(
        images,
        starts,
        parameters,
        constants,
        code,
        numbers,
        weights,
        loss,
        steps,
        rates,
        lanes,
        poison,
        compact,
        own_loss,
        isa,
        stop,
    )


@torch.library.register_fake("adgan_fast::native_search")
def _native_search_fake(
    images: Tensor,
    starts: Tensor,
    parameters: Sequence[Tensor],
    constants: Sequence[Tensor],
    code: Sequence[int],
    numbers: Sequence[float],
    weights: int,
    loss: int,
    steps: int,
    rates: Sequence[float],
    lanes: int = 0,
    poison: bool = False,
    compact: bool = False,
    own_loss: int = 0,
    isa: int = -1,
    stop: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    latent_rank = code[_latent_rank_at(code)]
    per_image = starts.dim() - latent_rank == 2
    n, s = images.shape[0], starts.shape[1 if per_image else 0]
    latent = starts.shape[2 if per_image else 1 :]
    losses = images.new_empty((n, s))
    return (
        losses,
        torch.empty_like(losses),
        images.new_empty((n, s, *latent)),
        images.new_empty((n, s, *images.shape[1:])),
    )


def _latent_rank_at(code: Sequence[int]) -> int:
    """Where `code` holds the rank of the latent: values are (kind, index, rank, *sizes), the latent's kind is 0."""
    at = 1
    while code[at] != 0:
        at += 3 + code[at + 2]
    return at + 2


@cache
def load_extension() -> str | None:
    """Load the compiled CPU kernels, once.

    Returns:
        None when they are loaded; else one sentence that says why they are not and what to do about it. The operators
        work in either case. Later calls return the same answer and cost nothing.
    """
    folder = Path(__file__).parent
    libraries = sorted(folder.glob("_C.*so"))
    if not libraries:
        note = folder / "_C.unbuilt.txt"  # left by setup.py when it went on without a compiler
        cause = f": {note.read_text(encoding='utf-8').strip()}" if note.is_file() else ""
        return f"the C++ extension was not built with this installation{cause}. {_EXTENSION_REMEDY}"
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError as error:
        return f"the C++ extension {libraries[0].name} cannot be loaded ({error}). {_EXTENSION_REMEDY}"
    return None
