"""The detector as an estimator of scikit-learn: rows of pixels in, its sign and its labels out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .calibration import CONTAMINATION
from .config import SearchConfig
from .detector import Detector
from .generator.working_copy import Generator
from .given import is_number, whole
from .training import TrainConfig

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("adgan_fast.scikit_learn needs scikit-learn: pip install 'adgan-fast[baselines]'") from error

if TYPE_CHECKING:
    from typing_extensions import Self


class ADGANDetector(OutlierMixin, BaseEstimator):
    """`adgan_fast.Detector` for pipelines and cross-validation.

    As with every outlier detector of scikit-learn, and unlike in `Detector`, lower is more anomalous, an anomaly is
    -1 and a normal image +1. Arguments are checked by `fit`.

    Args:
        generator, contamination, training, adaptive, config: as for `Detector`.
        image_shape: (C, H, W) of the images whose pixels are the rows of X, in that order; None: one channel, and as
            high as wide.
        value_range: the numbers in X that are black and white; those beyond are refused. (0, 255) for MNIST as
            `fetch_openml` gives it, (0, 16) for `load_digits`.
        held_out: share of X that a training does not see, and that the threshold is set on; 20 % when None.
        random_state: int, of the draw of that share. The training has a seed of its own, in `training`.

    Attributes:
        detector_: Detector, fitted.
        offset_: minus its threshold: decision_function is score_samples less this.
        n_features_in_: pixels of an image, C · H · W.
    """

    def __init__(
        self,
        generator: Generator | None = None,
        *,
        image_shape: tuple[int, int, int] | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        contamination: float = CONTAMINATION,
        training: TrainConfig | None = None,
        adaptive: float | None = None,
        config: SearchConfig | None = None,
        held_out: float | None = None,
        random_state: int = 0,
    ) -> None:
        self.generator = generator
        self.image_shape = image_shape
        self.value_range = value_range
        self.contamination = contamination
        self.training = training
        self.adaptive = adaptive
        self.config = config
        self.held_out = held_out
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: Any = None) -> Self:
        """Learn from normal images X (N, C · H · W), see `Detector.fit`; y is there for pipelines, and not used."""
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        detector = Detector(
            self._generator(), contamination=self.contamination, training=self.training, adaptive=self.adaptive,
            config=self.config,
        )  # fmt: skip
        detector.fit(self._images(rows), held_out=self.held_out, seed=whole("random_state", self.random_state, 0))
        self.detector_, self.offset_ = detector, -detector.threshold_
        return self

    def score_samples(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Minus the scores of `Detector`, (N,): the lower, the more anomalous."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        return -self.detector_.decision_function(self._images(rows))

    def decision_function(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """`score_samples` less `offset_`, (N,): below 0 for an anomaly."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """(N,): -1 for an anomaly, +1 for a normal image. ValueError for an image whose search diverged."""
        found = self.decision_function(X)
        if lost := int(np.isnan(found).sum()):
            raise ValueError(f"{lost} of {len(found)} images have no score: nothing says whether they are normal")
        return np.where(found < 0, -1, 1)

    def _generator(self) -> Generator | None:
        return self.generator

    def _images(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Rows (N, C · H · W) as images (N, C, H, W) in [-1, 1]."""
        shape = self._image_shape(rows.shape[1])
        try:
            low, high = self.value_range
        except (TypeError, ValueError):
            low, high = math.nan, math.nan
        if not (is_number(low) and is_number(high) and low < high):
            raise ValueError(f"value_range must be two numbers, the lower first, got {self.value_range!r}")
        if len(rows) and not (low <= rows.min() and rows.max() <= high):
            seen = f"[{rows.min():.4g}, {rows.max():.4g}]"
            raise ValueError(f"X must lie in value_range, [{low:g}, {high:g}], it spans {seen}")
        return ((rows - low) * (2 / (high - low)) - 1).astype(np.float32).reshape(-1, *shape)

    def _image_shape(self, n_features: int) -> tuple[int, int, int]:
        if self.image_shape is None:
            side = math.isqrt(n_features)
            shape = (1, side, side)
        else:
            shape = self.image_shape
        if math.prod(shape) != n_features or len(shape) != 3:
            what = "no square number" if self.image_shape is None else f"not those of image_shape={self.image_shape}"
            raise ValueError(f"X has {n_features} features, {what}: give the (C, H, W) of an image as image_shape=")
        return shape
