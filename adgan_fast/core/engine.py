"""What an engine is (`Engine`): a way of running the search."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch

from .block import Block
from .job import Job, Plan


@dataclasses.dataclass(frozen=True)
class Gradients:
    """What an engine makes of one latent at the generator's own weights, and the gradients of the loss there.

    Attributes:
        image: the reconstruction (C, H, W).
        of_latent: (*latent).
        of_weights: by the parameter's name in the module, the gradient in its shape; a parameter that is not named has
            none. Empty for weights="frozen".
    """

    image: torch.Tensor
    of_latent: torch.Tensor
    of_weights: dict[str, torch.Tensor]


class Engine(Protocol):
    """A way of running the search; `adgan_fast.engine.register` adds one to the table."""

    name: str
    """For SearchConfig.engine."""
    exact: bool
    """Whether precision="float32" is within the contract's float32 bound of the reference."""
    needs_program: bool
    """Whether it runs a job's Program: then it is asked about no job that has none (see `Job.lowered`)."""

    def why_not(self) -> str | None:
        """Why the engine cannot run on this machine at all, with the remedy; None if it can."""
        ...

    def refuses(self, job: Job) -> str | None:
        """Why the engine cannot run this job, with the layer that prevents it; None if it can."""
        ...

    def bytes_of_pair(self, job: Job) -> int:
        """Most bytes in use for each unit of `chunk`, while a chunk is computed."""
        ...

    def default_chunk(self, job: Job) -> int:
        """The measured best chunk; on a CPU the only one, so that the chunk cannot change a bit of the result."""
        ...

    def gradients(self, job: Job, image: torch.Tensor, z: torch.Tensor) -> Gradients:
        """Output and gradients for an image (C, H, W) and a latent (*latent), by the means that `run` has."""
        ...

    def run(self, job: Job, plan: Plan, block: Block) -> None:
        """Search every (image, start) of the block, in chunks and threads as planned.

        The block hands out the images and starts of a tile and takes what was found for it, tiles in any order. An
        out-of-memory error may be raised at any time: the block then begins anew, by half the plan.
        """
        ...
