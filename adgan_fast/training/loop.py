"""`train`: the loop over the steps of any objective, with checkpoints, sample pictures, progress and interrupts."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..core.ambient import neutral
from ..core.precision import arithmetic
from ..models.parts import Model
from ..progress import bar
from ..window_settings import Windows
from .checkpoint import has_checkpoint, require_finite, save_generator
from .config import TrainConfig
from .interrupt import Interrupt, held_back
from .objectives import trainer_of
from .trainer import Trainer
from .wgan import WGANConfig

log = logging.getLogger("adgan_fast")

GENERATOR_FILE = "generator.safetensors"


class TrainingDiverged(RuntimeError):
    """A loss or a weight became NaN or Inf.

    Attributes:
        step: the generator step (counted from 1) at which it was seen.
        checkpoint: folder of the last checkpoint before it, sound and on disk; None if the run kept none.
    """

    def __init__(self, step: int, found: str, checkpoint: Path | None) -> None:
        self.step, self.checkpoint = step, checkpoint
        kept = f"the last good checkpoint is in {checkpoint}" if checkpoint else "no checkpoint was kept (no out=)"
        super().__init__(f"training diverged at step {step}: {found}; {kept}. A smaller lr is the usual remedy")


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What ``train`` returns. Each network is also an attribute: ``result.generator``, ``result.critic``.

    Attributes:
        models: the networks by name, in eval mode: ``"generator"``, ``"critic"``, ``"encoder"`` or what else the
            objective has.
        history: of each step, by name, its losses: float64 (steps,). The trainer of an objective says which.
        step: steps taken in all.
    """

    models: dict[str, nn.Module]
    history: dict[str, npt.NDArray[np.float64]]
    step: int

    def __getattr__(self, name: str) -> nn.Module:
        models = self.__dict__.get("models", {})
        if name not in models:
            raise AttributeError(f"this training has no {name!r}; its networks are {', '.join(models)}")
        return models[name]


def train(
    images: torch.Tensor | npt.NDArray[Any] | nn.Module,
    config: TrainConfig | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    windows: Windows | None = None,
) -> TrainResult:
    """Trains the networks of an objective on ``images``: by default a DCGAN generator by the WGAN of the paper.

    What is trained, and how, is said by the class of ``config``.

    On one machine, with one number of threads, the weights are bitwise a function of (images, config), whether or not
    the run was interrupted and resumed, whatever else has drawn random numbers, and whatever the caller has set in
    PyTorch (default dtype and device, autocast, inference mode, TF32).

    Where ``out`` is given and this runs in the main thread, an interrupt (Ctrl-C), as SIGTERM, lets the step in work
    end, writes a checkpoint, logs where it is, and then raises KeyboardInterrupt. A second one does not wait: what is
    in ``out`` then is the checkpoint before it, whole.

    Args:
        images: (N, C, H, H), or (N, H, H) for C = 1, H one of 8, 16, 28, 32, 64: uint8, or float in [-1, 1]. For an
            ``InverseConfig`` the generator to be inverted.
        config: the settings, of a class of this package: ``WGANConfig()`` when None.
        out: folder for checkpoints, sample pictures (``samples-<step>.png``) and, at the end, the generator, if there
            is one (``generator.safetensors``, read by ``load_generator``); nothing is written when None.
        resume: go on from the checkpoint in ``out``, if there is one. Images and settings must be the same; the
            number of steps may grow, and device and the spacing of checkpoints and samples may change.
        progress: show on stderr how far it is: a bar, or a line each minute where that is no terminal.
        windows: how ``images`` were cut from larger ones (``adgan_fast.windows.random_windows``), for windows of their
            size. It is kept with the generator, in its file and the checkpoints, and scoring follows it.

    Raises:
        TypeError, ValueError: images or settings that cannot be trained on, naming what is wrong.
        FileExistsError: ``out`` holds a checkpoint and ``resume`` is False.
        CheckpointError: the checkpoint is damaged, or of other images or settings.
        TrainingDiverged: a loss or weight became NaN or Inf.
    """
    config = WGANConfig() if config is None else config
    make = trainer_of(config)
    folder = Path(out) if out is not None else None
    if resume and folder is None:
        raise ValueError("resume=True needs out=, the folder that holds the checkpoint")
    if folder is not None and not resume and has_checkpoint(folder):
        raise FileExistsError(f"{folder} holds a checkpoint: resume=True goes on from it; else give another folder")
    # What the caller has set in PyTorch must not decide the result; all is put back at the end.
    with (
        neutral(config.device or "cpu"),
        arithmetic(config.precision),
        held_back(folder is not None) as interrupt,
    ):
        trainer = make(images, config)
        if windows is not None:
            _note(trainer, windows)
        if folder is not None and resume and has_checkpoint(folder):
            trainer.restore(folder)
        try:
            _loop(trainer, folder, progress, interrupt)
        except KeyboardInterrupt:
            _say_where(trainer, folder)
            raise
        if folder is not None and "generator" in trainer.models:
            save_generator(trainer.models["generator"], folder / GENERATOR_FILE)
    for model in trainer.models.values():
        model.eval()
    history = {name: np.array([row[index] for row in trainer.history]) for index, name in enumerate(trainer.losses)}
    return TrainResult(trainer.models, history, trainer.step)


def _note(trainer: Trainer, windows: Windows) -> None:
    """With the generator; ValueError where there is none, or for windows of another size."""
    generator = trainer.models.get("generator")
    if not isinstance(generator, Model):
        raise ValueError(f"windows are kept with a generator, and {trainer.kind} trains none")
    if windows.size != trainer.image_size:
        raise ValueError(f"windows have size {windows.size}, the images to train on {trainer.image_size}")
    generator.windows = windows


def _loop(trainer: Trainer, folder: Path | None, progress: bool, interrupt: Interrupt) -> None:
    config, good = trainer.config, None
    label, watched = trainer.shown

    def keep() -> None:
        nonlocal good
        try:
            for name, model in trainer.models.items():
                require_finite({f"{name} {key}": value for key, value in model.state_dict().items()})
        except ValueError as error:
            raise TrainingDiverged(trainer.step, str(error), good) from error
        if folder is not None:
            trainer.save(folder)
        good, trainer.saved = folder, trainer.step

    keep()  # also shows now, not hours later, that the folder can be written to
    with bar(config.steps, "step", done=trainer.step, about="train", shown=progress) as shown:
        while trainer.step < config.steps and not interrupt.asked:
            losses = trainer.advance()
            for name, value in losses.items():
                if not math.isfinite(value):
                    raise TrainingDiverged(trainer.step, f"{name} is {value}", good)
            shown.update()
            if progress and trainer.step % 10 == 0:
                shown.set_postfix_str(f"{label} {losses[watched]:.3g}", refresh=False)
            if folder is not None and config.sample_every and trainer.step % config.sample_every == 0:
                trainer.picture(folder)
            if config.checkpoint_every and trainer.step % config.checkpoint_every == 0:
                keep()
    if trainer.saved != trainer.step:
        keep()
    if interrupt.asked:
        raise KeyboardInterrupt


def _say_where(trainer: Trainer, folder: Path | None) -> None:
    if folder is not None and trainer.saved is not None:
        where = f"the checkpoint of step {trainer.saved} is in {folder}"
        remedy = "the same call with resume=True (--resume) goes on from there"
        log.warning("interrupted at step %d of %d: %s; %s", trainer.step, trainer.config.steps, where, remedy)
