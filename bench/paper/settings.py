"""The settings that decide an experiment's figures. Each entry names those that it uses; a row carries them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Settings:
    """The paper's where it says (Sect. 4.2, 4.3).

    Attributes:
        items: test images, drawn at random.
        holdout: training images of the normal class kept to choose on, and as many of the others.
        seed: of all that is drawn.
        objective: of the training of the generator that ADGAN, AnoGAN, critic and prior share: clip or gp.
        width: of every network.
        latent: length of the generators' latent.
        gan_steps: generator steps of each generator's training.
        code: length of an autoencoder's code.
        autoencoder_steps: of the training of autoencoders, Deep SVDD and encoders.
        precision: of every network's training on a GPU, float32 or tf32; see ``TrainConfig``.
        n_seed: starts of each search.
        steps: of each search.
        device: where networks are trained and searched; the CPU when None. Like `engine` it does not decide a figure,
            beyond rounding.
        engine: of the searches.
        alexnet: state dict of the ImageNet AlexNet, .pth or .safetensors; when None detectors on its features are
            refused.
    """

    items: int = 5000
    holdout: int = 200
    seed: int = 0
    objective: str = "clip"
    width: int = 64
    latent: int = 256
    gan_steps: int = 2000
    code: int = 32
    autoencoder_steps: int = 4000
    precision: str = "float32"
    n_seed: int = 64
    steps: int = 5
    device: str | None = None
    engine: str = "auto"
    alexnet: Path | None = None

    def described(self, uses: Iterable[str]) -> dict[str, Any]:
        """What decides the figures of something that uses these fields, as JSON has it: of a file, its content."""
        values = {name: getattr(self, name) for name in ("items", "holdout", "seed", *uses)}
        return {name: _digest(value) if isinstance(value, Path) else value for name, value in values.items()}

    def key(self, uses: Iterable[str]) -> str:
        """Twelve letters that stand for `described`, in the name of what is kept for these settings alone."""
        return hashlib.sha256(json.dumps(self.described(uses), sort_keys=True).encode()).hexdigest()[:12]


def _digest(file: Path) -> str:
    if not file.is_file():
        return str(file)  # whoever reads it says what is wrong
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
