"""One digit of scikit-learn's as the normal class: to fit, to choose on, to test on."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'adgan-fast[baselines]'")
from sklearn.metrics import roc_auc_score

from adgan_fast.baselines import Baseline, Holdout
from adgan_fast.data import load_digits

NORMAL = 8
_DIGITS = load_digits()
_OWN, _OTHERS = _DIGITS.of_class(NORMAL).images, _DIGITS.images[_DIGITS.labels != NORMAL]

FIT = _OWN[:110]
"""(110, 1, 8, 8), float32 in [-1, 1], as all of these."""
HOLDOUT = Holdout(np.concatenate([_OWN[110:130], _OTHERS[:40]]), np.arange(60) >= 20)
TEST = np.concatenate([_OWN[130:], _OTHERS[100:300]])
ANOMALOUS = np.arange(len(TEST)) >= len(_OWN[130:])


def auc(detector: Baseline, every: int = 1) -> float:
    """Of a fitted detector, on TEST, or on every n-th of its images."""
    return float(roc_auc_score(ANOMALOUS[::every], detector.decision_function(TEST[::every])))
