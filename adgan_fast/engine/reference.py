"""Algorithm 1 of the paper, one (image, start) pair at a time: the oracle that every other engine is held to.

Plain PyTorch: autograd and ``torch.optim.Adam``, in the generator's own dtype (float32 or float64). It imports
nothing fast, and no speed-up is ever made here.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ..config import LossFunction, SearchConfig
from ..core.block import Block
from ..core.engine import Gradients
from ..core.job import Job, Plan
from ..core.tiles import Tile
from ..core.workers import run_items
from ..generator.working_copy import copied

Outcome = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def search_image(
    g: nn.Module, x: torch.Tensor, starts: torch.Tensor, config: SearchConfig, loss: LossFunction
) -> Iterator[Outcome]:
    """Search one image `x` (C, H, W) from each of `starts` (S, *latent); `g` is in eval mode and is not changed.

    Yields for each start, in order: its initial loss (), final loss (), final latent (*latent) and final
    reconstruction (C, H, W).
    """
    if config.weights == "per_sample":
        yield from _search(g, x, list(starts), config, loss)
    else:
        for z in starts:
            yield from _search(g, x, [z], config, loss)


def _search(
    g: nn.Module, x: torch.Tensor, starts: list[torch.Tensor], config: SearchConfig, loss: LossFunction
) -> Iterator[Outcome]:
    """One private copy of the weights and the starts that share it (Algorithm 1, with the sum of their gradients)."""
    learn_weights = config.weights != "frozen"
    g_w, named = _private(g, learn_weights)  # w ← θ
    weights = list(named.values()) if learn_weights else []
    latents = [z.clone().requires_grad_() for z in starts]  # z ← z_j
    groups = [{"params": latents, "lr": config.lr_z}]
    if weights:
        groups.append({"params": weights, "lr": config.lr_weights})
    adam = torch.optim.Adam(groups, betas=config.betas, eps=config.eps)

    def loss_at(z: torch.Tensor) -> torch.Tensor:
        return loss(_image(g_w, z), x.unsqueeze(0))[0]

    initial = []
    for step in range(config.steps):
        adam.zero_grad()
        for z in latents:
            value = loss_at(z)  # ℓ(g_w(z), x)
            value.backward(inputs=[z, *weights])  # into nothing else that a forward may hold
            if step == 0:
                initial.append(value.detach())
        adam.step()  # z and w move together, by gradients taken at the same (z, w)
    for j, z in enumerate(latents):
        with torch.no_grad():  # left before the yield: a generator that is let go would leave it in some other thread
            reconstruction = _image(g_w, z)
            final = loss(reconstruction, x.unsqueeze(0))[0]
        yield initial[j] if initial else final, final, z.detach(), reconstruction[0]


def _private(g: nn.Module, learn: bool) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A copy of a generator, and its weights by name."""
    g_w = copied(g)
    weights: dict[str, torch.Tensor] = {name: w for name, w in g_w.named_parameters() if w.is_floating_point()}
    for w in weights.values():
        w.requires_grad_(learn)
        w.grad = None
    return g_w, weights


def _image(g: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """The image (1, C, H, W) of a latent (*latent); of a copy, since a first layer may work in place."""
    image: torch.Tensor = g(z.unsqueeze(0).clone())
    return image


class Reference:
    """Algorithm 1 as an engine (see core/engine.py)."""

    name = "reference"
    exact = True
    needs_program = False

    def why_not(self) -> str | None:
        return None

    def refuses(self, job: Job) -> str | None:
        return None

    def default_chunk(self, job: Job) -> int:
        return 1

    def bytes_of_pair(self, job: Job) -> int:
        """w, its gradient, m and v; what a forward keeps is small beside them."""
        return 4 * sum(w.numel() * w.element_size() for w in job.module.parameters())

    def gradients(self, job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """See Engine.gradients."""
        g_w, weights = _private(job.module, job.learns)
        weights = weights if job.learns else {}
        z = z.clone().requires_grad_()
        made = _image(g_w, z)
        value = job.loss(made, image.unsqueeze(0))[0]
        of_latent, *of_weights = torch.autograd.grad(value, [z, *weights.values()], allow_unused=True)
        assert of_latent is not None, "checks.check_generator comes first"
        found = {name: dw for name, dw in zip(weights, of_weights, strict=True) if dw is not None}
        return Gradients(made.detach()[0], of_latent, found)

    def run(self, job: Job, plan: Plan, block: Block) -> None:
        """See Engine.run; one pair at a time in each thread."""

        def work(i: int) -> None:
            whole = Tile(i, i + 1, 0, job.n_seed)
            image, starts = block.images_of(whole)[0], block.starts_of(whole)[0]
            for j, outcome in enumerate(search_image(job.module, image, starts, job.config, job.loss)):
                block.put(Tile(i, i + 1, j, j + 1), *outcome)

        run_items(work, range(len(block)), job.device, plan.threads, block.cancel)
