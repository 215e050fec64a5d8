"""Detectors on a trained GAN: ADGAN itself, AnoGAN, and the two scores that the paper found weak (Sect. 3.2, 4.3)."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..api import score, search
from ..config import SearchConfig
from ..generator.working_copy import Generator
from ..given import is_number, whole
from ..result import SearchResult
from ..training import train
from ..training.checkpoint import has_checkpoint
from .base import BATCH, Baseline, NotFittedError, batches

Encoder = Callable[[torch.Tensor], torch.Tensor]

IMAGES_AT_ONCE = 512
"""Images searched in one call where each has starts of its own, which take memory."""


@dataclasses.dataclass(eq=False, kw_only=True)
class OnGAN(Baseline):
    """A detector on networks that are given, or trained by `fit`.

    Networks that are given are ready: `fit` then learns nothing but the shape of the images.

    Attributes:
        training: settings of `adgan_fast.training` by which `fit` trains where none are given; its own where None.
        out: folder of that training. A run that was cut off there goes on.
        generator_, critic_: the networks, given or trained.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ()
    """Which of the networks it uses: "generator", "critic"."""

    training: Any = None
    out: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        self.generator_: Any = getattr(self, "generator", None)
        self.critic_: Any = getattr(self, "critic", None)
        given = [name for name in self.NEEDS if getattr(self, name) is not None]
        if given and len(given) < len(self.NEEDS):
            raise ValueError(
                f"{type(self).__name__} needs all of {', '.join(self.NEEDS)} or none, got {given[0]} alone"
            )
        self._given = bool(given)

    def _fit(self, images: torch.Tensor) -> None:
        if self._given:
            return
        resume = self.out is not None and has_checkpoint(self.out)
        trained = train(images, self.training, out=self.out, resume=resume)
        self.generator_, self.critic_ = (trained.models.get(name) for name in ("generator", "critic"))

    def _takes(self) -> tuple[int, ...] | None:
        if any(getattr(self, f"{name}_") is None for name in self.NEEDS):
            raise NotFittedError(
                f"{type(self).__name__} has no {' and '.join(self.NEEDS)}: give them, or call fit first"
            )
        return self.image_shape_


@dataclasses.dataclass(eq=False)
class ADGAN(OnGAN):
    """The paper's detector: `adgan_fast.score` on a generator of any kind.

    Attributes:
        generator: as for `adgan_fast.score`; None: trained by `fit`.
        config: settings of the search; the paper's where None.
        starts: an encoder from images (N, C, H, W), float32 in [-1, 1], to starts (N, S, *latent), which take the place
            of config.starts; called under no_grad. What it gives for an image must not depend on the others.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("generator",)

    generator: Generator | None = dataclasses.field(default=None, repr=False)
    config: SearchConfig | None = dataclasses.field(default=None, kw_only=True)
    starts: Encoder | None = dataclasses.field(default=None, kw_only=True)

    def _scores(self, images: torch.Tensor) -> npt.NDArray[Any]:
        if self.starts is None:
            return score(self.generator_, images, config=self.config).cpu().numpy()
        config, found = self.config or SearchConfig(), []
        for part in batches(images, IMAGES_AT_ONCE):
            with torch.no_grad():
                starts = self.starts(part)
            found.append(score(self.generator_, part, config=config, starts=starts).cpu().numpy())
        return np.concatenate(found)


@dataclasses.dataclass(eq=False)
class PriorLikelihood(OnGAN):
    """Minus the log density of the final latents of ADGAN's search, see `prior_scores` (the paper, Sect. 3.2 and 4.3).

    Where ADGAN's scores are wanted too, one `adgan_fast.search` has both: its `scores`, and `prior_scores` of it. The
    latents take N · S · latent numbers of memory.

    Attributes:
        generator, config: as for `ADGAN`.
        over: of an image's starts, "mean" or "min".
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("generator",)

    generator: Generator | None = dataclasses.field(default=None, repr=False)
    config: SearchConfig | None = dataclasses.field(default=None, kw_only=True)
    over: Literal["mean", "min"] = dataclasses.field(default="mean", kw_only=True)

    def _scores(self, images: torch.Tensor) -> npt.NDArray[Any]:
        return prior_scores(search(self.generator_, images, config=self.config), self.over)


@dataclasses.dataclass(eq=False)
class CriticScore(OnGAN):
    """Minus the critic's value, which is high for what it takes for real (the paper, Sect. 3.2 and 4.3).

    Attributes:
        critic: a module from images (B, C, H, W) in [-1, 1] to (B,), in eval mode for this; None: trained by `fit`.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("critic",)

    critic: nn.Module | None = dataclasses.field(default=None, repr=False)

    def _scores(self, images: torch.Tensor) -> npt.NDArray[Any]:
        critic = frozen(self.critic_)
        device = next(critic.parameters()).device
        with torch.no_grad():
            return np.concatenate([-critic(part.to(device)).cpu().numpy() for part in batches(images, BATCH)])


@dataclasses.dataclass(eq=False)
class AnoGAN(OnGAN):
    """AnoGAN (Schlegl et al. 2017, the paper's ref. [46]) on the same GAN as ADGAN, by the same engines.

    The search moves latents alone. Its loss, and so the score, is (1 − λ) · |x − g(z)| + λ · |f(x) − f(g(z))|, sums of
    absolute differences, f an intermediate layer of the critic in eval mode. Their way is one start of 500 Adam steps;
    on equal footing with ADGAN, n_seed=64 and steps=5.

    Attributes:
        generator: as for `adgan_fast.score`; None: trained by `fit`, and the critic with it.
        critic: a module with `layers`, a Sequential, as `DCGANCritic` has.
        steps, n_seed: of the search. The score is the mean over starts.
        weight: λ, share of the features (0.1 in their Sect. 2.2).
        lr_z: Adam's learning rate.
        layer: f is the critic up to this layer, by the counting of slices: -1 leaves out the last layer.
        seed: of the starts, where config is None.
        config: other settings of the search. Where None, the engine is the fastest for a loss in Python: "auto" for one
            start, else "grouped", which hands the loss many pairs at once, while "native" calls it for each. Seconds an
            image on one core, a DCGAN of 28 by 28 pixels and width 32 (AMD EPYC, 26 November 2026): 64 starts of 5
            steps: grouped 0.25, eager 0.37, native 0.58; one start of 500: native 0.96, grouped 1.7, eager 3.8.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("generator", "critic")

    generator: Generator | None = dataclasses.field(default=None, repr=False)
    critic: nn.Module | None = dataclasses.field(default=None, repr=False)
    steps: int = dataclasses.field(default=500, kw_only=True)
    n_seed: int = dataclasses.field(default=1, kw_only=True)
    weight: float = dataclasses.field(default=0.1, kw_only=True)
    lr_z: float = dataclasses.field(default=0.05, kw_only=True)
    layer: int = dataclasses.field(default=-1, kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)
    config: SearchConfig | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.weight) or not 0 <= self.weight <= 1:
            raise ValueError(f"weight must be a number from 0 to 1, got {self.weight!r}")
        self.steps, self.n_seed = whole("steps", self.steps, 0), whole("n_seed", self.n_seed, 1)
        self._loss: FeatureLoss | None = None
        if self._given:
            self._loss = FeatureLoss(self.critic_, self.weight, self.layer)

    def _fit(self, images: torch.Tensor) -> None:
        super()._fit(images)
        if not self._given:
            self._loss = FeatureLoss(self.critic_, self.weight, self.layer)

    def _scores(self, images: torch.Tensor) -> npt.NDArray[Any]:
        config = self.config or SearchConfig(engine="auto" if self.n_seed == 1 else "grouped", seed=self.seed)
        settings = {"steps": self.steps, "n_seed": self.n_seed, "lr_z": self.lr_z, "weights": "frozen"}
        return score(self.generator_, images, config=config, loss=self._loss, **settings).cpu().numpy()


class FeatureLoss:
    """AnoGAN's loss of reconstructions and images, both (B, C, H, W), to (B,): see `AnoGAN`.

    Keeps a frozen copy of the critic, on its device.

    Raises ValueError where the critic has no `layers` to be cut.
    """

    def __init__(self, critic: nn.Module, weight: float = 0.1, layer: int = -1) -> None:
        layers = getattr(critic, "layers", None)
        if not isinstance(layers, nn.Sequential) or not list(layers)[:layer]:
            raise ValueError(
                f"AnoGAN's features are those of critic.layers[:{layer}], layers a Sequential as DCGANCritic has; "
                f"{type(critic).__name__} has none"
            )
        self.weight, self.features = float(weight), frozen(nn.Sequential(*list(layers)[:layer]))

    def __call__(self, reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) twice to (B,)."""
        pixels = (reconstruction - image).abs().flatten(1).sum(1)
        features = (self.features(reconstruction) - self.features(image)).abs().flatten(1).sum(1)
        return (1 - self.weight) * pixels + self.weight * features


def prior_scores(result: SearchResult, over: Literal["mean", "min"] = "mean") -> npt.NDArray[np.float64]:
    """½ |z|² of where each search ended, (N,): minus log N(z; 0, I), but for a constant; higher = more anomalous.

    Args:
        result: of a search with the normal prior.
        over: "mean" over an image's starts: the paper scores by "the final latent vectors", all of them, and of
            independent vectors the log densities add up. "min": the likeliest alone.

    Raises:
        ValueError: another prior, under which all latents are equally likely; a search with adaptive=, which settles
            scores and not latents; another `over`.
    """
    if result.config.prior != "normal":
        raise ValueError(f"prior_scores needs the prior 'normal', this search has {result.config.prior!r}")
    if result.starts_used is not None:
        raise ValueError("prior_scores needs the latents of all starts: search without adaptive=")
    if over not in ("mean", "min"):
        raise ValueError(f"over must be 'mean' or 'min', got {over!r}")
    energies = result.latents.double().square().flatten(2).sum(2) / 2
    found = energies.mean(1) if over == "mean" else energies.amin(1)
    return found.cpu().numpy()


def frozen(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose weights record no gradient."""
    return copy.deepcopy(module).eval().requires_grad_(False)
