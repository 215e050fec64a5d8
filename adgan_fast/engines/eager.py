"""`eager`: any module at all, many pairs in one batch by ``torch.func`` (vmap of grad), fused Adam."""

from __future__ import annotations

import copy
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from .. import ops
from ..workers import run_items
from .job import Block, Job
from .kernels import load_kernels
from .tiles import Tile, images_of, layout, on_cpu, runs_of_tiles, starts_of

CACHE = 96 << 20  # bytes in use by a thread on a CPU, measured (docs/performance.md)

Tensors = dict[str, torch.Tensor]


class Eager:
    name = "eager"
    exact = True

    def why_not(self) -> str | None:
        return None

    def refuses(self, job: Job) -> str | None:
        """What vmap cannot follow (a module or loss that branches on values, say) is found by one try on two pairs."""
        z = job.probes.unsqueeze(1)
        module = copy.deepcopy(job.module)
        slots = _slots(module)
        theta = {w: value.expand(2, *value.shape) for w, value in _weights(module).items()}
        images = torch.zeros((2, 1, *job.image_shape), dtype=job.dtype, device=job.device)
        try:
            _gradient(job, module, slots, {})(theta, z, images)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            what = f"{type(job.module).__name__} with the loss {job.loss.name!r}"
            return f"torch.func.vmap cannot run {what}: {str(error).strip().splitlines()[0]}"
        return None

    def bytes_of_pair(self, job: Job) -> int:
        """w, its gradient, m and v, and what autograd keeps of one forward."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        z = job.probes[:1].clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            job.module(z)
        weights = sum(w.numel() * w.element_size() for w in _weights(job.module).values())
        owners = 0 if job.config.weights == "frozen" else 5 * weights
        rows = job.n_seed if job.config.weights == "per_sample" else 1
        return owners + 2 * rows * sum(kept.values())

    def default_chunk(self, job: Job) -> int:
        """Measured on a CPU (docs/performance.md); on a GPU a guess, not measured yet."""
        if job.device.type == "cpu":
            return on_cpu(job, self.bytes_of_pair(job), CACHE)
        return 1 if job.config.weights == "per_sample" else 64

    def run(self, job: Job, block: Block) -> None:
        """See Engine.run."""
        load_kernels(job.device)
        tiles = [tile for run in runs_of_tiles(job, len(block.images), job.chunk) for tile in run]
        modules: SimpleQueue[nn.Module] = SimpleQueue()  # functional_call puts weights into the module: one a thread
        for _ in range(job.lanes):
            modules.put(copy.deepcopy(job.module))

        def work(tile: Tile) -> None:
            module = modules.get()
            try:
                _search(job, module, block, tile)
            finally:
                modules.put(module)

        run_items(work, tiles, job.device, job.lanes, block.cancel)


def _slots(module: nn.Module) -> dict[str, str]:
    """Each place in a module that holds a weight, and the weight's one name: tied weights have several places.

    A submodule used under two names is one place here. functional_call finds ties by itself, but does not put a module
    back rightly that has both.
    """
    names = {id(w): name for name, w in module.named_parameters()}
    return {
        f"{path}.{name}".lstrip("."): names[id(w)]
        for path, owner in module.named_modules()
        for name, w in owner.named_parameters(recurse=False, remove_duplicate=False)
        if w.is_floating_point()
    }


def _weights(module: nn.Module) -> Tensors:
    """Every floating-point parameter, once."""
    return {name: w.detach() for name, w in module.named_parameters() if w.is_floating_point()}


def _call(module: nn.Module, slots: dict[str, str], weights: Tensors, z: torch.Tensor) -> torch.Tensor:
    """One latent (*latent) to one image (1, C, H, W)."""
    placed = {place: weights[name] for place, name in slots.items()}
    image: torch.Tensor = functional_call(module, placed, (z.unsqueeze(0),), tie_weights=False)
    return image


def _gradient(job: Job, module: nn.Module, slots: dict[str, str], fixed: Tensors) -> Callable[..., Any]:
    """(weights (G, …), latents (G, B, …), images (G, B, C, H, W)) to ((dw, dz), losses (G, B)).

    `fixed` are weights that are not learned; a module is given one sample at a time.
    """

    def of_group(w: Tensors, z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def one(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return job.loss(_call(module, slots, {**fixed, **w}, z), x.unsqueeze(0))[0]

        losses = vmap(one)(z, x)
        return losses.sum(), losses

    return vmap(grad(of_group, argnums=(0, 1), has_aux=True))


def _search(job: Job, module: nn.Module, block: Block, tile: Tile) -> None:
    config, steps = job.config, job.config.steps
    shape, x, z = layout(job, tile), images_of(job, block, tile), starts_of(job, block, tile)
    slots, theta = _slots(module), _weights(job.module)
    names = [] if config.weights == "frozen" else list(theta)
    gradient = _gradient(job, module, slots, theta)
    weights = {name: theta[name].expand(shape[0], *theta[name].shape) for name in names}
    leaves = [z, *weights.values()]
    state, moments, squares = ([leaf.new_empty(leaf.shape) for leaf in leaves] for _ in range(3))
    lrs = [config.lr_z] + [config.lr_weights] * len(names)
    old = [z, *(theta[name].contiguous() for name in names)]
    initial = None
    for step in range(1, steps + 1):
        (dw, dz), losses = gradient(weights, z, x)
        initial = losses if initial is None else initial
        grads = [dz.contiguous(), *(dw[name].contiguous() for name in names)]
        ops.adam_step_(
            state,
            moments,
            squares,
            grads,
            old if step == 1 else [],
            lrs,
            *config.betas,
            config.eps,
            step,
            step == steps,
        )
        z, weights = state[0], dict(zip(names, state[1:], strict=True))
    with torch.no_grad():
        group = vmap(lambda w, z: vmap(lambda z: _call(module, slots, {**theta, **w}, z)[0])(z))
        reconstructions = group(weights, z)
        final = job.loss(reconstructions.flatten(0, 1), x.flatten(0, 1))
    block.put(tile.first, tile.start, final if initial is None else initial, final, z, reconstructions, tile.shape)
