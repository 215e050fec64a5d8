"""Images to train on."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
