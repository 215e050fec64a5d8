"""SearchConfig: every setting of the search, with the section of the paper (Deecke et al. 2018) behind each default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch

from .adaptive import Adaptive
from .core import registry
from .given import is_number, one_of, whole

Weights = Literal["per_seed", "per_sample", "frozen"]
Prior = Literal["normal", "uniform"]
Precision = Literal["float32", "tf32", "bf16"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
LOSSES = ("l2", "l1", "laplacian")
PRIORS: tuple[Prior, ...] = get_args(Prior)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class SearchConfig:
    """Settings of Algorithm 1. Invalid values raise ValueError naming the field.

    Attributes:
        n_seed: starts for each image, n_seed in the paper (Sect. 4.2: 64).
        steps: Adam steps for each start, k in the paper (Sect. 4.2: 5).
        lr_z: Adam's learning rate for the latent (footnote 5: 0.25).
        lr_weights: Adam's learning rate for the private weights (footnote 5: 5e-5).
        betas: Adam's decay rates (footnote 5: 0.5, 0.999).
        eps: Adam's epsilon, at least float32's least normal number, so that a zero gradient is no update.
        weights: who owns a copy of the weights. ``"per_seed"`` (the paper, Sect. 3.1): each (image, start) pair;
            ``"per_sample"``: each image, its starts sharing one; ``"frozen"``: nobody, only the latent moves.
        loss: ``"l2"`` (Sect. 4.2), ``"l1"``, ``"laplacian"`` (Sect. 5, ref. [28]), or a callable
            (reconstruction, image), both (B, C, H, W), to (B,). On a CPU it may be called from several threads.
        starts: ``"shared"`` draws n_seed starts once for all images; ``"independent"`` draws anew for each image,
            keyed by (seed, image index); a tensor (S, *latent) or (N, S, *latent) gives them, and S replaces n_seed.
        prior: what starts are drawn from: ``"normal"`` N(0, I) (Sect. 4.2) or ``"uniform"`` on [-1, 1].
        seed: key of the draw, 0 <= seed < 2**64.
        latent_shape: shape of one latent, where the generator's layers leave none or several.
        engine: ``"auto"`` or the name of an engine; see ``adgan_fast.engines()``.
        precision: the least exact arithmetic an engine may use: ``"float32"``, ``"tf32"`` or ``"bf16"``.
            A search of more than five steps runs in float32.
        device: where to run; the generator's own device when None.
        chunk: pairs (images for ``weights="per_sample"``) computed together on a GPU; planned from free memory when
            None. On a CPU engines compute a number of their own at once, the same for every job size.
        progress: show a progress bar on stderr.
        strict: raise on images with NaN or Inf, instead of scoring those rows NaN.
        adaptive: an `Adaptive`, by which an image gets no more starts once its decision or its rank is settled; its
            score is the mean over those it had. All n_seed starts when None. Not for ``weights="per_sample"``, whose
            starts move weights together.
        verify: before an engine's first use on a generator in this process, compare it with the generator's own module
            and `reference` (adgan_fast.verify), and refuse it where it disagrees.
    """

    n_seed: int = 64
    steps: int = 5
    lr_z: float = 0.25
    lr_weights: float = 5e-5
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    weights: Weights = "per_seed"
    loss: str | LossFunction = "l2"
    starts: str | torch.Tensor = "shared"
    prior: Prior = "normal"
    seed: int = 0
    latent_shape: tuple[int, ...] | None = None
    engine: str = "auto"
    precision: Precision = "float32"
    device: str | torch.device | None = None
    chunk: int | None = None
    progress: bool = False
    strict: bool = False
    adaptive: Adaptive | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        for name, least in (("n_seed", 1), ("steps", 0), ("seed", 0)):
            object.__setattr__(self, name, whole(name, getattr(self, name), least))
        if self.seed >= 2**64:
            raise ValueError(f"seed must be below 2**64, got {self.seed}")
        for name, low in (("lr_z", 0.0), ("lr_weights", 0.0), ("eps", torch.finfo(torch.float32).tiny)):
            object.__setattr__(self, name, _number(name, getattr(self, name), low))
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, got {self.betas!r}")
        object.__setattr__(self, "betas", tuple(_number("betas", beta, 0.0) for beta in self.betas))
        if max(self.betas) >= 1:
            raise ValueError(f"betas must be below 1, got {self.betas!r}")
        one_of("weights", self.weights, WEIGHTS)
        if not callable(self.loss):
            one_of("loss", self.loss, LOSSES, "or a callable")
        if not isinstance(self.starts, torch.Tensor):
            one_of("starts", self.starts, ("shared", "independent"), "or a tensor")
        elif not self.starts.is_floating_point():
            raise ValueError(f"starts must be a floating-point tensor, got {self.starts.dtype}")
        one_of("prior", self.prior, PRIORS)
        one_of("engine", self.engine, registry.names())
        one_of("precision", self.precision, PRECISIONS)
        if self.latent_shape is not None:
            shape = tuple(self.latent_shape) if isinstance(self.latent_shape, (tuple, list)) else (self.latent_shape,)
            if not shape:
                raise ValueError("latent_shape must name at least one dimension, got ()")
            object.__setattr__(self, "latent_shape", tuple(whole("latent_shape", size, 1) for size in shape))
        if self.chunk is not None:
            object.__setattr__(self, "chunk", whole("chunk", self.chunk, 1))
        if self.adaptive is not None:
            if not isinstance(self.adaptive, Adaptive):
                raise ValueError(f"adaptive must be an adgan_fast.Adaptive, got {self.adaptive!r}")
            if self.weights == "per_sample":
                raise ValueError(
                    'adaptive goes with weights="per_seed" or "frozen": with "per_sample" the starts of an image move '
                    "one copy of the weights together, and fewer of them find other losses"
                )
        for name in ("progress", "strict", "verify"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.device is not None:
            try:
                torch.device(self.device)
            except (RuntimeError, TypeError) as error:
                raise ValueError(f"device {self.device!r} is not a torch device: {error}") from error

    def __eq__(self, other: object) -> bool:
        """Every field equal; starts given as tensors by their values."""
        if not isinstance(other, SearchConfig):
            return NotImplemented
        return all(_same(getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self))

    def __hash__(self) -> int:
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return hash(tuple(tuple(value.shape) if isinstance(value, torch.Tensor) else value for value in values))

    def replace(self, **overrides: Any) -> SearchConfig:
        """A copy with some fields changed; an unknown name raises TypeError naming it."""
        names = {field.name for field in dataclasses.fields(self)}
        unknown = sorted(set(overrides) - names)
        if unknown:
            raise TypeError(f"unknown setting {', '.join(unknown)}; the settings are {', '.join(sorted(names))}")
        return dataclasses.replace(self, **overrides)


def _number(name: str, value: Any, least: float) -> float:
    if not is_number(value) or not least <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of at least {least:.3g}, got {value!r}")
    return float(value)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)
