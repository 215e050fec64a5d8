"""Algorithm 1 for tiles of one shape, in buffers that stay where they are: so a CUDA graph of it can be replayed.

What is computed is what grouped.py computes. For weights="per_seed" the large maps run on the Triton kernels, which
store the change of the weights alone (lift.py), and those of few outputs on a product and a sum by a table (thin.py).
Products of two activations, softmax and norms have kernels of their own whoever owns the weights (products.py,
rows.py). All else is batched.py's, with ordinary leaves and one fused Adam launch a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from ...config import SearchConfig
from ...core.losses import Loss
from ...core.tiles import layout
from ...generator.program import Layer, Program
from ...kernels.loss import PIXEL_LOSSES, pixel_loss
from ...kernels.maps.private import AdamConstants
from .. import batched
from ..descent import State, descend
from .lift import Chain, PrivateLayer, lift
from .products import multiplied
from .rows import softmaxed, standardized
from .thin import ThinLayer, thinned


class TileResult(NamedTuple):
    """Of the pairs of a tile, images first: losses (I·S,), latents (I·S, *latent), reconstructions (I·S, C, H, W)."""

    initial: torch.Tensor
    final: torch.Tensor
    latents: torch.Tensor
    reconstructions: torch.Tensor


class TileSearch:
    """The search of I images × S starts, on the device of the program's parameters.

    Fill `starts` (I, S, *latent) and call `first`; fill `images` (I, C, H, W) and call `run`. After one `first` any
    number of images can be run. No call waits for the device or depends on a value there.
    """

    def __init__(
        self, program: Program, loss: Loss, config: SearchConfig, device: torch.device, shape: tuple[int, int]
    ):
        self.config, self.loss, self.shape = config, loss, shape
        self.program, chains = lifted(program, config)
        images, starts = shape
        owners, rows = layout(config.weights, images, starts)
        self.images = torch.empty(images, *program.image_shape, dtype=torch.float32, device=device)
        self.starts = self.images.new_empty(images, starts, *program.latent_shape)
        self._latents = self.starts.view(owners, rows, *program.latent_shape)
        self._private = [self._layer(chain, program, owners) for chain in chains]
        self._step = 1  # the one whose forward pass runs; see `_chain`
        self._own: dict[str, Callable[..., torch.Tensor]] = {
            "private": self._chain,
            "matmul": partial(multiplied, precision=config.precision),
            "softmax": softmaxed,
            "standardize": standardized,
            "thin": self._run_thin,
        }
        self._thin_layers = {
            layer.output: ThinLayer(
                layer.attrs["geometry"], self.program.values[layer.output].shape, config.precision, device
            )
            for layer in self.program.layers
            if layer.op == "thin"
        }

        theta = [p.detach().contiguous() for p in program.parameters]
        self._shared = [p.expand(owners, *p.shape) for p in theta]
        away = {chain.parameter for chain in chains}
        self._learned = [] if config.weights == "frozen" else [i for i in range(len(theta)) if i not in away]
        self._old = [self._latents, *(theta[i] for i in self._learned)]
        # Values, moments and gradients at addresses that do not change: a replayed graph reads them, and the fused
        # step's table of pointers names them.
        first = [self._latents, *(self._shared[i] for i in self._learned)]
        kept = first if config.steps > 0 else []
        self._state, self._gradients = State.like(kept), [leaf.new_empty(leaf.shape) for leaf in kept]
        self._leaves = [leaf.detach().requires_grad_(config.steps > 0) for leaf in first]

    def _layer(self, chain: Chain, program: Program, pairs: int) -> PrivateLayer:
        config = self.config
        adam = AdamConstants(config.lr_weights, *config.betas, config.eps)
        return PrivateLayer(chain, program, pairs, config.steps, adam, config.precision)

    def first(self) -> torch.Tensor:
        """The reconstructions of `starts` by θ₀, with autograd's graph for every `run` that follows."""
        self._first = self._forward(1, self._leaves)
        return self._first

    def run(self) -> TileResult:
        """Search `images` from `starts`."""
        config, steps = self.config, itertools.count(1)

        def gradients(leaves: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
            step = next(steps)
            if step > 1:
                leaves = [leaf.detach().requires_grad_() for leaf in leaves]
            made = self._first if step == 1 else self._forward(step, leaves)
            value, of_made = self._loss_and_gradient(made)
            found = torch.autograd.grad(made, leaves, of_made, retain_graph=step == 1)
            torch._foreach_copy_(self._gradients, list(found))
            return self._gradients, value

        initial, leaves = descend(config, gradients, self._leaves, self._old, self._state)
        made = self._first if initial is None else self._forward(config.steps + 1, leaves)
        final = self._loss(made.detach())
        return TileResult(
            final if initial is None else initial, final, leaves[0].detach().flatten(0, 1), made.detach().flatten(0, 1)
        )

    def _forward(self, step: int, leaves: list[torch.Tensor]) -> torch.Tensor:
        parameters = list(self._shared)
        for i, leaf in zip(self._learned, leaves[1:], strict=True):
            parameters[i] = leaf
        self._step = step
        return batched.forward(self.program, leaves[0], parameters, self.program.constants, self._own)

    def _chain(self, program: Program, layer: Layer, *inputs: torch.Tensor | None) -> torch.Tensor:
        return self._private[layer.attrs["chain"]].run(self._step, *inputs)

    def _run_thin(
        self, program: Program, layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return self._thin_layers[layer.output].run(x, weight, bias)

    def _loss(self, reconstruction: torch.Tensor) -> torch.Tensor:
        """(G, B, C, H, W) to (I·S,)."""
        rows = reconstruction.flatten(0, 1)
        if self.loss.builtin and self.loss.name in PIXEL_LOSSES:
            return pixel_loss(self.loss.name, rows, self.images, gradient=False)[0]
        images, starts = self.shape
        spread = self.images.unsqueeze(1).expand(images, starts, *self.images.shape[1:])
        return self.loss(rows, spread.flatten(0, 1))

    def _loss_and_gradient(self, reconstruction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses (I·S,), and the gradient of each by its own reconstruction, shaped as `reconstruction`."""
        made = reconstruction.detach()
        if self.loss.builtin and self.loss.name in PIXEL_LOSSES:
            value, gradient = pixel_loss(self.loss.name, made.flatten(0, 1), self.images)
            assert gradient is not None
            return value, gradient.view_as(made)
        value = self._loss(made.requires_grad_())
        return value.detach(), torch.autograd.grad(value.sum(), made)[0]


def lifted(program: Program, config: SearchConfig) -> tuple[Program, tuple[Chain, ...]]:
    """The program as a search runs it, and the chains taken out of it: none where no pair owns weights."""
    if config.weights != "per_seed" or config.steps == 0:
        return program, ()
    left, chains = lift(program)
    return thinned(left), chains
