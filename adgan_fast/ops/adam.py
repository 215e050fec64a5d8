"""adam_step_: one Adam step over parameters of which every pair owns a private copy.

The operator computes correctly on any device with ordinary torch operations; faster kernels register themselves for it
when they are loaded: those of csrc/ (`load_extension`) for the CPU, those of `adgan_fast.kernels` for CUDA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
        # The operations and order of stacked_adam_phase in csrc/core/kernels/adam.inl. No fused multiply-add (alpha=,
        # addcmul): torch's vectorised loops use it in a loop's body and not in its tail, so that an element's result
        # would depend on its place.
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
def _adam_step_fake(*arguments: Any) -> None:
    *checked, _last = arguments
    check_adam_step(*checked)
