"""One batch: a dict of arrays to a dict of arrays. What every runner of jobs calls, here or on another machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from .. import validate
from ..outcome import Status
from ..scorer import Scorer
from .source import Unreadable

UNREADABLE = "unreadable"
STATUSES = (*(status.name for status in Status), UNREADABLE)
"""What may become of an image in a job."""

NOT_FINITE = "the image holds NaN or Inf"
DIVERGED = (
    "the score is NaN or Inf, though the image is finite: try lower lr_z and lr_weights, or fewer steps "
    "(adgan_fast.search says where it begins)"
)

KEEPABLE = ("reconstructions", "windows")
NUMBERS = ("score", "score_std", "score_min", "initial_loss")
STARTS_USED = "starts_used"
Arrays = dict[str, npt.NDArray]


class ScoreBatch:
    """Scores images of a run; without a state of its own but the scorer, which may be pickled.

    Args:
        scorer: whose generator the images are held against.
        image_shape: (C, H, W) of the images; None where none can be read.
        total: images of the whole run.
        keep: of KEEPABLE, what to hand out beside the numbers.
    """

    def __init__(
        self, scorer: Scorer, image_shape: tuple[int, ...] | None, total: int, keep: tuple[str, ...] = ()
    ) -> None:
        self.scorer, self.image_shape, self.total, self.keep = scorer, image_shape, total, keep

    def prepare(self) -> None:
        """Make the scorer ready, as the first batch does otherwise."""
        if self.image_shape is not None:
            self.scorer.prepare(self.image_shape)

    def on(self, device: str) -> ScoreBatch:
        """The same on another device."""
        return ScoreBatch(self.scorer.to(device), self.image_shape, self.total, self.keep)

    def __call__(self, batch: Arrays) -> Arrays:
        """The rows of some images, in their order.

        Args:
            batch: "image", (n, C, H, W) uint8 or float32 in [-1, 1]; "index", (n,) int64: the place of the first one in
                the run, and of those that follow it there.

        Returns:
            Of each image: "score", "score_std", "score_min", the mean, the standard deviation (that of the starts
            themselves: the sum of squares over S) and the least of its starts' final losses; "initial_loss", the mean
            of their losses before the first step; "status" and "error", str. Numbers are NaN where the status is not
            "ok". With adaptive= they are of the starts used, and STARTS_USED, int64, says how many. With keep,
            "reconstructions" (n, C, H, W) of the best start.

        Raises:
            ValueError: for what is wrong with the generator, the shape of the images or the settings.
        """
        images, index = batch["image"], batch["index"]
        if len(index) and (np.diff(index) != 1).any():
            raise ValueError("index must be consecutive: a batch is a part of a run")
        outside = beyond(images)
        if any(outside.values()):
            images = images.copy()
            images[list(outside)] = 0
        first = int(index[0]) if len(index) else 0
        part = self.scorer.part(images, ["scores", "losses", "initial_losses", *self.keep], first, self.total)
        losses, initial, used = part.tensors["losses"], part.tensors["initial_losses"], part.starts_used
        status = np.array([Status(number).name for number in part.status.tolist()], dtype=object)
        error = np.array(
            [{"not_finite": NOT_FINITE, "diverged": DIVERGED}.get(name, "") for name in status], dtype=object
        )
        for row, fault in outside.items():
            status[row], error[row] = UNREADABLE, fault
        found = {
            "score": part.tensors["scores"],
            "score_std": torch.empty_like(part.tensors["scores"]),
            "score_min": torch.empty_like(part.tensors["scores"]),
            "initial_loss": torch.empty_like(part.tensors["scores"]),
            **{name: part.tensors[name] for name in self.keep},
        }
        counts = torch.full((len(losses),), losses.shape[1]) if used is None else used
        for count in filter(None, counts.unique().tolist()):  # 0 is of an image without a score
            rows = counts == count
            of_rows = losses[rows, :count]
            found["score_std"][rows] = of_rows.double().std(1, correction=0).to(losses.dtype)
            found["score_min"][rows] = of_rows.amin(1)
            found["initial_loss"][rows] = initial[rows, :count].mean(1)
        bad = torch.from_numpy(status != "ok")
        for tensor in found.values():
            tensor[bad] = float("nan")
        if used is not None:
            found[STARTS_USED] = used
        return {name: tensor.numpy() for name, tensor in found.items()} | {"status": status, "error": error}


def fault_of(image: npt.NDArray | Unreadable) -> str:
    """Why an image cannot be searched, whatever its shape, or ""."""
    if isinstance(image, Unreadable):
        return str(image) or UNREADABLE
    return "" if image.dtype in (np.uint8, np.float32) else f"its numbers are {image.dtype}, not uint8 or float32"


def beyond(images: npt.NDArray) -> dict[int, str]:
    """Of float images the finite ones that leave [-1, 1], with the fault in words."""
    if images.dtype == np.uint8 or not images.size:
        return {}
    flat = images.reshape(len(images), -1)
    low, high = flat.min(1), flat.max(1)
    leaves = (low < -1 - validate.RANGE_SLACK) | (high > 1 + validate.RANGE_SLACK)
    rows = np.flatnonzero(leaves & np.isfinite(low) & np.isfinite(high))
    return {int(row): validate.out_of_range(float(low[row]), float(high[row])) for row in rows}
