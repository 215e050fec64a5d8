"""A deep belief network, and a one-class SVM on what it makes of images (Erfani et al. 2016, the paper's ref. [14])."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .base import Baseline, scikit_learn
from .classical import tuned_gamma
from .features import Pixels, some


@dataclasses.dataclass(eq=False)
class DBN(Baseline):
    """Restricted Boltzmann machines, each trained on the hidden units of the one before, then a one-class SVM.

    Pixels in [0, 1] are taken as probabilities. The machines are trained without labels and not tuned afterwards.

    Attributes:
        sizes: hidden units of each machine.
        learning_rate, n_iter, batch_size: of each machine, as scikit-learn's BernoulliRBM has them.
        nu: bound on the share of images left outside.
        subsample: images for the choice of the kernel's scale (`tuned_gamma`), at most, drawn by `seed`.
        seed: of that draw, and of the machines.
        gamma_: the kernel's inverse scale.
    """

    sizes: tuple[int, ...] = (256, 64)
    learning_rate: float = 0.05
    n_iter: int = 20
    batch_size: int = 10
    nu: float = 0.1
    subsample: int = 1000
    seed: int = 0

    def _fit(self, images: torch.Tensor) -> None:
        network = scikit_learn("neural_network")
        machines = [
            network.BernoulliRBM(
                size,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                n_iter=self.n_iter,
                random_state=self.seed,
            )
            for size in self.sizes
        ]
        self._machines: Any = scikit_learn("pipeline").make_pipeline(*machines)
        rows = self._machines.fit_transform(_probabilities(images))
        self.gamma_ = tuned_gamma(rows[some(len(rows), self.subsample, self.seed)])
        self._model: Any = scikit_learn("svm").OneClassSVM(nu=self.nu, gamma=self.gamma_).fit(rows)

    def _scores(self, images: torch.Tensor) -> npt.NDArray[np.float64]:
        return -self._model.decision_function(self._machines.transform(_probabilities(images)))


def _probabilities(images: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.clip((Pixels()(images) + 1) / 2, 0, 1)  # the range of images has some slack
