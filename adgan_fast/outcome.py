"""What became of each image (`Status`), and a warning for scores that are NaN or Inf: where it began, what to try."""

from __future__ import annotations

import enum
import warnings

import torch

from .core.job import Job


class Status(enum.IntEnum):
    """What became of an image."""

    ok = 0
    not_finite = 1
    """The image holds NaN or Inf, and was not searched."""
    diverged = 2
    """Its score is NaN or Inf, though it is finite: the generator or the loss returned such values on the way."""


def statuses(finite: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Of images that are `finite` (N,) or not, with these scores (N,): (N,) int8, by the numbers of `Status`."""
    searched = torch.where(torch.isfinite(scores), Status.ok, Status.diverged)
    return torch.where(finite, searched, Status.not_finite).to(torch.int8)


def first_lost(initial: torch.Tensor, final: torch.Tensor) -> torch.Tensor:
    """Where the score of each image is lost, by losses (N, S): (N, 2).

    The first start whose final loss is NaN or Inf, S for none; and whether its initial loss is too (1, else 0).
    """
    lost = ~torch.isfinite(final)
    start = torch.where(lost.any(1), lost.int().argmax(1), final.shape[1])
    at_once = ~torch.isfinite(initial.gather(1, start.clamp(max=final.shape[1] - 1)[:, None]))[:, 0]
    return torch.stack([start, at_once.long()], 1)


def warn_of_diverged(status: torch.Tensor, lost: torch.Tensor, job: Job) -> None:
    """Warn of images that diverged, if any did: how many, the first with its start and step, and what to try."""
    diverged = status == Status.diverged
    count = int(diverged.sum())
    if not count:
        return
    image = int(diverged.int().argmax())
    start, at_once = (int(number) for number in lost[image])
    inside = f"generator {type(job.module).__name__} and the loss for a log, a root, a division or an overflow"
    if start == job.n_seed:
        where, remedy = "the mean of whose losses is beyond the dtype, though each is finite", "Scale the loss down"
    elif at_once:
        where, remedy = f"start {start}: its initial loss is already", f"No step is made before it: search {inside}"
    else:
        where = f"start {start}: its final loss is, its initial loss is not"
        rates = f"lr_z below {job.config.lr_z:g} and lr_weights below {job.config.lr_weights:g}"
        remedy = f"The search diverged: try {rates}, or fewer steps; then search {inside}"
    warnings.warn(
        f"{count} of {len(status)} scores are NaN or Inf. The first is that of image {image}, {where}. {remedy}. "
        "SearchResult.status says which images are lost",
        RuntimeWarning,
        stacklevel=4,
    )
