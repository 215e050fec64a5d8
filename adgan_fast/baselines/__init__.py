"""The detectors that the paper compares with ADGAN (Deecke et al. 2018, Sect. 4.2), all with one face: `Baseline`."""

from __future__ import annotations

from .alexnet import WeightsMissing
from .base import Baseline, NotFittedError
from .classical import GMM, KDE, OCSVM, IForest
from .dbn import DBN
from .features import PCA, AlexNet, Pixels, Shared
from .gan import ADGAN, AnoGAN, CriticScore, PriorLikelihood, prior_scores
from .selection import Holdout, Selected

__all__ = [
    "ADGAN",
    "DBN",
    "GMM",
    "KDE",
    "OCSVM",
    "PCA",
    "AlexNet",
    "AnoGAN",
    "Baseline",
    "CriticScore",
    "Holdout",
    "IForest",
    "NotFittedError",
    "Pixels",
    "PriorLikelihood",
    "Selected",
    "Shared",
    "WeightsMissing",
    "prior_scores",
]
