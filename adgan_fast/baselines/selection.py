"""A setting chosen on a small holdout with labels, as the paper chose the number of PCA components (Sect. 4.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from .base import Baseline, scikit_learn

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclasses.dataclass(frozen=True, eq=False)
class Holdout:
    """Images with what they are, to choose settings on; none of them may be tested on.

    Attributes:
        images: (M, C, H, W) or (M, H, W), as for `Baseline.fit`.
        anomalous: (M,) bool, both kinds among them.
    """

    images: npt.NDArray[Any] | torch.Tensor
    anomalous: npt.ArrayLike

    def __post_init__(self) -> None:
        labels = np.asarray(self.anomalous)
        if labels.dtype != bool or labels.shape != (len(self.images),):
            raise ValueError(
                f"anomalous must be {len(self.images)} booleans, one for each image, got {labels.dtype} {labels.shape}"
            )
        if labels.all() or not labels.any():
            raise ValueError(
                f"a holdout needs normal and anomalous images, got {labels.sum()} of {len(labels)} anomalous"
            )
        object.__setattr__(self, "anomalous", labels)


@dataclasses.dataclass(eq=False)
class Selected(Baseline):
    """The detector, of one for each value of a setting, that ranks a holdout best: by AUC, the first of equals.

        shared = Shared(PCA(100))
        Selected(lambda n: KDE(shared.first(n)), (20, 40, 60, 80, 100)).fit(images, holdout=Holdout(others, labels))

    Attributes:
        make: from a value to a new detector.
        grid: the values.
        chosen_: the value chosen.
        detector_: its detector.
        aucs_: the AUC of each value on the holdout.
    """

    make: Callable[[Any], Baseline]
    grid: Iterable[Any]

    def __post_init__(self) -> None:
        self.grid = tuple(self.grid)
        if not self.grid:
            raise ValueError("grid must name at least one value")
        self._holdout: Holdout | None = None

    def fit(self, images: npt.NDArray[Any] | torch.Tensor, *, holdout: Holdout | None = None) -> Self:
        """Fit a detector for each value to `images`, and keep the one that ranks `holdout` best.

        Raises ValueError where there is no holdout, and what the detectors raise.
        """
        if holdout is None:
            raise ValueError("Selected chooses by images with labels: fit(images, holdout=Holdout(images, anomalous))")
        self._holdout = holdout
        try:
            return super().fit(images)
        finally:
            self._holdout = None  # its images are not kept

    def _fit(self, images: torch.Tensor) -> None:
        assert self._holdout is not None
        auc = scikit_learn("metrics").roc_auc_score
        self.aucs_: dict[Any, float] = {}
        for value in self.grid:
            detector = self.make(value).fit(images)
            found = float(auc(self._holdout.anomalous, detector.decision_function(self._holdout.images)))
            if found > max(self.aucs_.values(), default=-1.0):
                self.chosen_, self.detector_ = value, detector
            self.aucs_[value] = found

    def _scores(self, images: torch.Tensor) -> npt.NDArray[Any]:
        return self.detector_._scores(images)
