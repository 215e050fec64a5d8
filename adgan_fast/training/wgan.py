"""The Wasserstein GAN (Arjovsky et al. 2017, Algorithm 1), by which the paper trains its generators (Sect. 4.2).

    for each generator step:
        n_critic times:  w <- descend  mean d_w(g(z)) - mean d_w(x)     (x: data, z ~ N(0, I)); keep d_w Lipschitz
        once:            g <- descend  -mean d_w(g(z))

d_w is kept Lipschitz by clipping its weights (``objective="clip"``, the paper's), or by adding to its loss
gp_weight * mean (|grad d_w(y)| - 1)^2, where y = u x + (1 - u) g(z), u uniform (``"gp"``, Gulrajani et al. 2017).

Every random number is a function of (seed, purpose, counter) alone: of the step for latents, of the epoch for the order
of the data. So a run needs no random state: it can be resumed from a step number, and leaves the global state alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .. import validate
from ..data.images import save_grid
from ..given import is_number, positive, whole
from ..models import DCGANCritic, DCGANGenerator
from ..models.dcgan import NORMS
from .checkpoint import CheckpointError, load_checkpoint, load_state, save_checkpoint

HISTORY = ("critic_loss", "wasserstein", "generator_loss")

_INIT, _ORDER, _LATENTS, _SAMPLES = range(4)  # purposes of random streams; the numbers are part of what a seed means
# Settings that may differ between a run and its resumption: how long and where it runs, not what it computes.
_FREE = frozenset({"steps", "device", "checkpoint_every", "sample_every", "sample_count"})
_LR = {"clip": 5e-5, "gp": 1e-4}
_NORM = {"clip": "batch", "gp": "layer"}


@dataclasses.dataclass(frozen=True)
class WGANConfig:
    """Settings of the training. Invalid values raise ValueError naming the field.

    Attributes:
        latent: length of the latent (Deecke et al. 2018, Sect. 4.2: 256).
        width: width of generator and critic, see ``DCGANGenerator``.
        steps: generator steps in all.
        batch_size: images, and latents, in a batch.
        objective: ``"clip"``: weight clipping with RMSprop, as in the paper; ``"gp"``: gradient penalty with Adam.
        lr: learning rate of both networks; by the objective when None: 5e-5 (Arjovsky et al. 2017) or 1e-4
            (Gulrajani et al. 2017).
        n_critic: critic steps before each generator step.
        clip: with ``"clip"``, bound of each critic weight.
        gp_weight: with ``"gp"``, weight of the penalty.
        betas: with ``"gp"``, Adam's decay rates.
        norm: normalisation in the critic, ``"batch"``, ``"layer"`` or ``"none"``; ``"batch"`` for clipping and
            ``"layer"`` for the penalty when None. ``"batch"`` does not go with the penalty.
        critic_boost: take 100 critic steps in place of n_critic at the first 25 and every 500th generator step, as
            Arjovsky et al.'s own program does.
        seed: of weights, order of data and latents, 0 <= seed < 2**64.
        device: where to train; the CPU when None.
        checkpoint_every: generator steps between checkpoints; 0 for the first and last alone.
        sample_every: generator steps between sample pictures; 0 for none.
        sample_count: images in a sample picture.
    """

    latent: int = 256
    width: int = 64
    steps: int = 10_000
    batch_size: int = 64
    objective: Literal["clip", "gp"] = "clip"
    lr: float | None = None
    n_critic: int = 5
    clip: float = 0.01
    gp_weight: float = 10.0
    betas: tuple[float, float] = (0.0, 0.9)
    norm: Literal["batch", "layer", "none"] | None = None
    critic_boost: bool = False
    seed: int = 0
    device: str | torch.device | None = None
    checkpoint_every: int = 1000
    sample_every: int = 1000
    sample_count: int = 64

    def __post_init__(self) -> None:
        for name in ("latent", "width", "batch_size", "n_critic", "sample_count"):
            self._set(name, whole(name, getattr(self, name), 1))
        for name in ("steps", "seed", "checkpoint_every", "sample_every"):
            self._set(name, whole(name, getattr(self, name), 0))
        if self.seed >= 2**64:
            raise ValueError(f"seed must be below 2**64, got {self.seed}")
        for name, known in (("objective", tuple(_LR)), ("norm", (None, *NORMS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}")
        if self.lr is None:
            self._set("lr", _LR[self.objective])
        if self.norm is None:
            self._set("norm", _NORM[self.objective])
        if self.objective == "gp" and self.norm == "batch":
            raise ValueError("norm='batch' does not go with objective='gp': take 'layer' or 'none'")
        for name in ("lr", "clip", "gp_weight"):
            self._set(name, positive(name, getattr(self, name)))
        two = isinstance(self.betas, (tuple, list)) and len(self.betas) == 2
        if not two or not all(is_number(beta) and 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers of at least 0 and below 1, got {self.betas!r}")
        self._set("betas", tuple(float(beta) for beta in self.betas))
        if not isinstance(self.critic_boost, (bool, np.bool_)):
            raise ValueError(f"critic_boost must be True or False, got {self.critic_boost!r}")
        self._set("critic_boost", bool(self.critic_boost))
        try:
            torch.device(self.device or "cpu")
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"device {self.device!r} is not a torch device: {error}") from error

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen


class WGAN:
    """Everything that changes during training, one step of it, and its storage.

    `images` are (N, C, H, H), uint8 or float32 in [-1, 1], on the CPU.
    """

    def __init__(self, images: torch.Tensor, config: WGANConfig) -> None:
        self.config, self.device = config, torch.device(config.device or "cpu")
        self.count, channels, self.image_size = len(images), images.shape[1], images.shape[2]
        self.fingerprint = _fingerprint(images)
        self.images = images.to(self.device)
        init = torch.Generator().manual_seed(int(_stream(config.seed, _INIT).integers(2**63)))
        # Drawn on the CPU, so that a seed means the same weights on every device.
        self.generator = DCGANGenerator(self.image_size, channels, config.latent, config.width, generator=init)
        self.critic = DCGANCritic(self.image_size, channels, config.width, str(config.norm), generator=init)
        self.generator.to(self.device).train()
        self.critic.to(self.device).train()
        self.optimizers = {"generator": _optimizer(self.generator, config), "critic": _optimizer(self.critic, config)}
        self.critic_parameters = list(self.critic.parameters())
        self.step = 0
        self.saved: int | None = None  # the step of the last checkpoint written
        self.drawn = 0  # images drawn so far, over all epochs
        self.history: list[tuple[float, ...]] = []
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def advance(self) -> tuple[float, ...]:
        """n_critic critic steps and one generator step; returns what HISTORY names."""
        config = self.config
        boosted = config.critic_boost and (self.step < 25 or self.step % 500 == 0)
        stream = _stream(config.seed, _LATENTS, self.step)
        for _ in range(100 if boosted else config.n_critic):
            loss, distance = self._critic_step(stream)
        generator_loss = self._generator_step(stream)
        self.step += 1
        # One transfer for the three numbers: each would wait for the device.
        losses = tuple(torch.stack([loss, distance, generator_loss]).double().tolist())
        self.history.append(losses)
        return losses

    def _critic_step(self, stream: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        config, optimizer = self.config, self.optimizers["critic"]
        real = self._batch()
        with torch.no_grad():
            fake = self.generator(self._latents(stream, len(real)))
        if config.norm == "batch":
            # Apart, as Arjovsky et al. do: batch statistics of the data, or of the generator, not of a mixture.
            distance = self.critic(real).mean() - self.critic(fake).mean()
        else:
            score = self.critic(torch.cat([real, fake]))
            distance = score[: len(real)].mean() - score[len(real) :].mean()
        loss = -distance
        if config.objective == "gp":
            mix = torch.from_numpy(stream.random((len(real), 1, 1, 1), dtype=np.float32)).to(self.device)
            loss = loss + config.gp_weight * _penalty(self.critic, torch.lerp(fake, real, mix))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if config.objective == "clip":
            with torch.no_grad():
                for parameter in self.critic_parameters:
                    parameter.clamp_(-config.clip, config.clip)
        return loss.detach(), distance.detach()

    def _generator_step(self, stream: np.random.Generator) -> torch.Tensor:
        optimizer = self.optimizers["generator"]
        self.critic.requires_grad_(False)  # spares the critic's weight gradients
        loss = -self.critic(self.generator(self._latents(stream, self.config.batch_size))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        self.critic.requires_grad_(True)
        return loss.detach()

    def _latents(self, stream: np.random.Generator, count: int) -> torch.Tensor:
        return torch.from_numpy(stream.standard_normal((count, self.config.latent), dtype=np.float32)).to(self.device)

    def _batch(self) -> torch.Tensor:
        """The next batch_size images of an endless sequence of shuffled epochs, in [-1, 1]."""
        parts, needed = [], self.config.batch_size
        while needed:
            epoch, position = divmod(self.drawn, self.count)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, _stream(self.config.seed, _ORDER, epoch).permutation(self.count)
            part = self._order[position : position + needed]
            parts.append(part)
            needed -= len(part)
            self.drawn += len(part)
        index = torch.from_numpy(np.concatenate(parts)).to(self.device)
        batch = self.images[index]
        return batch if batch.is_floating_point() else validate.to_range(batch, torch.float32)

    @torch.no_grad()
    def picture(self, folder: Path) -> None:
        """Draws sample_count images of the generator in eval mode, always from the same latents, into ``folder``."""
        latents = self._latents(_stream(self.config.seed, _SAMPLES), self.config.sample_count)
        samples = self.generator.eval()(latents)
        self.generator.train()
        shown = 3 if samples.shape[1] == 3 else 1  # channels that a PNG can hold
        save_grid(samples[:, :shown], folder / f"samples-{self.step:07d}.png", scale=max(1, 64 // self.image_size))

    def save(self, folder: Path) -> None:
        """Writes a checkpoint of everything that a resumption needs."""
        tensors = {"history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, len(HISTORY))}
        for name, model in self.models().items():
            tensors |= {f"{name}/{key}": value for key, value in model.state_dict().items()}
            for index, state in self.optimizers[name].state_dict()["state"].items():
                tensors |= {f"{name}_optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        meta = {
            "kind": "wgan",
            "step": self.step,
            "drawn": self.drawn,
            "images": self.fingerprint,
            "config": _described(self.config),
            "architecture": {name: model.config for name, model in self.models().items()},
            "history": HISTORY,
        }
        save_checkpoint(folder, tensors, meta)

    def restore(self, folder: Path) -> None:
        """Goes back to the checkpoint in ``folder``; CheckpointError where it is of other images or settings."""
        tensors, meta = load_checkpoint(folder)
        if meta.get("kind") != "wgan":
            raise CheckpointError(f"{folder}: a checkpoint of {meta.get('kind')!r}, not of a WGAN")
        lacking = [name for name in ("step", "drawn", "config", "images") if name not in meta]
        if lacking:
            raise CheckpointError(f"{folder}: its meta entry lacks {', '.join(lacking)}")
        theirs, ours = meta["config"], _described(self.config)
        changed = [name for name in ours if name not in _FREE and theirs.get(name) != ours[name]]
        if changed:
            listed = ", ".join(f"{name} {theirs.get(name)!r} there, {ours[name]!r} here" for name in changed)
            raise CheckpointError(f"{folder}: this run was started with other settings: {listed}")
        if meta["images"] != self.fingerprint:
            listed = f"{meta['images']} there, {self.fingerprint} here"
            raise CheckpointError(f"{folder}: this run was started with other images: {listed}")
        if meta["step"] > self.config.steps:
            raise CheckpointError(f"{folder}: is already at step {meta['step']}, beyond steps={self.config.steps}")
        for name, model in self.models().items():
            load_state(model, _below(tensors, f"{name}/"), folder)
            state = self.optimizers[name].state_dict()
            state["state"] = {}
            for key, value in _below(tensors, f"{name}_optimizer/").items():
                index, _, entry = key.partition("/")
                state["state"].setdefault(int(index), {})[entry] = value
            self.optimizers[name].load_state_dict(state)
        self.step, self.drawn = meta["step"], meta["drawn"]
        self.history = [tuple(row) for row in tensors["history"].tolist()]

    def models(self) -> dict[str, DCGANGenerator | DCGANCritic]:
        """By what they are called in a checkpoint."""
        return {"generator": self.generator, "critic": self.critic}


def _penalty(critic: Callable[[torch.Tensor], torch.Tensor], mixed: torch.Tensor) -> torch.Tensor:
    """mean (|grad d(y)| - 1)^2 over images y (B, C, H, W), |.| Euclidean; Gulrajani et al. 2017, eq. 3."""
    mixed = mixed.requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()


def _optimizer(model: nn.Module, config: WGANConfig) -> torch.optim.Optimizer:
    assert config.lr is not None
    if config.objective == "gp":
        return torch.optim.Adam(model.parameters(), lr=config.lr, betas=config.betas)
    return torch.optim.RMSprop(model.parameters(), lr=config.lr)


def _stream(seed: int, purpose: int, counter: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, purpose, counter))))


def _fingerprint(images: torch.Tensor) -> str:
    """Shape, type and content of (up to 1024 of) the images, so that a run is not resumed on others."""
    some = images[:: max(1, len(images) // 1024)].contiguous().numpy()
    digest = hashlib.sha256(some.tobytes()).hexdigest()[:16]
    return f"{'x'.join(map(str, images.shape))} {some.dtype} {digest}"


def _described(config: WGANConfig) -> dict[str, Any]:
    described = dataclasses.asdict(config) | {"device": str(config.device or "cpu")}
    return json.loads(json.dumps(described))  # as it comes back from a file: lists for tuples


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
