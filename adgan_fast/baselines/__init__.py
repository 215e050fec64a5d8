"""The detectors that the paper compares with ADGAN (Deecke et al. 2018, Sect. 4.2), all with one face: `Baseline`."""

from __future__ import annotations

from .alexnet import WeightsMissing
from .base import Baseline, NotFittedError
from .classical import GMM, KDE, OCSVM, IForest
from .dbn import DBN
from .dcae import DCAE
from .features import PCA, AlexNet, Pixels, Shared
from .gan import ADGAN, AnoGAN, CriticScore, PriorLikelihood, prior_scores
from .selection import Holdout, Selected
from .svdd import DeepSVDD
from .vae import VAE

__all__ = [
    "ADGAN",
    "DBN",
    "DCAE",
    "GMM",
    "KDE",
    "OCSVM",
    "PCA",
    "VAE",
    "AlexNet",
    "AnoGAN",
    "Baseline",
    "CriticScore",
    "DeepSVDD",
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
