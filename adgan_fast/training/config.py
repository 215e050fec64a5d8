"""`TrainConfig`: the settings that every training has, whatever its objective."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

from ..given import decay_rates, flag, is_number, one_of, positive, whole

Precision = Literal["float32", "tf32"]

FREE = frozenset({"steps", "device", "graphs", "checkpoint_every", "sample_every", "sample_count"})
"""Settings that may differ between a run and its resumption: how long and where it runs, not what it computes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of any training; the class of an objective adds its own. A bad value raises ValueError naming the field.

    Attributes:
        latent: length of the latent, or of the code (Deecke et al. 2018, Sect. 4.2: 256).
        width: width of the networks, see ``DCGANGenerator``.
        steps: steps in all; of the generator, where there is one.
        batch_size: images, and latents, in a batch.
        lr: learning rate of every network.
        betas: Adam's decay rates.
        average: decay of a running mean of the generator's weights, 0 <= average < 1, which is then the generator that
            comes out (Yazici et al. 2019); its training goes on beside it as ``"generator_now"``. 0: no mean.
        seed: of weights, order of data and latents, 0 <= seed < 2**64.
        device: where to train; the CPU when None.
        precision: of products and convolutions on a GPU: ``"float32"``, or ``"tf32"``, which is faster.
        graphs: on a CUDA device, record a step once and replay it, which spares its launches; the weights are the same.
        checkpoint_every: steps between checkpoints; 0 for the first and last alone.
        sample_every: steps between sample pictures; 0 for none.
        sample_count: images in a sample picture.
    """

    latent: int = 256
    width: int = 64
    steps: int = 10_000
    batch_size: int = 64
    lr: float | None = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    average: float = 0.0
    seed: int = 0
    device: str | torch.device | None = None
    precision: Precision = "float32"
    graphs: bool = True
    checkpoint_every: int = 1000
    sample_every: int = 1000
    sample_count: int = 64

    def __post_init__(self) -> None:
        for name in ("latent", "width", "batch_size", "sample_count"):
            self._set(name, whole(name, getattr(self, name), 1))
        for name in ("steps", "seed", "checkpoint_every", "sample_every"):
            self._set(name, whole(name, getattr(self, name), 0))
        if self.seed >= 2**64:
            raise ValueError(f"seed must be below 2**64, got {self.seed}")
        self._check()
        self._set("lr", positive("lr", self.lr))
        self._set("betas", decay_rates(self.betas))
        if not is_number(self.average) or not 0 <= self.average < 1:
            raise ValueError(f"average must be a number from 0 to below 1, got {self.average!r}")
        self._set("average", float(self.average))
        one_of("precision", self.precision, get_args(Precision))
        self._set("graphs", flag("graphs", self.graphs))
        try:
            torch.device(self.device or "cpu")
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"device {self.device!r} is not a torch device: {error}") from error

    def _check(self) -> None:
        """Checks, and completes, what the objective has of its own."""

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def described(self) -> dict[str, Any]:
        """Every setting as it comes back from a file: the device by its name, lists for tuples."""
        return json.loads(json.dumps(dataclasses.asdict(self) | {"device": str(self.device or "cpu")}))

    def differences(self, theirs: Mapping[str, Any]) -> str:
        """Where a run that was `described` so cannot go on with these settings, with both values; "" for nowhere.

        A setting that it does not name is younger than the run, which so had its default.
        """
        ours, theirs = self.described(), {**type(self)().described(), **theirs}
        changed = [name for name in ours if name not in FREE and theirs[name] != ours[name]]
        return ", ".join(f"{name} {theirs[name]!r} there, {ours[name]!r} here" for name in changed)
