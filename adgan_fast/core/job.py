"""What is asked of an engine (`Job`), and how much of it at once (`Plan`)."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ..config import SearchConfig
from ..generator.look import Look
from ..generator.program import Program
from .losses import Loss
from .starts import Starts


@dataclasses.dataclass(frozen=True)
class Job:
    """One search, ready to run.

    Attributes:
        module: the run's own copy of the generator: in eval mode, on `device`, in `dtype`; engines do not change it.
        program: the generator's Program; None where `unlowered` says why there is none, and where no engine that may be
            asked needs one.
        starts: of every image.
        probes: two latents of the prior (2, *latent), to try things on.
        config, loss: as the user asked.
        seen: what the generator made of the first probe, and its gradients there.
    """

    module: nn.Module
    program: Program | None
    unlowered: str
    config: SearchConfig
    loss: Loss
    starts: Starts
    probes: torch.Tensor
    latent_shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    seen: Look | None = None

    @property
    def n_seed(self) -> int:
        return self.starts.n_seed

    @property
    def dtype_name(self) -> str:
        """NumPy's: "float32", say."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def pairs_of_unit(self) -> int:
        """Pairs in a unit of `Plan.chunk`: the starts of an image where they share weights, else one."""
        return self.n_seed if self.config.weights == "per_sample" else 1

    @property
    def learns(self) -> bool:
        """Whether weights move, not the latents alone."""
        return self.config.weights != "frozen"

    @property
    def lowered(self) -> Program:
        """The program, for engines with `needs_program`: they run no job without one."""
        assert self.program is not None, "the choice of an engine comes first"
        return self.program


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of a job is in work at the same time, as plan.py finds it.

    Attributes:
        chunk: pairs to compute together (images for weights="per_sample").
        threads: chunks in work at once, each on a thread of its own.
    """

    chunk: int = 1
    threads: int = 1


def result_shapes(job: Job) -> dict[str, tuple[int, ...]]:
    """The tensors of a SearchResult, and their shapes for one image."""
    return {
        "scores": (),
        "losses": (job.n_seed,),
        "initial_losses": (job.n_seed,),
        "latents": (job.n_seed, *job.latent_shape),
        "reconstructions": job.image_shape,
        "maps": job.image_shape[1:],
    }
