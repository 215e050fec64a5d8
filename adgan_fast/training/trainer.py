"""`Trainer`: what every training does, whatever its objective: networks, order of the data, storage, pictures.

An objective is a `TrainConfig`, and a `Trainer` that builds its networks and takes one step; a line in objectives.py
joins the two. Every random number is a function of (seed, purpose, counter) alone: of the step for latents, of the
epoch for the order of the data. So a run needs no random state: it can be resumed from a step number, and leaves the
global state alone.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .. import validate
from ..data.images import save_grid
from ..models.parts import IMAGE_SIZES
from .average import RunningMean
from .checkpoint import CheckpointError, below, load_checkpoint, load_state, save_checkpoint
from .config import TrainConfig
from .recorded import Feeds, RecordedSteps

# Purposes of random streams; the numbers are part of what a seed means.
_INIT, _ORDER, _STEP, _SAMPLES = range(4)


class Trainer(abc.ABC):
    """Everything that changes during training, one step of it, and its storage.

    Attributes:
        kind: what its checkpoints are called.
        losses: the names in the history, in its order.
        shown: label and name of the loss that the progress bar shows.
        source: what a run depends on beside its settings; it has to be the same when it is resumed.
        models: the networks by name.
        optimizers: of those networks that learn, by the same names.
        step: steps taken.
        drawn: images drawn so far, over all epochs.
        history: of each step its losses.
        saved: the step of the last checkpoint written.
    """

    kind: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[str, str]]
    source: ClassVar[str]

    def __init__(self, config: TrainConfig, image_shape: tuple[int, ...], fingerprint: str) -> None:
        self.config, self.device = config, torch.device(config.device or "cpu")
        self.feeds = Feeds(self.device)
        self.channels, self.image_size, self.fingerprint = image_shape[0], image_shape[-1], fingerprint
        self.step = self.drawn = 0
        self.saved: int | None = None
        self.history: list[tuple[float, ...]] = []
        # Drawn on the CPU, so that a seed means the same weights on every device.
        init = torch.Generator().manual_seed(int(random_stream(config.seed, _INIT).integers(2**63)))
        self.models = self.build(init)
        for model in self.models.values():
            model.to(self.device).train()
        self.optimizers = {
            name: self.optimizer(model)
            for name, model in self.models.items()
            if any(parameter.requires_grad for parameter in model.parameters())
        }
        take = self.update
        if config.average:
            if "generator" not in self.models or "encoder" in self.models:
                encoded = "generator" in self.models
                what = "has an encoder, which belongs to the generator as it is" if encoded else "has none"
                raise ValueError(
                    f"average is of a generator that is trained with a critic or alone: {self.kind} {what}"
                )
            now = self.models["generator"]
            self._mean = RunningMean(now, config.average)
            self.models |= {"generator": self._mean.model, "generator_now": now}
            take = self._update_and_average
        recorded = self.device.type == "cuda" and config.graphs and self.alike
        self._take = RecordedSteps(take, self.feeds) if recorded else take

    @property
    def alike(self) -> bool:
        """Whether each step does the same work, on other numbers: then a CUDA graph of one is good for all."""
        return True

    @abc.abstractmethod
    def build(self, init: torch.Generator) -> dict[str, nn.Module]:
        """The networks by name, their weights drawn from `init`; one that makes images is called ``"generator"``."""

    @abc.abstractmethod
    def update(self, stream: np.random.Generator) -> Mapping[str, torch.Tensor]:
        """One step with the random numbers of `stream`; its `losses` by name, as tensors without dimensions.

        What it draws it brings to the device by `feeds`: so a step can be recorded.
        """

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """What `model` learns by: Adam."""
        return self.adam(model)

    def adam(self, model: nn.Module, faster: float = 1.0, **settings: Any) -> torch.optim.Optimizer:
        """Adam, at `faster` times the learning rate of the config."""
        assert self.config.lr is not None
        recordable = self.device.type == "cuda"
        return torch.optim.Adam(
            model.parameters(), lr=faster * self.config.lr, betas=self.config.betas, capturable=recordable, **settings
        )

    def samples(self) -> torch.Tensor | None:
        """Images (sample_count, C, H, W) for a picture, of networks in eval mode; None where the objective makes none.

        These are the generator's, always from the same latents.
        """
        if "generator" not in self.models:
            return None
        return self.models["generator"](
            self.latents(random_stream(self.config.seed, _SAMPLES), self.config.sample_count)
        )

    def advance(self) -> dict[str, float]:
        """One step; returns its losses by name."""
        losses = self._take(random_stream(self.config.seed, _STEP, self.step))
        self.step += 1
        # One transfer for all of them: each would wait for the device.
        values = tuple(torch.stack([losses[name] for name in self.losses]).double().tolist())
        self.history.append(values)
        return dict(zip(self.losses, values, strict=True))

    def _update_and_average(self, stream: np.random.Generator) -> Mapping[str, torch.Tensor]:
        losses = self.update(stream)
        self._mean.take(self.feeds.put(lambda _: np.array(self._mean.weight(self.step + 1), np.float32), stream))
        return losses

    def descend(self, loss: torch.Tensor, *names: str) -> None:
        """One step of the optimizers of these networks down the gradient of `loss`."""
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        for name in names:
            self.optimizers[name].step()

    @contextlib.contextmanager
    def passed_through(self, model: nn.Module) -> Iterator[None]:
        """Inside, gradients pass through `model`, not into its weights; they do again afterwards, whatever happened."""
        model.requires_grad_(False)
        try:
            yield
        finally:
            model.requires_grad_(True)

    def latents(self, stream: np.random.Generator, count: int) -> torch.Tensor:
        """(count, latent) of N(0, I)."""
        shape = (count, self.config.latent)
        return self.feeds.put(lambda random: random.standard_normal(shape, dtype=np.float32), stream)

    @torch.no_grad()
    def picture(self, folder: Path) -> None:
        """Draws `samples` into ``folder``, if the objective makes any."""
        for model in self.models.values():
            model.eval()
        samples = self.samples()
        for model in self.models.values():
            model.train()
        if samples is not None:
            shown = 3 if self.channels == 3 else 1  # channels that a PNG can hold
            save_grid(samples[:, :shown], folder / f"samples-{self.step:07d}.png", scale=max(1, 64 // self.image_size))

    def save(self, folder: Path) -> None:
        """Writes a checkpoint of everything that a resumption needs."""
        tensors = {"history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, len(self.losses))}
        for name, model in self.models.items():
            tensors |= {f"{name}/{key}": value for key, value in model.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}_optimizer/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        meta = {
            "kind": self.kind,
            "step": self.step,
            "drawn": self.drawn,
            self.source: self.fingerprint,
            "config": self.config.described(),
            "architecture": {name: model.config for name, model in self.models.items()},
            "history": self.losses,
        }
        if (windows := self._windows()) is not None:
            meta["windows"] = windows
        save_checkpoint(folder, tensors, meta)

    def _windows(self) -> dict[str, Any] | None:
        windows = getattr(self.models.get("generator"), "windows", None)
        return None if windows is None else windows.described()

    def restore(self, folder: Path) -> None:
        """Goes back to the checkpoint in ``folder``; CheckpointError where it is of other images or settings."""
        tensors, meta = load_checkpoint(folder)
        if meta.get("kind") != self.kind:
            raise CheckpointError(f"{folder}: a checkpoint of {meta.get('kind')!r}, not of {self.kind!r}")
        lacking = [name for name in ("step", "drawn", "config", self.source) if name not in meta]
        if lacking:
            raise CheckpointError(f"{folder}: its meta entry lacks {', '.join(lacking)}")
        if different := self.config.differences(meta["config"]):
            raise CheckpointError(f"{folder}: this run was started with other settings: {different}")
        if meta[self.source] != self.fingerprint:
            listed = f"{meta[self.source]} there, {self.fingerprint} here"
            raise CheckpointError(f"{folder}: this run was started with other {self.source}: {listed}")
        if meta.get("windows") != self._windows():
            listed = f"{meta.get('windows')} there, {self._windows()} here"
            raise CheckpointError(f"{folder}: this run was started with other windows: {listed}")
        if meta["step"] > self.config.steps:
            raise CheckpointError(f"{folder}: is already at step {meta['step']}, beyond steps={self.config.steps}")
        for name, model in self.models.items():
            load_state(model, below(tensors, f"{name}/"), folder)
        for name, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            state["state"] = {}
            for key, value in below(tensors, f"{name}_optimizer/").items():
                index, _, entry = key.partition("/")
                state["state"].setdefault(int(index), {})[entry] = value
            optimizer.load_state_dict(state)
        self.step, self.drawn = meta["step"], meta["drawn"]
        self.history = [tuple(row) for row in tensors["history"].tolist()]


class ImageTrainer(Trainer):
    """A training on images.

    Args:
        images: (N, C, H, H), or (N, H, H) for C = 1, H one of 8, 16, 28, 32, 64: uint8, or float in [-1, 1].
        config: its settings.

    Raises:
        TypeError, ValueError: images that cannot be trained on, naming what is wrong.
    """

    source = "images"

    def __init__(self, images: torch.Tensor | npt.NDArray[Any], config: TrainConfig) -> None:
        given = _checked(images)
        self.count = len(given)
        self.images = given.to(torch.device(config.device or "cpu"))
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        super().__init__(config, tuple(given.shape[1:]), _fingerprint(given))

    def batch(self, stream: np.random.Generator) -> torch.Tensor:
        """The next batch_size images of an endless sequence of shuffled epochs, in [-1, 1]; nothing of `stream`."""
        return self.chosen(self.feeds.put(lambda _: self._places(), stream))

    def _places(self) -> npt.NDArray[np.int64]:
        parts, needed = [], self.config.batch_size
        while needed:
            epoch, position = divmod(self.drawn, self.count)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, random_stream(self.config.seed, _ORDER, epoch).permutation(self.count)
            part = self._order[position : position + needed]
            parts.append(part)
            needed -= len(part)
            self.drawn += len(part)
        return np.concatenate(parts)

    def chosen(self, places: torch.Tensor) -> torch.Tensor:
        """The images at these places, (n, C, H, W) float32 in [-1, 1]."""
        images = self.images[places]
        return images if images.is_floating_point() else validate.to_range(images, torch.float32)

    def some(self, most: int) -> torch.Tensor:
        """Up to `most` of the images, evenly spaced and always the same, as `chosen` gives them."""
        places = np.linspace(0, self.count - 1, min(most, self.count)).astype(np.int64)
        return self.chosen(torch.from_numpy(places).to(self.device))


def random_stream(seed: int, purpose: int, counter: int = 0) -> np.random.Generator:
    """Random numbers that depend on these three alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, purpose, counter))))


def _checked(images: torch.Tensor | npt.NDArray[Any]) -> torch.Tensor:
    """(N, C, H, H) uint8 or float32 on the CPU."""
    tensor = validate.as_images(images).cpu()
    if tensor.shape[2] != tensor.shape[3] or tensor.shape[2] not in IMAGE_SIZES:
        wanted = f"(N, C, H, H) or (N, H, H) with H one of {', '.join(map(str, IMAGE_SIZES))}"
        raise ValueError(f"images must have shape {wanted}, got {tuple(tensor.shape)}")
    if tensor.numel() == 0:
        raise ValueError(f"there must be at least one image of at least one channel, got shape {tuple(tensor.shape)}")
    validate.scan(tensor, strict=True)
    # uint8 stays as it is: a quarter of the memory, and scaled batch by batch.
    return tensor if tensor.dtype == torch.uint8 else tensor.float()


def _fingerprint(images: torch.Tensor) -> str:
    """Shape, type and content of (up to 1024 of) the images, so that a run is not resumed on others."""
    some = images[:: max(1, len(images) // 1024)].contiguous().numpy()
    digest = hashlib.sha256(some.tobytes()).hexdigest()[:16]
    return f"{'x'.join(map(str, images.shape))} {some.dtype} {digest}"
