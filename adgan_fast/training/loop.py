"""`train`: the loop over the steps of a WGAN, with checkpoints, sample pictures, progress and interrupts."""

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
from tqdm.auto import tqdm

from .. import validate
from ..core.ambient import neutral
from ..core.precision import arithmetic
from ..models import DCGANCritic, DCGANGenerator
from ..models.dcgan import IMAGE_SIZES
from .checkpoint import has_checkpoint, require_finite, save_generator
from .interrupt import Interrupt, held_back
from .wgan import HISTORY, WGAN, WGANConfig

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
    """What ``train`` returns.

    Attributes:
        generator: the trained generator, in eval mode.
        critic: its critic, in eval mode.
        history: for each generator step, float64 (steps,): ``"critic_loss"`` and ``"wasserstein"``, the estimate
            mean d(x) - mean d(g(z)), both of the last critic step before it, and ``"generator_loss"``.
        step: generator steps taken in all.
    """

    generator: DCGANGenerator
    critic: DCGANCritic
    history: dict[str, npt.NDArray[np.float64]]
    step: int


def train(
    images: torch.Tensor | npt.NDArray[Any],
    config: WGANConfig | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
) -> TrainResult:
    """Trains a DCGAN generator on ``images``.

    On one machine, with one number of threads, the weights are bitwise a function of (images, config), whether or not
    the run was interrupted and resumed, whatever else has drawn random numbers, and whatever the caller has set in
    PyTorch (default dtype and device, autocast, inference mode, TF32).

    Where ``out`` is given and this runs in the main thread, an interrupt (Ctrl-C) lets the step in work end, writes a
    checkpoint, logs where it is, and then raises KeyboardInterrupt. A second one does not wait: what is in ``out`` then
    is the checkpoint before it, whole.

    Args:
        images: (N, C, H, H), or (N, H, H) for C = 1, H one of 8, 16, 28, 32, 64: uint8, or float in [-1, 1].
        config: the settings; ``WGANConfig()`` when None.
        out: folder for checkpoints, sample pictures (``samples-<step>.png``) and, at the end, the generator
            (``generator.safetensors``, read by ``load_generator``); nothing is written when None.
        resume: go on from the checkpoint in ``out``, if there is one. Images and settings must be the same; the
            number of steps may grow, and device and the spacing of checkpoints and samples may change.
        progress: show a progress bar on stderr.

    Raises:
        TypeError, ValueError: images or settings that cannot be trained on, naming what is wrong.
        FileExistsError: ``out`` holds a checkpoint and ``resume`` is False.
        CheckpointError: the checkpoint is damaged, or of other images or settings.
        TrainingDiverged: a loss or weight became NaN or Inf.
    """
    config = WGANConfig() if config is None else config
    if not isinstance(config, WGANConfig):
        remedy = ": WGANConfig(**config) makes one of it" if isinstance(config, dict) else ""
        raise TypeError(f"config must be a WGANConfig, got a {type(config).__name__}{remedy}")
    folder = Path(out) if out is not None else None
    if resume and folder is None:
        raise ValueError("resume=True needs out=, the folder that holds the checkpoint")
    if folder is not None and not resume and has_checkpoint(folder):
        raise FileExistsError(f"{folder} holds a checkpoint: resume=True goes on from it; else give another folder")
    # What the caller has set in PyTorch must not decide the result; all is put back at the end.
    with (
        neutral(config.device or "cpu"),
        arithmetic("float32"),
        held_back(folder is not None) as interrupt,
    ):
        wgan = WGAN(_images(images), config)
        if folder is not None and resume and has_checkpoint(folder):
            wgan.restore(folder)
        try:
            _loop(wgan, folder, progress, interrupt)
        except KeyboardInterrupt:
            _say_where(wgan, folder)
            raise
        if folder is not None:
            save_generator(wgan.generator, folder / GENERATOR_FILE)
    history = {name: np.array([row[index] for row in wgan.history]) for index, name in enumerate(HISTORY)}
    return TrainResult(wgan.generator.eval(), wgan.critic.eval(), history, wgan.step)


def _loop(wgan: WGAN, folder: Path | None, progress: bool, interrupt: Interrupt) -> None:
    config, good = wgan.config, None

    def keep() -> None:
        nonlocal good
        try:
            for name, model in wgan.models().items():
                require_finite({f"{name} {key}": value for key, value in model.state_dict().items()})
        except ValueError as error:
            raise TrainingDiverged(wgan.step, str(error), good) from error
        if folder is not None:
            wgan.save(folder)
        good, wgan.saved = folder, wgan.step

    keep()  # also shows now, not hours later, that the folder can be written to
    with tqdm(total=config.steps, initial=wgan.step, disable=not progress, desc="train", unit="step") as bar:
        while wgan.step < config.steps and not interrupt.asked:
            losses = wgan.advance()
            for name, value in zip(HISTORY, losses, strict=True):
                if not math.isfinite(value):
                    raise TrainingDiverged(wgan.step, f"{name} is {value}", good)
            bar.update()
            if progress and wgan.step % 10 == 0:
                bar.set_postfix_str(f"W {losses[HISTORY.index('wasserstein')]:.3g}", refresh=False)
            if folder is not None and config.sample_every and wgan.step % config.sample_every == 0:
                wgan.picture(folder)
            if config.checkpoint_every and wgan.step % config.checkpoint_every == 0:
                keep()
    if wgan.saved != wgan.step:
        keep()
    if interrupt.asked:
        raise KeyboardInterrupt


def _say_where(wgan: WGAN, folder: Path | None) -> None:
    if folder is not None and wgan.saved is not None:
        where = f"the checkpoint of step {wgan.saved} is in {folder}"
        remedy = "the same call with resume=True goes on from there"
        log.warning("interrupted at step %d of %d: %s; %s", wgan.step, wgan.config.steps, where, remedy)


def _images(images: torch.Tensor | npt.NDArray[Any]) -> torch.Tensor:
    """(N, C, H, H) uint8 or float32 on the CPU, checked."""
    tensor = validate.as_images(images).cpu()
    if tensor.shape[2] != tensor.shape[3] or tensor.shape[2] not in IMAGE_SIZES:
        wanted = f"(N, C, H, H) or (N, H, H) with H one of {', '.join(map(str, IMAGE_SIZES))}"
        raise ValueError(f"images must have shape {wanted}, got {tuple(tensor.shape)}")
    if tensor.numel() == 0:
        raise ValueError(f"there must be at least one image of at least one channel, got shape {tuple(tensor.shape)}")
    validate.scan(tensor, strict=True)
    # uint8 stays as it is: a quarter of the memory, and scaled batch by batch.
    return tensor if tensor.dtype == torch.uint8 else tensor.float()
