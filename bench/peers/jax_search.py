"""The search of one group in JAX, for the two JAX peers: weights converted from torch, the steps unrolled under jit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from adgan_fast.config import SearchConfig
from adgan_fast.testing import Losses

from .base import Searcher
from .chain import Activation, ConvTranspose, read_chain
from .chain import refuse as refuse_chain


def refuse(gen: nn.Module, config: SearchConfig, starts: torch.Tensor) -> str | None:
    if importlib.util.find_spec("jax") is None:
        return "jax is not installed (pip install jax)"
    if starts.device.type == "cuda":
        import jax

        if jax.default_backend() == "cpu":
            return "this jax has no GPU support"
    return refuse_chain(gen, config, starts)


def prepare(gen: nn.Module, config: SearchConfig, batched: Callable) -> Searcher:
    """`batched` makes (search_group, params) and batches (z (G, R, L), x (G, H, W, C)) out of a search of one group."""
    import jax
    import jax.numpy as jnp

    layers = read_chain(gen)
    learn = config.weights != "frozen"
    beta1, beta2 = config.betas

    def to_jax(t: torch.Tensor) -> jax.Array:
        return jnp.asarray(t.detach().cpu().numpy())

    params: list[dict[str, Any]] = []  # one entry for each layer
    frozen: list[dict[str, Any]] = []
    for layer in layers:
        if isinstance(layer, Activation):
            params.append({})
            frozen.append({})
            continue
        if isinstance(layer, ConvTranspose):
            # As a correlation of the dilated input: (kh, kw, Cin, Cout), taps reversed.
            params.append({"w": to_jax(layer.weight.permute(2, 3, 0, 1).flip(0, 1).contiguous())})
            frozen.append({})
        else:
            params.append({"w": to_jax(layer.weight)})
            frozen.append({"mean": to_jax(layer.mean), "scale": to_jax((layer.variance + layer.eps).rsqrt())})
        if layer.bias is not None:
            params[-1]["b"] = to_jax(layer.bias)

    def generate(params: Any, z: Any) -> Any:
        """z (R, L) to (R, H, W, C)."""
        h = z[:, None, None, :]
        for layer, p, f in zip(layers, params, frozen, strict=True):
            if isinstance(layer, ConvTranspose):
                kernel = p["w"].shape[:2]
                pads = [
                    (kernel[i] - 1 - layer.padding[i], kernel[i] - 1 - layer.padding[i] + layer.output_padding[i])
                    for i in (0, 1)
                ]
                h = jax.lax.conv_general_dilated(
                    h, p["w"], (1, 1), pads, lhs_dilation=layer.stride, dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                h = h + p["b"] if "b" in p else h
            elif isinstance(layer, Activation):
                h = _activate(layer, h)
            else:
                h = (h - f["mean"]) * f["scale"] * p["w"] + p["b"]
        return h

    def loss(learnt: tuple[Any, ...], params: Any, x: Any) -> tuple[Any, Any]:
        z, w = learnt if learn else (learnt[0], params)
        rows = jnp.sum((generate(w, z) - x) ** 2, axis=(1, 2, 3))
        return rows.sum(), rows

    def search_group(params: Any, z: Any, x: Any) -> tuple[Any, Any]:
        """z (R, L), x (H, W, C) to initial and final losses (R,)."""
        learnt = (z, params) if learn else (z,)
        rates = (config.lr_z, config.lr_weights)[: len(learnt)]
        m = jax.tree.map(jnp.zeros_like, learnt)
        v = jax.tree.map(jnp.zeros_like, learnt)
        initial = None
        for t in range(1, config.steps + 1):
            d, rows = jax.grad(loss, has_aux=True)(learnt, params, x)
            m = jax.tree.map(lambda m, d: beta1 * m + (1 - beta1) * d, m, d)
            v = jax.tree.map(lambda v, d: beta2 * v + (1 - beta2) * d * d, v, d)
            learnt = tuple(
                jax.tree.map(_adam_step(rate, t, beta1, beta2, config.eps), *parts)
                for rate, *parts in zip(rates, learnt, m, v, strict=True)
            )
            initial = rows if initial is None else initial
        final = loss(learnt, params, x)[1]
        return final if initial is None else initial, final

    run = jax.jit(batched(search_group))

    def search(x: torch.Tensor, z: torch.Tensor) -> Losses:
        device = x.device
        with jax.default_matmul_precision("float32"):  # or a GPU takes TF32
            initial, final = run(params, to_jax(z.flatten(2)), to_jax(x.permute(0, 2, 3, 1)))
            return Losses(_to_torch(jax.device_get(initial), device), _to_torch(jax.device_get(final), device))

    return search


def _to_torch(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.tensor(array, device=device)


def _activate(layer: Activation, h: Any) -> Any:
    import jax
    import jax.numpy as jnp

    if layer.name == "relu":
        return jnp.where(h > 0, h, layer.slope * h)
    return jnp.tanh(h) if layer.name == "tanh" else jax.nn.sigmoid(h)


def _adam_step(rate: float, t: int, beta1: float, beta2: float, eps: float) -> Callable:
    import jax.numpy as jnp

    def move(p: Any, m: Any, v: Any) -> Any:
        return p - rate * (m / (1 - beta1**t)) / (jnp.sqrt(v / (1 - beta2**t)) + eps)

    return move
