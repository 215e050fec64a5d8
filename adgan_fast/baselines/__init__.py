"""The detectors that the paper compares with ADGAN (Deecke et al. 2018, Sect. 4.2), all with one face: `Baseline`."""

from __future__ import annotations

from .alexnet import WeightsMissing
from .base import Baseline, NotFittedError
from .classical import GMM, KDE, OCSVM, IForest
from .dbn import DBN
from .features import PCA, AlexNet, Pixels, Shared
from .selection import Holdout, Selected

__all__ = [
    "DBN",
    "GMM",
    "KDE",
    "OCSVM",
    "PCA",
    "AlexNet",
    "Baseline",
    "Holdout",
    "IForest",
    "NotFittedError",
    "Pixels",
    "Selected",
    "Shared",
    "WeightsMissing",
]
