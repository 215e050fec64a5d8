"""`eager`: any module at all, many pairs in one batch by ``torch.func`` (vmap of grad), fused Adam.

There is one vmap at the most: over pairs that own their weights (per_seed), or over the samples of one owner
(per_sample, frozen). Under two of them, one within the other, PyTorch computes some gradients wrongly (of nn.PReLU's
weight, say).
"""

from __future__ import annotations

from queue import SimpleQueue

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from ..core.block import Block
from ..core.engine import Gradients
from ..core.job import Job, Plan
from ..core.tiles import Tile, layout, on_cpu, tiles_by_starts
from ..core.workers import run_items
from ..generator.look import first_line
from ..generator.working_copy import copied
from .descent import State, descend
from .loading import load_kernels

CACHE = 96 << 20  # bytes in use by a thread on a CPU, measured (docs/performance.md)

NamedTensors = dict[str, torch.Tensor]


class Eager:
    name = "eager"
    exact = True
    needs_program = False

    def why_not(self) -> str | None:
        return None

    def refuses(self, job: Job) -> str | None:
        """What vmap cannot follow (a module or loss that branches on values, say) is found by one try on two pairs."""
        z = job.probes.reshape(*layout(job.config.weights, 1, 2), *job.latent_shape)
        images = torch.zeros((*z.shape[:2], *job.image_shape), dtype=job.dtype, device=job.device)
        module = _Module(job)
        try:
            theta = module.expanded(len(z))
            if job.config.steps > 0:
                module.gradient(theta, z, images)
            module.images(theta, z)
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError) as error:
            what = f"{type(job.module).__name__} with the loss {job.loss.name!r}"
            return f"torch.func.vmap cannot run {what}: {first_line(error)}"
        return None

    def bytes_of_pair(self, job: Job) -> int:
        """w, its gradient, m and v, and what autograd keeps of one forward."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        z = job.probes[:1].clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            job.module(z.clone())
        weights = sum(w.numel() * w.element_size() for w in _weights(job.module).values())
        owned = 5 * weights if job.learns else 0
        return owned + 2 * job.pairs_of_unit * sum(kept.values())

    def default_chunk(self, job: Job) -> int:
        """Measured on a CPU (docs/performance.md); on a GPU a guess, not measured yet."""
        if job.device.type == "cpu":
            return on_cpu(job, self.bytes_of_pair(job), CACHE)
        return 1 if job.config.weights == "per_sample" else 64

    def run(self, job: Job, plan: Plan, block: Block) -> None:
        """See Engine.run."""
        load_kernels(job.device)
        tiles = [tile for tiles in tiles_by_starts(job, len(block), plan.chunk) for tile in tiles]
        modules: SimpleQueue[_Module] = SimpleQueue()  # functional_call puts weights into the module: one a thread
        for _ in range(plan.threads):
            modules.put(_Module(job))

        def work(tile: Tile) -> None:
            module = modules.get()
            try:
                _search(job, module, block, tile)
            finally:
                modules.put(module)

        run_items(work, tiles, job.device, plan.threads, block.cancel)

    def gradients(self, job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """See Engine.gradients: of two samples alike, so that what is vectorised is in use."""
        module, images = _Module(job), image.expand(2, *image.shape)
        pairs = layout(job.config.weights, 1, 2)
        z, images = z.expand(*pairs, *z.shape), images.reshape(*pairs, *image.shape)
        theta = module.expanded(pairs[0])
        (of_weights, of_latent), _ = module.gradient(theta, z, images)
        share = pairs[1]  # samples that own weights together add their gradients up
        return Gradients(
            module.images(theta, z)[0, 0], of_latent[0, 0], {name: dw[0] / share for name, dw in of_weights.items()}
        )


class _Module:
    """A job's generator as functions of weights and latents.

    Weights are (G, ...), latents (G, B, *latent): G groups own weights, of B samples each. Either B = 1 (per_seed), or
    groups are taken one after the other.
    """

    def __init__(self, job: Job) -> None:
        self._module, self._loss = copied(job.module), job.loss
        self._slots, self.theta = _slots(self._module), _weights(job.module)
        self.learned = list(self.theta) if job.learns else []
        self._apart = job.config.weights == "per_seed"

    def expanded(self, groups: int) -> NamedTensors:
        """The learned weights of each group, at θ."""
        return {name: self.theta[name].expand(groups, *self.theta[name].shape) for name in self.learned}

    def gradient(
        self, w: NamedTensors, z: torch.Tensor, x: torch.Tensor
    ) -> tuple[tuple[NamedTensors, torch.Tensor], torch.Tensor]:
        """Images x (G, B, C, H, W): ((dw, dz), losses (G, B))."""
        if self._apart:
            (dw, dz), losses = vmap(grad(self._pair, argnums=(0, 1), has_aux=True))(w, z[:, 0], x[:, 0])
            return (dw, dz.unsqueeze(1)), losses.unsqueeze(1)
        found = [grad(self._group, argnums=(0, 1), has_aux=True)(_of_group(w, g), z[g], x[g]) for g in range(len(z))]
        dw = {name: torch.stack([of_weights[name] for (of_weights, _), _ in found]) for name in w}
        return (dw, torch.stack([dz for (_, dz), _ in found])), torch.stack([losses for _, losses in found])

    def images(self, w: NamedTensors, z: torch.Tensor) -> torch.Tensor:
        """(G, B, C, H, W), without a gradient."""
        with torch.no_grad():
            if self._apart:
                return vmap(self._image)(w, z[:, 0])
            alone = vmap(lambda w, z: self._image(w, z)[0], in_dims=(None, 0))
            return torch.stack([alone(_of_group(w, g), z[g]) for g in range(len(z))])

    def _pair(self, w: NamedTensors, z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = self._loss(self._image(w, z), x.unsqueeze(0))[0]
        return value, value

    def _group(self, w: NamedTensors, z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        losses = vmap(lambda z, x: self._pair(w, z, x)[0])(z, x)
        return losses.sum(), losses

    def _image(self, w: NamedTensors, z: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) of one latent (*latent), copied: a first layer may work in place."""
        weights = {**self.theta, **w}
        placed = {place: weights[name] for place, name in self._slots.items()}
        image: torch.Tensor = functional_call(self._module, placed, (z.unsqueeze(0).clone(),), tie_weights=False)
        return image


def _of_group(w: NamedTensors, group: int) -> NamedTensors:
    return {name: each[group] for name, each in w.items()}


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


def _weights(module: nn.Module) -> NamedTensors:
    """Every floating-point parameter, once."""
    return {name: w.detach() for name, w in module.named_parameters() if w.is_floating_point()}


def _search(job: Job, module: _Module, block: Block, tile: Tile) -> None:
    x, z, names = block.grouped_images(tile), block.grouped_starts(tile), module.learned

    def gradient(leaves: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
        (dw, dz), losses = module.gradient(dict(zip(names, leaves[1:], strict=True)), leaves[0], x)
        return [dz.contiguous(), *(dw[name].contiguous() for name in names)], losses

    leaves = [z, *module.expanded(len(z)).values()]
    initial = [z, *(module.theta[name].contiguous() for name in names)]
    first, (z, *weights) = descend(job.config, gradient, leaves, initial, State.like(leaves))
    reconstructions = module.images(dict(zip(names, weights, strict=True)), z)
    with torch.no_grad():
        final = job.loss(reconstructions.flatten(0, 1), x.flatten(0, 1))
    block.put(tile, final if first is None else first, final, z, reconstructions)
