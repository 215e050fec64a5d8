"""`eager`: any module at all, many pairs in one batch by ``torch.func`` (vmap of grad), fused Adam."""

from __future__ import annotations

import copy
from queue import SimpleQueue

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
        """A module whose forward vmap cannot follow (it branches on values, say) is tried once, on two starts."""
        starts = job.starts.of_images([0])[0][:1]
        z = starts.expand(2, *starts.shape).contiguous()
        theta = {name: w.detach().expand(2, *w.shape) for name, w in job.module.named_parameters()}
        try:
            _reconstruct(copy.deepcopy(job.module), theta, z)
        except RuntimeError as error:
            return f"torch.func.vmap cannot run {type(job.module).__name__}: {str(error).strip().splitlines()[0]}"
        return None

    def bytes_of_pair(self, job: Job) -> int:
        """w, its gradient, m and v, and what autograd keeps of one forward."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        z = job.starts.of_images([0])[0][:1].requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            job.module(z)
        weights = sum(w.numel() * w.element_size() for w in job.module.parameters())
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
        chunk = self.default_chunk(job) if job.device.type == "cpu" else job.chunk or 1
        tiles = [tile for run in runs_of_tiles(job, len(block.images), chunk) for tile in run]
        modules: SimpleQueue[nn.Module] = SimpleQueue()  # functional_call puts weights into the module: one a thread
        for _ in range(torch.get_num_threads() if job.device.type == "cpu" else 1):
            modules.put(copy.deepcopy(job.module))

        def work(tile: Tile) -> None:
            module = modules.get()
            try:
                _search(job, module, block, tile)
            finally:
                modules.put(module)

        run_items(work, tiles, job.device, block.cancel)


def _reconstruct(module: nn.Module, weights: Tensors, latents: torch.Tensor) -> torch.Tensor:
    """(G, B, *latent) by weights (G, *shape) to (G, B, C, H, W); the module sees one sample at a time."""

    def one(w: Tensors, z: torch.Tensor) -> torch.Tensor:
        return functional_call(module, w, (z.unsqueeze(0),))[0]

    return vmap(vmap(one, (None, 0)))(weights, latents)


def _search(job: Job, module: nn.Module, block: Block, tile: Tile) -> None:
    config, steps = job.config, job.config.steps
    shape, x, z = layout(job, tile), images_of(job, block, tile), starts_of(job, block, tile)
    theta = {name: w.detach() for name, w in job.module.named_parameters()}
    fixed = {name: w.expand(shape[0], *w.shape) for name, w in theta.items()}
    names = [] if config.weights == "frozen" else list(theta)

    def loss_of_group(w: Tensors, z: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def one(z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            reconstruction = functional_call(module, {**theta, **w}, (z.unsqueeze(0),))
            return job.loss(reconstruction, target.unsqueeze(0))[0]

        losses = vmap(one)(z, targets)
        return losses.sum(), losses

    gradient = vmap(grad(loss_of_group, argnums=(0, 1), has_aux=True))
    state = [
        torch.empty_like(z),
        *(torch.empty_like(fixed[name], memory_format=torch.contiguous_format) for name in names),
    ]
    moments, squares = ([torch.empty_like(tensor) for tensor in state] for _ in range(2))
    lrs = [config.lr_z] + [config.lr_weights] * len(names)
    old = [z, *(theta[name].contiguous() for name in names)]
    weights, initial = {name: fixed[name] for name in names}, None
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
        reconstructions = _reconstruct(module, {**fixed, **weights}, z)
        final = job.loss(reconstructions.flatten(0, 1), x.flatten(0, 1))
    block.put(tile.first, tile.start, final if initial is None else initial, final, z, reconstructions, tile.shape)
