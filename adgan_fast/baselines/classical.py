"""The four traditional detectors of the paper's comparison (Deecke et al. 2018, Sect. 4.2), on scikit-learn."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .base import Baseline, scikit_learn
from .features import FeatureMap, Pixels, some

Rows = npt.NDArray[np.float64]

BANDWIDTHS = tuple(float(2 ** (power / 2)) for power in range(9))
"""2^0, 2^0.5, … 2^4 (Sect. 4.2), in the unit of the features."""
COMPONENTS = tuple(range(2, 21))
_AT_ONCE = 500
"""Images whose distances to all others are held at once."""


@dataclasses.dataclass(eq=False)
class Classical(Baseline):
    """A detector on rows of features.

    Attributes:
        features: what it looks at; fitted with the detector.
    """

    features: FeatureMap = dataclasses.field(default_factory=Pixels)

    def _fit(self, images: torch.Tensor) -> None:
        self._learn(self.features.fit(images)(images))

    def _scores(self, images: torch.Tensor) -> Rows:
        return self._judge(self.features(images))

    @abc.abstractmethod
    def _learn(self, rows: Rows) -> None:
        """From features (N, D) of the normal class."""

    @abc.abstractmethod
    def _judge(self, rows: Rows) -> Rows:
        """Features (N, D) to scores (N,), higher = more anomalous."""


@dataclasses.dataclass(eq=False)
class KDE(Classical):
    """Minus the log density of a Gaussian kernel density estimate (Parzen 1962).

    The bandwidth is the one of highest likelihood in cross-validation.

    Attributes:
        bandwidths: to choose from; one alone is taken as it is.
        folds: of the cross-validation, over images shuffled by `seed`.
        subsample: images for the choice of the bandwidth, at most, drawn by `seed`; None: all. The density itself has a
            kernel at every image fitted.
        seed: see above.
        bandwidth_: what was chosen.
    """

    bandwidths: tuple[float, ...] = BANDWIDTHS
    folds: int = 10
    subsample: int | None = None
    seed: int = 0

    def _learn(self, rows: Rows) -> None:
        # One leaf for all: where the tree prunes, densities below 1e-16 of the largest are rounding (scikit-learn 1.9;
        # of MNIST's digits the log density was off by up to 135), and in so many dimensions it prunes nothing.
        density = functools.partial(scikit_learn("neighbors").KernelDensity, leaf_size=len(rows))
        self.bandwidth_ = float(self.bandwidths[0])
        if len(self.bandwidths) > 1:
            self.bandwidth_ = self._likeliest(rows[some(len(rows), self.subsample, self.seed)])
        self._model: Any = density(bandwidth=self.bandwidth_).fit(rows)

    def _likeliest(self, rows: Rows) -> float:
        """The bandwidth of the cross-validation. Distances are taken once for all of them: most of its time."""
        folds = scikit_learn("model_selection").KFold(self.folds, shuffle=True, random_state=self.seed)
        distances = scikit_learn("metrics.pairwise").euclidean_distances
        likelihoods = np.zeros(len(self.bandwidths))
        for others, fold in folds.split(rows):
            for part in np.array_split(fold, -(-len(fold) // _AT_ONCE)):
                squares = distances(rows[part], rows[others], squared=True)
                likelihoods += [log_density(squares, width, rows.shape[1]).sum() for width in self.bandwidths]
        return float(self.bandwidths[int(np.argmax(likelihoods))])

    def _judge(self, rows: Rows) -> Rows:
        return -self._model.score_samples(rows)


def log_density(squares: Rows, bandwidth: float, dimensions: int) -> Rows:
    """Log of a Gaussian kernel density estimate, (n,), from squared distances (n, N) to the N points with kernels."""
    from scipy.special import logsumexp

    logs = logsumexp(squares / (-2 * bandwidth**2), axis=1)
    return logs - np.log(squares.shape[1]) - dimensions / 2 * np.log(2 * np.pi * bandwidth**2)


@dataclasses.dataclass(eq=False)
class OCSVM(Classical):
    """One-class support vector machine (Schölkopf et al. 2001) with the kernel exp(−γ |x − y|²).

    Attributes:
        nu: bound on the share of images left outside (Sect. 4.2: 0.1).
        gamma: the kernel's inverse scale; None: by `tuned_gamma`.
        subsample: images for that choice, at most, drawn by `seed`.
        seed: see above.
        gamma_: what was chosen.
    """

    nu: float = 0.1
    gamma: float | None = None
    subsample: int = 1000
    seed: int = 0

    def _learn(self, rows: Rows) -> None:
        chosen = rows[some(len(rows), self.subsample, self.seed)]
        self.gamma_ = tuned_gamma(chosen) if self.gamma is None else self.gamma
        self._model: Any = scikit_learn("svm").OneClassSVM(nu=self.nu, gamma=self.gamma_).fit(rows)

    def _judge(self, rows: Rows) -> Rows:
        return -self._model.decision_function(rows)


@dataclasses.dataclass(eq=False)
class IForest(Classical):
    """Isolation forest (Liu et al. 2008) as scikit-learn sets it: 100 trees of 256 images each.

    Attributes:
        n_estimators: trees.
        seed: of the trees.
    """

    n_estimators: int = 100
    seed: int = 0

    def _learn(self, rows: Rows) -> None:
        forest = scikit_learn("ensemble").IsolationForest(n_estimators=self.n_estimators, random_state=self.seed)
        self._model: Any = forest.fit(rows)

    def _judge(self, rows: Rows) -> Rows:
        return -self._model.score_samples(rows)


@dataclasses.dataclass(eq=False)
class GMM(Classical):
    """Minus the log density of a mixture of Gaussians with full covariances, of as many as have the lowest BIC.

    Attributes:
        components: numbers of them to choose from, in order (Sect. 4.2: 2 to 20); those beyond the number of images are
            left out.
        patience: after so many numbers in a row without a lower criterion no more are tried; None: all are. In many
            dimensions the criterion rises from the start, and on pixels the mixtures passed over would take hours.
        reg_covar: added to the variance of each feature in each component. In pixels of [-1, 1] 1e-3 is a deviation of
            0.03, four of 255 grey levels: without it a component of few images has a density without bound.
        seed: of the first guess (k-means).
        n_components_: what was chosen.
        bic_: the criterion of each number tried, in order.
    """

    components: tuple[int, ...] = COMPONENTS
    patience: int | None = 3
    reg_covar: float = 1e-3
    seed: int = 0

    def _learn(self, rows: Rows) -> None:
        mixture = scikit_learn("mixture").GaussianMixture
        self._model: Any = None
        self.bic_: dict[int, float] = {}
        without = 0
        for count in self.components:
            if count > len(rows) or without == self.patience:
                continue
            model = mixture(count, reg_covar=self.reg_covar, random_state=self.seed).fit(rows)
            self.bic_[count] = float(model.bic(rows))
            if self.bic_[count] == min(self.bic_.values()):
                self._model, self.n_components_, without = model, count, 0
            else:
                without += 1
        if self._model is None:
            raise ValueError(f"{min(self.components)} components need as many images, got {len(rows)}")

    def _judge(self, rows: Rows) -> Rows:
        return -self._model.score_samples(rows)


def tuned_gamma(rows: Rows) -> float:
    """γ of exp(−γ |x − y|²) from data (N, D) alone, N at least 2, after Evangelista, Embrechts and Szymanski 2007.

    "Some properties of the Gaussian kernel for one class learning", ICANN 2007 (the paper's ref. [16]): the scale at
    which the entries of the kernel matrix off its diagonal are most dispersed. Dispersion is their variance over their
    mean. It is 0 for γ → 0 (all entries 1) and for γ → ∞ (all 0), while deviation over mean has no maximum between: it
    grows as long as one entry outweighs the others.

    γ is the best of 200 values, 5 % apart, around the reciprocal of the median |x − y|². Raises ValueError where fewer
    than two rows differ.
    """
    squared = scikit_learn("metrics").pairwise_distances(rows, metric="sqeuclidean")
    squared = squared[np.triu_indices(len(rows), 1)]
    if not squared.size or squared.max() <= 0:
        raise ValueError(f"the kernel's scale cannot be tuned: no two of {len(rows)} rows of features differ")
    middle = np.median(squared[squared > 0])
    candidates = np.geomspace(1e-2, 1e2, 200) / middle
    entries = np.empty_like(squared)
    dispersion = []
    for gamma in candidates:
        np.exp(np.multiply(squared, -gamma, out=entries), out=entries)
        dispersion.append(entries.var() / max(entries.mean(), np.finfo(np.float64).tiny))
    return float(candidates[int(np.argmax(dispersion))])
